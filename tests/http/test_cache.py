"""The cache over the installed command: what is answered from it, what is kept, what never is, and what it says."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest

from support.gateway import NATIVE_HEADERS, RunningGateway, running_gateway
from support.upstream import Answer, FakeUpstream, fake_upstream

MODEL = "openai/gpt-4o-mini"
ANTHROPIC = {"anthropic-version": "2023-06-01"}
KEYS = {
    "OPENAI_API_KEY": "sk-fake-openai-0123456789",
    "ANTHROPIC_API_KEY": "sk-ant-fake-0123456789",
    "SECOND_API_KEY": "second-fake-0123456789",
}
TOML = """
[timeouts]
idle_s = 1.5
heartbeat_s = 0.4
total_s = 3.0

[cache]
exact = true
{cache}

[providers.second]
dialect = "openai"
base_url = "{url}/second/v1"
auth = {{ kind = "bearer", env = "SECOND_API_KEY" }}
[[providers.second.models]]
name = "m"
prices = [
    {{ unit = "input_tokens", per = 1_000_000, usd = "{usd}" }},
    {{ unit = "output_tokens", per = 1_000_000, usd = "0.60" }},
]

[aliases.best]
targets = [{targets}]

[aliases.apart]
targets = ["openai/gpt-4o-mini"]
"""


def configured(
    upstream: FakeUpstream, *, cache: str = "", usd: str = "0.15", targets: str = '"second/m"'
) -> str:
    return TOML.format(url=upstream.url, cache=cache, usd=usd, targets=targets)


def environment(upstream: FakeUpstream) -> dict[str, str]:
    return {
        **KEYS,
        "LLM_GATE_OPENAI_BASE_URL": f"{upstream.url}/v1",
        "LLM_GATE_ANTHROPIC_BASE_URL": upstream.url,
    }


@pytest.fixture(scope="module")
def vendor() -> Iterator[FakeUpstream]:
    with fake_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(vendor) -> Iterator[RunningGateway]:
    with running_gateway(environment(vendor), toml=configured(vendor)) as running:
        yield running


_questions = iter(range(1_000_000))


@pytest.fixture
def question() -> str:
    """A question that nobody has asked yet."""
    return f"What is number {next(_questions)}?"


def completion(text: str = "An answer", finish: str | None = "stop", **message: Any) -> Answer:
    said = {"role": "assistant", "content": text, **message}
    return Answer.json(
        {
            "id": "chatcmpl-vendor",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": finish}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
        }
    )


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    document = {"id": "chatcmpl-vendor", "created": 1, "model": "gpt-4o-mini-2024-07-18", "choices": [choice]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}}\n\n'
DONE = b"data: [DONE]\n\n"
STREAM = (
    chunk({"role": "assistant", "content": "An "}),
    chunk({"content": "answer"}),
    chunk({}, "stop"),
    USAGE,
    DONE,
)


def ask(
    gateway: RunningGateway, text: str, *, headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 64, **more}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=20)


def word(answer: httpx.Response) -> str | None:
    assert answer.status_code == 200, answer.text
    return answer.headers.get("x-llm-gate-cache")


def text_of(answer: httpx.Response) -> str:
    return answer.json()["choices"][0]["message"]["content"]


def streamed(answer: httpx.Response) -> str:
    assert answer.text.rstrip().endswith("data: [DONE]"), answer.text
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return "".join(
        choice["delta"].get("content") or "" for event in events for choice in event.get("choices", ())
    )


def rows(gateway: RunningGateway, sql: str, *values: object) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(gateway.folder / "data" / "llm-gate.db")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql, values)]


def test_a_hit_says_so_costs_nothing_and_asks_nobody(gateway, vendor, question):
    """The second answer is the first one, at no cost, with its usage."""
    vendor.will(completion())
    first, second = ask(gateway, question), ask(gateway, question)
    assert (word(first), word(second)) == ("miss", "hit")
    assert len(vendor.seen) == 1
    assert text_of(first) == text_of(second) == "An answer"
    assert first.headers["x-llm-gate-cost-usd"] == "0.000045"
    assert second.headers["x-llm-gate-cost-usd"] == "0"
    assert "age" not in first.headers
    assert second.headers["age"] in {"0", "1", "2"}
    assert second.headers["x-llm-gate-attempts"] == "0"
    assert second.headers["x-llm-gate-provider"] == "openai"
    usage = second.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["cost"]) == (100, 50, 0)
    assert second.json()["model"] == "gpt-4o-mini-2024-07-18"
    # An id names one answer.
    assert first.json()["id"] != second.json()["id"]


def test_a_hit_is_a_record_of_its_own_without_tokens_or_cost(gateway, vendor, question):
    """What was saved stands in the record, and in the log line what became of the call."""
    vendor.will(completion())
    ask(gateway, question)
    hit = ask(gateway, question, headers={"x-request-id": f"hit-{id(question)}"})
    assert word(hit) == "hit"
    (record,) = rows(gateway, "select * from usage_record where request_id = ?", f"hit-{id(question)}")
    (attempt,) = rows(gateway, "select * from attempt where record_id = ?", record["id"])
    assert (record["status"], record["cost_nanos"], record["tokens"], record["count"]) == ("ok", 0, 0, 1)
    assert (record["input_tokens"], record["output_tokens"]) == (0, 0)
    assert (attempt["status"], attempt["provider"], attempt["model"]) == ("ok", "openai", "gpt-4o-mini")
    assert (attempt["cost_nanos"], attempt["tokens"], attempt["saved_nanos"]) == (0, 0, 45_000)
    line = json.loads(gateway.logged(f"hit-{id(question)}"))
    assert (line["cache"], line["cost_usd"], line["attempts"]) == ("hit", "0", 0)


def test_one_question_in_four_formats_is_one_upstream_call(gateway, vendor, question):
    """Whatever wire format the question comes in, the answer is the same, whole and streamed."""
    vendor.will(completion())
    messages = [{"role": "user", "content": question}]
    native = {
        "provider": {"name": "openai", "model": {"name": "gpt-4o-mini"}},
        "prompt": {"messages": messages, "parameter": {"maxTokens": 64}},
    }
    said = {"model": MODEL, "max_tokens": 64}
    assert word(ask(gateway, question)) == "miss"
    # The native format writes the model's name as the others do where both are named.
    asked = [
        ("/v1/messages", {**said, "messages": messages}, ANTHROPIC),
        ("/v1/messages", {**said, "messages": messages, "stream": True}, ANTHROPIC),
        ("/v1/responses", {"model": MODEL, "input": question, "max_output_tokens": 64}, {}),
        ("/v1/responses", {"model": MODEL, "input": question, "max_output_tokens": 64, "stream": True}, {}),
        ("/v1/completions", {**said, "prompt": question}, {}),
        ("/llm-gate/v1/chat", native, NATIVE_HEADERS),
        ("/llm-gate/v1/chat/stream", native, NATIVE_HEADERS),
    ]
    for path, body, headers in asked:
        answer = httpx.post(gateway.url + path, json=body, headers=headers, timeout=20)
        assert word(answer) == "hit", path
        assert "An answer" in answer.text, path
        assert answer.headers["x-llm-gate-cost-usd"] == "0", path
    assert len(vendor.seen) == 1


def test_an_anthropic_stream_from_the_cache_tells_its_usage_at_both_ends(gateway, vendor, question):
    """`message_start` carries what went in, as a vendor's own does, and the cost is nothing."""
    vendor.will(completion())
    ask(gateway, question)
    body = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": question}]}
    answer = httpx.post(f"{gateway.url}/v1/messages", json={**body, "stream": True}, headers=ANTHROPIC)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[0]["message"]["usage"]["input_tokens"] == 100
    delta = next(event for event in events if event["type"] == "message_delta")
    assert (delta["usage"]["output_tokens"], delta["usage"]["cost"]) == (50, 0)
    assert events[-1]["type"] == "message_stop"


