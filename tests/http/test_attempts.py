"""Retries, fallback and cooldown as callers see them: two fake providers behind one name, over real sockets."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest

from support.gateway import RunningGateway, running_gateway
from support.upstream import Answer, FakeUpstream, fake_upstream
from support.web import TRUSTS_NOBODY

ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
OK = Answer.json(ANSWER)
DOWN = Answer.json({"error": {"message": "down", "type": "server_error"}}, 503)
CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def chunk(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({**CHUNK, "choices": [choice]}).encode() + b"\n\n"


STREAM = Answer.events(chunk("Hi"), chunk("", "stop"), b"data: [DONE]\n\n")


class Rig:
    """A gateway before two providers, "first" and "second", and the alias "both"."""

    def __init__(self, gateway: RunningGateway, first: FakeUpstream, second: FakeUpstream) -> None:
        self.gateway = gateway
        self.first = first
        self.second = second

    def ask(self, model: str = "both", *, stream: bool = False, **headers: str) -> httpx.Response:
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(
            f"{self.gateway.url}/v1/chat/completions",
            json=body,
            headers=named,
            timeout=30,
            verify=TRUSTS_NOBODY,
        )


def toml(first: FakeUpstream, second: FakeUpstream, more: str = "") -> str:
    providers = "".join(
        f"""
        [providers.{name}]
        dialect = "openai"
        base_url = "{upstream.url}/v1"
        auth = {{ kind = "none" }}
        models = [{{ name = "m", operations = ["chat", "embedding"] }}]
        """
        for name, upstream in (("first", first), ("second", second))
    )
    return f'{providers}\n[aliases.both]\ntargets = ["first/m", "second/m"]\n{more}'


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A fresh gateway with the usual policy, or with what the test's parameter says."""
    more = getattr(request, "param", "")
    with fake_upstream() as first, fake_upstream() as second:
        first.will(OK)
        second.will(OK)
        with running_gateway(toml=toml(first, second, more), resilient=True) as gateway:
            yield Rig(gateway, first, second)


def test_a_transient_failure_is_repeated_once_and_then_passed_by(rig):
    rig.first.will(DOWN)
    started = time.monotonic()
    answer = rig.ask()
    assert answer.status_code == 200
    assert answer.headers["x-llm-gate-provider"] == "second"
    assert answer.headers["x-llm-gate-attempts"] == "3"
    assert len(rig.first.seen) == 2
    assert 0.25 <= time.monotonic() - started <= 2.0


def test_the_last_target_gets_three_attempts(rig):
    rig.first.will(DOWN, DOWN, OK)
    answer = rig.ask("first/m")
    assert answer.status_code == 200
    assert answer.headers["x-llm-gate-attempts"] == "3"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (429, "insufficient_quota"),
        (429, None),
        (401, "invalid_api_key"),
        (404, "model_not_found"),
        (402, None),
    ],
)
def test_quota_credential_and_model_move_on_at_once(rig, status, code):
    rig.first.will(Answer.json({"error": {"message": "no", "code": code}}, status))
    started = time.monotonic()
    answer = rig.ask()
    assert answer.status_code == 200
    assert answer.headers["x-llm-gate-provider"] == "second"
    assert len(rig.first.seen) == 1
    assert time.monotonic() - started < 1.0


def test_a_refused_request_is_neither_repeated_nor_moved_on(rig):
    rig.first.will(Answer.json({"error": {"message": "bad temperature", "param": "temperature"}}, 400))
    answer = rig.ask()
    assert answer.status_code == 400
    assert len(rig.first.seen) == 1
    assert rig.second.seen == []


def test_nonsense_is_asked_for_once_more(rig):
    rig.first.will(Answer(headers={"content-type": "text/html"}, body=b"<html>maintenance</html>"))
    answer = rig.ask()
    assert answer.status_code == 200
    assert len(rig.first.seen) == 2
    assert answer.headers["x-llm-gate-provider"] == "second"


def test_streams_fall_back_before_their_first_event(rig):
    rig.first.will(DOWN)
    rig.second.will(STREAM)
    answer = rig.ask(stream=True)
    assert answer.status_code == 200
    assert answer.headers["x-llm-gate-provider"] == "second"
    assert answer.text.rstrip().endswith("data: [DONE]")


