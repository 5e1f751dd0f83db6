"""Two gateways on one Redis: what one finds out, the other knows; and a rate holds over both."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from support.gateway import running_gateway
from support.servers import private_redis
from support.upstream import Answer, fake_upstream

GOOD = Answer.json(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
)


def toml(first, second, more=""):
    return (
        "".join(
            f"""
        [providers.{name}]
        dialect = "openai"
        base_url = "{upstream.url}/v1"
        auth = {{ kind = "none" }}
        models = [{{ name = "m" }}]
        {more if name == "first" else ""}
        """
            for name, upstream in (("first", first), ("second", second))
        )
        + '[aliases.both]\ntargets = ["first/m", "second/m"]\n'
    )


def ask(gateway, model="both"):
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=10)


def test_a_cooldown_is_known_to_both():
    with fake_upstream() as first, fake_upstream() as second, private_redis() as redis:
        first.will(Answer.json({"error": {"message": "slow down"}}, 429, retry_after="6"), GOOD)
        second.will(GOOD)
        variables = {"LLM_GATE_REDIS_URL": redis.url}
        text = toml(first, second)
        with (
            running_gateway(variables, toml=text, resilient=True) as one,
            running_gateway(variables, toml=text, resilient=True) as other,
        ):
            assert ask(other).headers["x-llm-gate-provider"] == "second"
            limited_at = time.monotonic()
            time.sleep(1.2)
            answers = [ask(one) for _ in range(5)]
            assert {each.headers["x-llm-gate-provider"] for each in answers} == {"second"}
            assert len(first.seen) == 1
            assert time.monotonic() - limited_at < 6
            redis.kill()
            assert ask(one).headers["x-llm-gate-provider"] == "second"


def test_a_rate_holds_over_both_and_each_goes_on_alone_without_redis():
    with fake_upstream() as first, fake_upstream() as second, private_redis() as redis:
        first.will(GOOD)
        second.will(GOOD)
        variables = {"LLM_GATE_REDIS_URL": redis.url}
        text = toml(first, second, "rpm = 4")
        with (
            running_gateway(variables, toml=text, resilient=True) as one,
            running_gateway(variables, toml=text, resilient=True) as other,
        ):
            with ThreadPoolExecutor(6) as pool:
                answers = list(pool.map(lambda number: ask((one, other)[number % 2]), range(16)))
            assert {each.status_code for each in answers} == {200}
            assert len(first.seen) == 4
            redis.kill()
            assert {ask(each).status_code for each in (one, other)} == {200}