def test_whole_after_stream_and_stream_after_whole(gateway, vendor, question):
    """A complete stream is kept and given whole; a whole answer is given as a stream."""
    vendor.will(Answer.events(*STREAM))
    first = ask(gateway, question, stream=True)
    assert (word(first), streamed(first)) == ("miss", "An answer")
    whole = ask(gateway, question)
    assert (word(whole), text_of(whole)) == ("hit", "An answer")
    assert whole.json()["usage"]["completion_tokens"] == 50
    again = ask(gateway, question, stream=True, stream_options={"include_usage": True})
    assert (word(again), streamed(again)) == ("hit", "An answer")
    usages = [line for line in again.text.splitlines() if '"usage":{"' in line]
    assert len(usages) == 1
    assert json.loads(usages[0][6:])["usage"]["cost"] == 0
    assert len(vendor.seen) == 1


def test_tool_calls_are_kept_whole_and_streamed(gateway, vendor, question):
    """A call with its arguments comes back as it was, also out of a stream's pieces."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

    def call(**function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, **function}]}

    pieces = (
        chunk(
            {
                "role": "assistant",
                **call(id="call_9", type="function", function={"name": "look", "arguments": ""}),
            }
        ),
        chunk(call(function={"arguments": '{"a":'})),
        chunk(call(function={"arguments": "1}"})),
        chunk({}, "tool_calls"),
        USAGE,
        DONE,
    )
    vendor.will(Answer.events(*pieces))
    ask(gateway, question, stream=True, tools=[tool])
    whole = ask(gateway, question, tools=[tool])
    assert word(whole) == "hit"
    choice = whole.json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == [
        {"id": "call_9", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    ]
    again = ask(gateway, question, stream=True, tools=[tool])
    events = [json.loads(line[6:]) for line in again.text.splitlines() if line.startswith("data: {")]
    said = [call for event in events for call in event["choices"][0]["delta"].get("tool_calls", ())]
    assert [(call["id"], call["function"]) for call in said] == [
        ("call_9", {"name": "look", "arguments": '{"a":1}'})
    ]


CUT = Answer.events(*STREAM[:2], cut=True)
NO_END = Answer.events(*STREAM[:2])


@pytest.mark.parametrize("answer", [CUT, NO_END, Answer.events(*STREAM[:4], cut=True)])
def test_a_cut_stream_is_never_kept(gateway, vendor, question, answer):
    """Without the end that the protocol has for it, an answer is not one."""
    vendor.will(answer, completion("The whole"))
    first = ask(gateway, question, stream=True)
    assert "[DONE]" not in first.text
    again = ask(gateway, question)
    assert (word(again), text_of(again)) == ("miss", "The whole")


def test_a_stream_that_its_caller_leaves_is_never_kept(gateway, vendor, question):
    """Half an answer is nobody's answer."""
    vendor.will(Answer.events(*STREAM[:2], *STREAM[1:], pause_s=0.3), completion("The whole"))
    body = {"model": MODEL, "messages": [{"role": "user", "content": question}], "max_tokens": 64}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json={**body, "stream": True}) as left:
        next(left.iter_raw())
    assert text_of(ask(gateway, question)) == "The whole"


SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "a",
        "schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    },
}


@pytest.mark.parametrize(
    ("answer", "more"),
    [
        (Answer.json({"error": {"message": "broken"}}, 500), {}),
        (Answer.json({"error": {"message": "slow down"}}, 429), {}),
        (Answer.json({"error": {"message": "in spite of 200"}}), {}),
        (completion("Half an ans", finish="length"), {}),
        (completion("", finish="content_filter"), {}),
        (completion("I will not", refusal="I will not"), {}),
        (completion(""), {}),
        (completion("no JSON"), {"response_format": SCHEMA}),
        (completion('{"n": "x"}'), {"response_format": SCHEMA}),
        (Answer.events(*STREAM), {"response_format": SCHEMA, "stream": True}),
        (Answer.events(STREAM[0], chunk({}, "length"), USAGE, DONE), {"stream": True}),
        (Answer.events(STREAM[0], chunk({}, "content_filter"), USAGE, DONE), {"stream": True}),
    ],
)
def test_what_is_not_complete_and_sound_is_never_kept(gateway, vendor, question, answer, more):
    """Errors, cut and filtered answers, refusals and misfits are asked for again."""
    vendor.will(answer, completion('{"n": 1}'))
    ask(gateway, question, **more)
    again = ask(gateway, question, **{**more, "stream": False})
    assert word(again) == "miss"
    assert text_of(again) == '{"n": 1}'
    assert len(vendor.seen) == 2
    kept = ask(gateway, question, **{**more, "stream": False})
    assert word(kept) == "hit"