def test_after_the_first_event_there_is_no_fallback(rig):
    rig.first.will(Answer.events(chunk("Hi"), cut=True))
    rig.second.will(STREAM)
    answer = rig.ask(stream=True)
    assert answer.status_code == 200
    assert '"error"' in answer.text
    assert "[DONE]" not in answer.text
    assert rig.second.seen == []


def test_a_wish_for_patience_is_kept_by_every_later_call(rig):
    rig.first.will(Answer.json({"error": {"message": "slow down"}}, 429, retry_after="2"), OK)
    assert rig.ask().headers["x-llm-gate-provider"] == "second"
    limited_at = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        while time.monotonic() - limited_at < 1.8:
            answers = list(pool.map(lambda _: rig.ask(), range(8)))
            if time.monotonic() - limited_at >= 2.0:
                # A busy machine: these may have been asked when the wish was over.
                break
            assert {each.headers["x-llm-gate-provider"] for each in answers} == {"second"}
    assert len(rig.first.seen) == 1
    time.sleep(max(0.0, limited_at + 2.6 - time.monotonic()))
    assert rig.ask().headers["x-llm-gate-provider"] == "first"


def test_alone_a_limited_rate_is_waited_for_or_told(rig):
    rig.first.will(Answer.json({"error": {"message": "slow down"}}, 429, retry_after="1"), OK)
    started = time.monotonic()
    assert rig.ask("first/m").status_code == 200
    assert 1.0 <= time.monotonic() - started <= 3.0
    rig.second.will(Answer.json({"error": {"message": "slow down"}}, 429, retry_after="60"), OK)
    answer = rig.ask("second/m")
    assert answer.status_code == 429
    assert 55 <= int(answer.headers["retry-after"]) <= 80
    again = rig.ask("second/m")
    assert (again.status_code, len(rig.second.seen)) == (429, 1)
    assert int(again.headers["retry-after"]) >= 55


def test_a_place_that_fails_is_left_alone_and_comes_back(rig):
    rig.first.will(DOWN)
    for _ in range(4):
        assert rig.ask().headers["x-llm-gate-provider"] == "second"
    asked = len(rig.first.seen)
    assert asked <= 6
    for _ in range(5):
        assert rig.ask().headers["x-llm-gate-attempts"] == "1"
    assert len(rig.first.seen) == asked
    rig.first.will(OK)
    deadline = time.monotonic() + 10
    while rig.ask().headers["x-llm-gate-provider"] != "first":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_when_everybody_fails_all_reasons_are_said(rig):
    rig.first.will(DOWN)
    rig.second.will(Answer.json({"error": {"message": "no credit", "code": "insufficient_quota"}}, 429))
    answer = rig.ask()
    assert answer.status_code == 503
    assert "first" in answer.json()["error"]["message"]
    assert "second" in answer.json()["error"]["message"]
    rig.gateway.logged("all_failed")


def test_a_caller_may_name_fallbacks(rig):
    rig.first.will(Answer.json({"error": {"message": "no"}}, 429))
    answer = rig.ask("first/m", x_llm_gate_fallbacks="nobody/x, second/m")
    assert answer.headers["x-llm-gate-provider"] == "second"
    assert "first/m" in answer.headers["x-llm-gate-tried"]


def test_a_caller_may_bound_the_whole_call(rig):
    rig.first.will(Answer.json(ANSWER))
    rig.first.will(
        Answer(body=json.dumps(ANSWER).encode(), delay_s=5, headers={"content-type": "application/json"})
    )
    started = time.monotonic()
    answer = rig.ask("first/m", x_llm_gate_timeout_ms="400")
    assert answer.status_code == 504
    assert 0.4 <= time.monotonic() - started <= 1.5
    assert rig.ask("first/m", x_llm_gate_timeout_ms="soon").status_code == 400