def test_an_answer_over_a_mebibyte_is_not_kept(gateway, vendor, question):
    """What is kept is bounded."""
    vendor.will(completion("x" * 1_100_000))
    assert [word(ask(gateway, question)) for _ in range(2)] == ["miss", "miss"]


def test_cache_control_is_honoured(gateway, vendor, question):
    """no-store neither reads nor keeps, no-cache does not read but keeps, max-age bounds the age."""
    vendor.will(completion("one"), completion("two"), completion("three"))
    assert word(ask(gateway, question, headers={"cache-control": "no-store"})) == "bypass"
    assert word(ask(gateway, question)) == "miss"
    assert text_of(ask(gateway, question)) == "two"
    fresh = ask(gateway, question, headers={"cache-control": "no-cache"})
    assert (word(fresh), text_of(fresh)) == ("bypass", "three")
    assert text_of(ask(gateway, question)) == "three"
    assert word(ask(gateway, question, headers={"cache-control": "max-age=60"})) == "hit"
    assert word(ask(gateway, question, headers={"cache-control": "max-age=0, nonsense"})) == "miss"
    assert word(ask(gateway, question, headers={"cache-control": "max-age=soon"})) == "hit"


def test_only_if_cached_asks_nobody(gateway, vendor, question):
    """A kept answer or a refusal that no client repeats by itself."""
    vendor.will(completion())
    only = {"cache-control": "only-if-cached"}
    refused = ask(gateway, question, headers=only)
    assert refused.status_code == 504
    assert refused.json()["error"]["code"] == "not_cached"
    assert refused.headers["x-should-retry"] == "false"
    assert ask(gateway, question, headers=only, stream=True).status_code == 504
    assert not vendor.seen
    ask(gateway, question)
    assert word(ask(gateway, question, headers=only)) == "hit"
    assert word(ask(gateway, question, headers=only, stream=True)) == "hit"


def test_a_tests_orders_bypass_the_cache(gateway):
    """Who tells the sandbox how to behave gets just that."""
    body = {"model": "sandbox/chat", "messages": [{"role": "user", "content": "Hi"}]}
    url = f"{gateway.url}/v1/chat/completions"
    answers = [httpx.post(url, json=body) for _ in range(2)]
    assert [word(answer) for answer in answers] == ["miss", "hit"]
    # Made up once, made up again.
    assert answers[1].headers["x-llm-gate-synthetic"] == "true"
    told = httpx.post(url, json=body, headers={"x-llm-gate-sandbox": "fail=503"})
    assert told.status_code == 503
    told = httpx.post(url, json=body, headers={"x-llm-gate-sandbox": "delay_ms=1"})
    assert word(told) == "bypass"


def test_embeddings_are_kept_in_either_notation(gateway, vendor, question):
    """The same texts cost once, as numbers and as base64."""
    document = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    vendor.will(Answer.json(document))
    body = {"model": "openai/text-embedding-3-small", "input": question}
    url = f"{gateway.url}/v1/embeddings"
    first, second = httpx.post(url, json=body), httpx.post(url, json=body)
    packed = httpx.post(url, json={**body, "encoding_format": "base64"})
    assert [word(each) for each in (first, second, packed)] == ["miss", "hit", "hit"]
    assert second.json()["data"][0]["embedding"] == [0.5, -0.25]
    assert packed.json()["data"][0]["embedding"] == "AAAAPwAAgL4="
    assert second.json()["usage"] == {"prompt_tokens": 7, "total_tokens": 7, "cost": 0}
    assert word(httpx.post(url, json={**body, "dimensions": 2})) == "miss"
    native = {
        "provider": {"name": "openai", "model": {"name": "text-embedding-3-small"}},
        "content": {"texts": [question]},
    }
    answer = httpx.post(f"{gateway.url}/llm-gate/v1/embeddings", json=native, headers=NATIVE_HEADERS)
    assert (word(answer), answer.json()["data"]) == ("hit", [[0.5, -0.25]])


def test_the_metrics_count_results_and_savings(gateway, vendor, question):
    """Hits, misses and what was saved can be watched; a hit adds no tokens."""

    def read() -> dict[str, float]:
        lines = httpx.get(f"{gateway.url}/metrics").text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("llm_gate_"))
        return {name: float(value) for name, value in pairs}

    tokens = 'llm_gate_tokens_total{direction="input",model="gpt-4o-mini",operation="chat",provider="openai"}'
    vendor.will(completion())
    ask(gateway, question)
    before = read()
    ask(gateway, question)
    after = read()
    hits = 'llm_gate_cache_total{operation="chat",result="hit"}'
    assert after[hits] == before[hits] + 1
    saved = 'llm_gate_saved_cost_nanos_total{operation="chat"}'
    assert after[saved] == before[saved] + 45_000
    assert after[tokens] == before[tokens]
    assert 'llm_gate_cache_total{operation="chat",result="miss"}' in after


def test_identical_requests_at_once_are_one_upstream_call(gateway, vendor, question):
    """Whoever comes while the first is under way gets its answer, whole or streamed, as a hit."""
    slow = completion()
    vendor.will(Answer(headers=slow.headers, body=slow.body, delay_s=0.5))
    with ThreadPoolExecutor(24) as pool:
        first = pool.submit(ask, gateway, question)
        while not vendor.seen:
            pass
        answers = list(pool.map(lambda i: ask(gateway, question, stream=i % 3 == 0), range(23)))
        answers.append(first.result())
    words = [word(answer) for answer in answers]
    assert (words.count("miss"), words.count("hit")) == (1, 23)
    assert len(vendor.seen) == 1
    assert all("An answer" in answer.text for answer in answers)


def test_a_failure_is_shared_and_the_vendor_asked_once(gateway, vendor, question):
    """Those who waited get the vendor's error, typed as the first one got it."""
    body = json.dumps({"error": {"message": "overloaded"}}).encode()
    vendor.will(Answer(status=503, headers={"content-type": "application/json"}, body=body, delay_s=0.5))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(gateway, question), range(8)))
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["error"]["code"] for answer in answers} == {"provider_unavailable"}
    assert len(vendor.seen) == 1


def test_an_answer_that_may_not_be_kept_is_nobody_elses(gateway, vendor, question):
    """Those who waited ask for themselves, all at once."""
    answer = completion("Half", finish="length")
    vendor.will(Answer(headers=answer.headers, body=answer.body, delay_s=0.4))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ask(gateway, question), range(6)))
    assert {word(answer) for answer in answers} == {"miss"}
    assert len(vendor.seen) == 6


def test_when_the_first_leaves_the_next_one_asks(gateway, vendor, question):
    """A caller who goes away takes nobody with it."""
    slow = completion()
    vendor.will(Answer(headers=slow.headers, body=slow.body, delay_s=0.6))

    def leave() -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": question}], "max_tokens": 64}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=0.2)

    first = threading.Thread(target=leave)
    first.start()
    while not vendor.seen:
        pass
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: ask(gateway, question), range(5)))
    first.join()
    assert sorted(str(word(answer)) for answer in answers) == ["hit"] * 4 + ["miss"]
    assert len(vendor.seen) == 2