@pytest.mark.parametrize(
    "rig", ["[timeouts]\nheaders_s = 0.4\nfirst_event_s = 0.4\nidle_s = 0.4\n"], indirect=True
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_silent_provider_is_passed_by(rig, stream):
    rig.first.will(Answer(body=b"{}", delay_s=4))
    rig.second.will(STREAM if stream else OK)
    started = time.monotonic()
    answer = rig.ask(stream=stream)
    assert answer.headers["x-llm-gate-provider"] == "second"
    assert len(rig.first.seen) == 1
    assert time.monotonic() - started <= 2.0


@pytest.mark.parametrize("rig", ["[retries]\nhedge_after_s = 0.2\nhedge_percent = 100\n"], indirect=True)
@pytest.mark.parametrize("stream", [False, True])
def test_a_slow_provider_is_hedged_and_both_are_booked(rig, stream):
    body = json.dumps(ANSWER).encode()
    rig.first.will(Answer(body=body, delay_s=3, headers={"content-type": "application/json"}))
    rig.second.will(STREAM if stream else OK)
    started = time.monotonic()
    answer = rig.ask(stream=stream)
    assert answer.headers["x-llm-gate-provider"] == "second"
    assert time.monotonic() - started <= 2.0
    assert len(rig.first.seen) == 1
    assert len(rig.second.seen) == 1


@pytest.mark.parametrize(
    "rig", ["[retries]\nbudget_floor = 0\n[cooldown]\nfailures = 1000\nwindow = 10000\n"], indirect=True
)
def test_repeats_are_bounded_by_their_budget(rig):
    rig.first.will(DOWN)
    rig.second.will(DOWN)
    for _ in range(20):
        assert rig.ask("first/m").status_code == 503
    assert len(rig.first.seen) <= 22


def rows(rig: Rig, table: str) -> list[sqlite3.Row]:
    """Read a table of the gateway's ledger when nothing is open any more."""
    deadline = time.monotonic() + 5
    with closing(sqlite3.connect(rig.gateway.folder / "data" / "llm-gate.db")) as connection:
        connection.row_factory = sqlite3.Row
        while connection.execute("select count(*) from reservation").fetchone()[0]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return connection.execute(f"select * from {table}").fetchall()  # noqa: S608 - a name of the test's


def test_every_attempt_stands_in_the_ledger(rig):
    rig.first.will(DOWN)
    assert rig.ask().status_code == 200
    attempts = rows(rig, "attempt")
    assert [(row["provider"], row["status"]) for row in attempts] == [
        ("first", "failed"),
        ("first", "failed"),
        ("second", "ok"),
    ]
    assert len(rows(rig, "usage_record")) == 1


@pytest.mark.parametrize("rig", ["[retries]\nhedge_after_s = 0.2\nhedge_percent = 100\n"], indirect=True)
def test_the_loser_of_a_hedge_has_a_record_of_its_own(rig):
    body = json.dumps(ANSWER).encode()
    rig.first.will(Answer(body=body, delay_s=1, headers={"content-type": "application/json"}))
    assert rig.ask().headers["x-llm-gate-provider"] == "second"
    found = {row["status"] for row in rows(rig, "usage_record")}
    assert found == {"ok", "cut"}
    assert {(row["provider"], row["status"]) for row in rows(rig, "attempt")} == {
        ("first", "cut"),
        ("second", "ok"),
    }


def limited(rig: Rig, **limits: object) -> None:
    """Give the first provider limits, in the running gateway."""
    file = rig.gateway.folder / "llm-gate.toml"
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in limits.items())
    file.write_text(file.read_text().replace("[providers.first]", f"[providers.first]\n{lines}"))
    rig.gateway.logged("the configuration was taken over")


def test_requests_per_minute_are_never_exceeded(rig):
    limited(rig, rpm=3)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: rig.ask(), range(10)))
    assert {each.status_code for each in answers} == {200}
    assert len(rig.first.seen) == 3
    alone = rig.ask("first/m")
    assert alone.status_code == 429
    assert 30 <= int(alone.headers["retry-after"]) <= 61
    assert len(rig.first.seen) == 3


def test_tokens_per_minute_are_never_exceeded(rig):
    limited(rig, tpm=1100)
    assert rig.ask().headers["x-llm-gate-provider"] == "first"
    # What the first call really had is known by now: there is room again for what another is expected to have.
    assert rig.ask().headers["x-llm-gate-provider"] == "first"
    limited_out = httpx.post(
        f"{rig.gateway.url}/v1/chat/completions",
        json={"model": "first/m", "messages": [{"role": "user", "content": "x" * 8000}]},
        timeout=10,
    )
    assert limited_out.status_code == 429
    assert len(rig.first.seen) == 2