def test_who_waits_keeps_its_own_deadline(gateway, vendor, question):
    """A follower's time runs from its own start, and the first goes on."""
    slow = completion()
    vendor.will(Answer(headers=slow.headers, body=slow.body, delay_s=1.0))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, gateway, question)
        while not vendor.seen:
            pass
        late = ask(gateway, question, headers={"x-llm-gate-timeout-ms": "200"})
        assert late.status_code == 504
        assert late.json()["error"]["code"] == "provider_timeout"
        assert word(first.result()) == "miss"
    assert len(vendor.seen) == 1


def test_a_hit_is_served_while_the_vendor_is_down(vendor, question):
    """A vendor that is away, or left alone after failures, is not needed for what is kept."""
    toml = configured(vendor) + "\n[cooldown]\nfailures = 1\nfirst_s = 60\nlongest_wish_s = 0\n"
    toml += "\n[retries]\ntries = 1\nlast_tries = 1\n"
    with running_gateway(environment(vendor), toml=toml, resilient=True) as gateway:
        vendor.will(completion(), Answer.json({"error": {"message": "down"}}, 500))
        assert word(ask(gateway, question)) == "miss"
        assert ask(gateway, "Something else").status_code == 503
        asked = len(vendor.seen)
        assert ask(gateway, "Something else again").status_code == 503
        assert len(vendor.seen) == asked
        assert word(ask(gateway, question)) == "hit"
        assert word(ask(gateway, question, stream=True)) == "hit"


def test_without_a_cache_no_answer_speaks_of_one(vendor, question):
    """Off, it is off: no header, no sharing, and callers cannot switch it on."""
    toml = configured(vendor).replace("exact = true", "exact = false")
    with running_gateway(environment(vendor), toml=toml) as gateway:
        vendor.will(completion())
        answers = [ask(gateway, question, headers={"cache-control": "max-age=60"}) for _ in range(2)]
        assert [word(answer) for answer in answers] == [None, None]
        assert len(vendor.seen) == 2
        assert ask(gateway, question, headers={"cache-control": "only-if-cached"}).status_code == 504
        assert len(vendor.seen) == 2


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ("aliases.nobody = { exact = false }", "no alias is called 'nobody'"),
        ("plans.nobody = { exact = false }", "there is no plan of that name"),
    ],
)
def test_rules_for_what_does_not_exist_stop_the_start(vendor, cache, said):
    """A rule that can never hold is a fault, and says where it stands."""
    with (
        pytest.raises(AssertionError, match=said),
        running_gateway(environment(vendor), toml=configured(vendor, cache=cache)),
    ):
        pass


def test_changed_settings_are_followed_and_nothing_is_lost(vendor, question):
    """Prices, targets and rules that change make other keys; changed back, what was kept is there again."""
    usual = configured(vendor)
    with running_gateway(environment(vendor), toml=usual) as gateway:
        vendor.will(completion())

        def now(toml: str) -> list[str | None]:
            count = sum("was taken over" in line for line in gateway.log)
            plain = "\n[retries]\ntries = 1\nlast_tries = 1\n\n[cooldown]\nfailures = 0\nlongest_wish_s = 0\n"
            (gateway.folder / "llm-gate.toml").write_text(toml + plain, encoding="utf-8")
            gateway.process.send_signal(1)
            for _ in range(200):
                if sum("was taken over" in line for line in gateway.log) > count:
                    break
                threading.Event().wait(0.02)
            return [word(ask(gateway, question, model="best")) for _ in range(2)]

        assert [word(ask(gateway, question, model="best")) for _ in range(2)] == ["miss", "hit"]
        assert now(configured(vendor, usd="0.16")) == ["miss", "hit"]
        assert now(configured(vendor, targets='"openai/gpt-4o-mini"')) == ["miss", "hit"]
        assert now(usual.replace("exact = true", "exact = false")) == [None, None]
        assert now(configured(vendor, cache='aliases.best = { namespace = "x" }')) == ["miss", "hit"]
        assert now(configured(vendor, cache="aliases.best = { exact = false }")) == [None, None]
        assert now(usual) == ["hit", "hit"]