def test_calls_at_the_same_time_wait_for_their_turn(rig):
    limited(rig, max_concurrent=2, max_waiting=4)
    body = json.dumps(ANSWER).encode()
    rig.first.will(Answer(body=body, delay_s=0.3, headers={"content-type": "application/json"}))
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: rig.ask("first/m"), range(12)))
    codes = sorted(each.status_code for each in answers)
    assert codes == [200] * 6 + [503] * 6
    assert all("retry-after" in each.headers for each in answers if each.status_code == 503)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("ordered", {"first": 40}), ("weighted", {"first": 10, "second": 30}), ("lowest_latency", None)],
)
def test_strategies_choose(rig, strategy, expected):
    file = rig.gateway.folder / "llm-gate.toml"
    targets = '[{ target = "first/m", weight = 1 }, { target = "second/m", weight = 3 }]'
    if strategy != "weighted":
        targets = '["first/m", "second/m"]'
    more = f'\n[aliases.chosen]\nstrategy = "{strategy}"\ntargets = {targets}\n'
    file.write_text(file.read_text() + more)
    rig.gateway.logged("the configuration was taken over")
    body = json.dumps(ANSWER).encode()
    rig.first.will(Answer(body=body, delay_s=0.05, headers={"content-type": "application/json"}))
    found = Counter(rig.ask("chosen").headers["x-llm-gate-provider"] for _ in range(40))
    if expected is None:
        assert found["second"] >= 30
    elif strategy == "weighted":
        assert 20 <= found["second"] <= 39
    else:
        assert found == expected


def test_one_subject_stays_at_one_place_if_asked(rig):
    file = rig.gateway.folder / "llm-gate.toml"
    more = '\n[aliases.stuck]\nstrategy = "weighted"\nsticky = "user"\ntargets = ["first/m", "second/m"]\n'
    file.write_text(file.read_text() + more)
    rig.gateway.logged("the configuration was taken over")
    homes = {}
    for user in (f"user{number}" for number in range(12)):
        homes[user] = {rig.ask("stuck", x_user_id=user).headers["x-llm-gate-provider"] for _ in range(4)}
    assert all(len(home) == 1 for home in homes.values())
    assert set().union(*homes.values()) == {"first", "second"}
    chosen = {rig.ask("stuck", x_llm_gate_sticky="one").headers["x-llm-gate-provider"] for _ in range(8)}
    assert len(chosen) == 1


def chain(**variables: str) -> dict[str, str]:
    return {"OPENAI_API_KEY": "sk-fake-openai-0123456789", "CO_API_KEY": "co-fake-0123456789", **variables}


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"LLM_PRIMARY_PROVIDER": "cohere", "LLM_FALLBACK_PROVIDERS": "openai"}, ["cohere", "openai"]),
        ({"LLM_PRIMARY_PROVIDER": "cohere"}, ["cohere"]),
        ({}, ["openai", "cohere"]),
    ],
)
def test_the_environment_names_a_primary_and_fallbacks(named, expected):
    with fake_upstream() as openai, fake_upstream() as cohere:
        openai.will(DOWN)
        cohere.will(DOWN)
        urls = {"LLM_GATE_OPENAI_BASE_URL": f"{openai.url}/v1", "LLM_GATE_COHERE_BASE_URL": cohere.url}
        with running_gateway(chain(**named, **urls, LLM_GATE_NO_WAITING="1"), resilient=True) as gateway:
            body = {"model": "default", "messages": [{"role": "user", "content": "Hello"}]}
            answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=10)
            assert answer.status_code == 503
            said = answer.json()["error"]["message"]
            asked = [name for name, upstream in (("openai", openai), ("cohere", cohere)) if upstream.seen]
            assert sorted(asked) == sorted(expected)
            assert [name for name in ("openai", "cohere") if name in said] == asked
            explained = httpx.post(f"{gateway.url}/llm-gate/v1/routes/explain", json={"model": "default"})
            left = {each["name"].split("/")[0] for each in explained.json().get("left", [])}
            assert explained.status_code in {200, 503}
            assert left <= set(expected)
