"""A request that is sent again with its idempotency key is answered with what the first got, and costs nothing more."""

import http.client
import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai
import pytest

from support.gateway import NATIVE_HEADERS, running_gateway
from support.upstream import Answer
from support.web import call

OPENAI, STREAM, MESSAGES = "/v1/chat/completions", "/llm-gate/v1/chat/stream", "/v1/messages"
NATIVE, EMBEDDINGS, RESPONSES = "/llm-gate/v1/chat", "/v1/embeddings", "/v1/responses"
VERSION = {"anthropic-version": "2023-06-01"}
HELLO = [{"role": "user", "content": "Hello"}]
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}
VECTORS = {
    "object": "list",
    "model": "m",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}


def piece(text="", **more):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(body)}\n\n".encode()


USAGE = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12}}\n\n'
)
EVENTS = Answer.events(piece("H"), piece("i"), piece(finish_reason="stop"), USAGE, b"data: [DONE]\n\n")
WHOLE = Answer.json(COMPLETION)
NATIVE_BODY = {"prompt": {"messages": HELLO}, "provider": {"name": "second", "model": {"name": "m"}}}

SURFACES = {
    "openai": (OPENAI, {"model": "second/m", "messages": HELLO}, {}, WHOLE),
    "openai stream": (OPENAI, {"model": "second/m", "messages": HELLO, "stream": True}, {}, EVENTS),
    "embeddings": (
        EMBEDDINGS,
        {"model": "openai/text-embedding-3-small", "input": "a"},
        {},
        Answer.json(VECTORS),
    ),
    "responses": (RESPONSES, {"model": "second/m", "input": "Hello"}, {}, WHOLE),
    "responses stream": (RESPONSES, {"model": "second/m", "input": "Hello", "stream": True}, {}, EVENTS),
    "anthropic": (MESSAGES, {"model": "second/m", "max_tokens": 9, "messages": HELLO}, VERSION, WHOLE),
    "anthropic stream": (
        MESSAGES,
        {"model": "second/m", "max_tokens": 9, "messages": HELLO, "stream": True},
        VERSION,
        EVENTS,
    ),
    "native": (NATIVE, {**NATIVE_BODY}, NATIVE_HEADERS, WHOLE),
    "native stream": (STREAM, {**NATIVE_BODY}, NATIVE_HEADERS, EVENTS),
}
each_surface = pytest.mark.parametrize("surface", SURFACES)


def keyed(**more):
    return {"Idempotency-Key": str(uuid.uuid4()), **more}


@each_surface
def test_a_repeat_gets_the_first_answer(fronted, upstream, surface):
    """Status, headers and body, from one call of the provider, under a request id of its own."""
    path, body, headers, answer = SURFACES[surface]
    upstream.will(answer)
    sent = {**headers, **keyed()}
    first, second = call(fronted.url, path, body, sent), call(fronted.url, path, body, sent)

    assert first.status == 200, first.body
    assert (second.status, second.body) == (200, first.body)
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(upstream.seen) == 1
    own = {"x-request-id", "request-id", "date", "server-timing", "content-length", "transfer-encoding"}
    shown = {name: value for name, value in first.headers.items() if name not in own}
    assert shown.items() <= second.headers.items()
    assert "x-llm-gate-provider" in shown


@each_surface
def test_another_body_is_refused_in_the_form_of_the_surface(fronted, upstream, surface):
    """422, and no call of the provider."""
    path, body, headers, answer = SURFACES[surface]
    upstream.will(answer)
    sent = {**headers, **keyed()}
    call(fronted.url, path, body, sent)
    refused = call(
        fronted.url, path, {**body, "temperature": 1} | ({"input": "b"} if "input" in body else {}), sent
    )

    assert refused.status == 422
    assert len(upstream.seen) == 1
    if surface.startswith("native"):
        (detail,) = refused.json["errorDetails"]
        assert detail["details"] == "idempotency_key_reused"
    elif surface.startswith("anthropic"):
        assert refused.json["type"] == "error"
        assert "idempotency key" in refused.json["error"]["message"]
    else:
        assert refused.json["error"]["code"] == "idempotency_key_reused"


@pytest.mark.parametrize("surface", ["openai", "openai stream", "anthropic", "native stream"])
def test_many_at_once_make_one_call(fronted, upstream, surface):
    """Fifty duplicates: those that come while the first is under way wait for its answer."""
    path, body, headers, answer = SURFACES[surface]
    upstream.will(Answer(headers=answer.headers, body=answer.body, pieces=answer.pieces, delay_s=0.3))
    sent = {**headers, **keyed()}
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: call(fronted.url, path, body, sent), range(50)))

    assert {each.status for each in answers} == {200}
    assert len({each.body for each in answers}) == 1
    assert len(upstream.seen) == 1
    assert sum("idempotency-replayed" in each.headers for each in answers) == 49


def test_users_have_keys_of_their_own(fronted, upstream):
    """The same key of another user, or of another application, is another key."""
    path, body, headers, answer = SURFACES["native"]
    upstream.will(answer)
    sent = {**headers, **keyed()}
    for other in ({}, {"X-User-Id": "another"}, {"client_id": "another"}):
        assert "idempotency-replayed" not in call(fronted.url, path, body, {**sent, **other}).headers
    assert len(upstream.seen) == 3


@pytest.mark.parametrize("surface", ["openai", "openai stream", "anthropic stream", "native"])
def test_an_error_frees_the_key(fronted, upstream, surface):
    """The repeat runs; its success is kept then."""
    path, body, headers, answer = SURFACES[surface]
    upstream.will(Answer.json({"error": {"message": "no"}}, 500), answer)
    sent = {**headers, **keyed()}
    first, *others = (call(fronted.url, path, body, sent) for _ in range(3))

    assert first.status >= 500
    assert [each.status for each in others] == [200, 200]
    assert len(upstream.seen) == 2


def test_those_who_wait_take_the_turn_of_one_that_failed(fronted, upstream):
    """One after the other runs until one is answered; the rest get that."""
    path, body, _, answer = SURFACES["openai"]
    failure = Answer.json({"error": {"message": "no"}}, 500)
    upstream.will(failure, failure, answer)
    sent = keyed()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: call(fronted.url, path, body, sent), range(12)))

    assert sorted(each.status for each in answers) == [200] * 10 + [503] * 2
    assert len(upstream.seen) == 3


@pytest.mark.parametrize(
    "surface", ["openai stream", "responses stream", "anthropic stream", "native stream"]
)
def test_a_stream_that_broke_off_is_not_run_again(fronted, upstream, surface):
    """It was charged: the repeat says that nobody knows the end, and must not be retried."""
    path, body, headers, _ = SURFACES[surface]
    upstream.will(Answer.events(piece("H"), piece("i"), cut=True))
    sent = {**headers, **keyed()}
    call(fronted.url, path, body, sent)
    repeat = call(fronted.url, path, body, sent)

    assert (repeat.status, repeat.headers["x-should-retry"]) == (409, "false")
    assert "may have been charged" in repeat.body.decode()
    assert len(upstream.seen) == 1


@each_surface
def test_a_caller_who_left_finds_the_answer(fronted, upstream, surface):
    """Its client's patience ended before the provider had answered: the call is finished without it, once."""
    path, body, headers, answer = SURFACES[surface]
    upstream.will(Answer(headers=answer.headers, body=answer.body, pieces=answer.pieces, delay_s=0.5))
    sent = {**headers, **keyed()}
    with pytest.raises(TimeoutError):
        _call_briefly(fronted.url, path, body, sent, 0.2)
    repeat = call(fronted.url, path, body, sent)

    assert repeat.status == 200, repeat.body
    assert repeat.headers["idempotency-replayed"] == "true"
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("surface", [name for name in SURFACES if "stream" in name])
def test_a_reader_who_left_in_the_middle_finds_the_whole_stream(fronted, upstream, surface):
    """What was sent into the void is kept all the same."""
    path, body, headers, _ = SURFACES[surface]
    events = (piece("H"), *(piece("i") for _ in range(4)), piece(finish_reason="stop"), USAGE)
    upstream.will(Answer.events(*events, b"data: [DONE]\n\n", pause_s=0.1))
    sent = {**headers, **keyed()}
    assert _call_briefly(fronted.url, path, body, sent, 5.0).startswith((b"data:", b"event:", b":"))
    repeat = call(fronted.url, path, body, sent)

    assert (repeat.status, repeat.headers.get("idempotency-replayed")) == (200, "true")
    if surface == "openai stream":
        assert repeat.events[-1] == "[DONE]"
        texts = [c["delta"].get("content") or "" for e in repeat.events[:-1] for c in e["choices"]]
        assert "".join(texts) == "Hiiii"
    assert (len(upstream.seen), upstream.hung_up_at) == (1, [])


def test_without_a_key_the_call_ends_with_its_caller(fronted, upstream):
    """The provider is told at once: nothing can be asked for again."""
    path, body, headers, _ = SURFACES["openai stream"]
    upstream.will(Answer.events(*(piece("i") for _ in range(40)), pause_s=0.1))
    _call_briefly(fronted.url, path, body, headers, 5.0)
    deadline = time.monotonic() + 10
    while not upstream.hung_up_at:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _call_briefly(url, path, body, headers, timeout_s):
    """Call, read the first of the answer within a time, and leave."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
    try:
        data = json.dumps(body)
        connection.request("POST", path, data, {**headers, "content-type": "application/json"})
        response = connection.getresponse()
        try:
            return response.read1(100)
        finally:
            response.close()
    finally:
        connection.close()


def test_an_answer_too_large_to_keep_is_said_so(fronted, upstream):
    """It is sent whole the first time; the repeat is told, and nothing is charged."""
    path, body, _, _ = SURFACES["openai"]
    large = json.loads(json.dumps(COMPLETION))
    large["choices"][0]["message"]["content"] = "x" * 1_100_000
    upstream.will(Answer.json(large))
    sent = keyed()
    first, repeat = call(fronted.url, path, body, sent), call(fronted.url, path, body, sent)

    assert (first.status, len(first.body) > 1_100_000) == (200, True)
    assert repeat.status == 409
    assert repeat.json["error"]["code"] == "idempotency_answer_too_large"
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("key", "status"), [("", 400), ("a b", 400), ("k" * 256, 400), ("é", 400), ("k" * 255, 200)]
)
def test_a_key_has_a_form(fronted, upstream, key, status):
    """1 to 255 visible ASCII characters."""
    path, body, _, answer = SURFACES["openai"]
    upstream.will(answer)
    answered = call(
        fronted.url, path, body, {"Idempotency-Key": key.encode("latin-1"), "X-User-Id": uuid.uuid4().hex}
    )

    assert answered.status == status
    if status == 400:
        assert answered.json["error"]["code"] == "idempotency_key_invalid"
        assert upstream.seen == []


def test_what_costs_nothing_needs_no_key(fronted):
    """The header is ignored there, whatever it holds."""
    assert call(fronted.url, "/v1/models", headers={"Idempotency-Key": "a b"}).status == 200


def test_official_clients_send_the_key_and_read_the_repeat(fronted, upstream):
    """OpenAI's and Anthropic's own, whole and streamed."""
    with (
        openai.OpenAI(base_url=f"{fronted.url}/v1", api_key="any", max_retries=0) as ours,
        anthropic.Anthropic(base_url=fronted.url, api_key="any", max_retries=0) as theirs,
    ):
        for answer, stream in ((WHOLE, False), (EVENTS, True)):
            upstream.will(answer)
            extra = keyed()
            texts = [_openai_text(ours, extra, stream=stream) for _ in range(2)]
            assert texts == ["Hi", "Hi"]
            extra = keyed()
            texts = [_anthropic_text(theirs, extra, stream=stream) for _ in range(2)]
            assert texts == ["Hi", "Hi"]
            assert len(upstream.seen) == 2


def _openai_text(client, extra, *, stream):
    answer = client.chat.completions.create(
        model="second/m", messages=HELLO, stream=stream, extra_headers=extra
    )
    if not stream:
        return answer.choices[0].message.content
    return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)


def _anthropic_text(client, extra, *, stream):
    asked = {"model": "second/m", "max_tokens": 9, "messages": HELLO, "extra_headers": extra}
    if not stream:
        return client.messages.create(**asked).content[0].text
    with client.messages.stream(**asked) as events:
        return events.get_final_text()


@pytest.fixture
def environment(upstream):
    return {"OPENAI_API_KEY": "sk-fake-openai-0123456789", "LLM_GATE_OPENAI_BASE_URL": f"{upstream.url}/v1"}


BODY = {"model": "openai/gpt-4o-mini", "messages": HELLO}


def test_processes_wait_for_each_other(environment, upstream):
    """Duplicates that land in different workers make one call too."""
    upstream.will(Answer(headers=WHOLE.headers, body=WHOLE.body, delay_s=0.5))
    sent = keyed()
    with (
        running_gateway(environment, arguments=("--workers", "2")) as gateway,
        ThreadPoolExecutor(24) as pool,
    ):
        answers = list(pool.map(lambda _: call(gateway.url, OPENAI, BODY, sent), range(24)))

    assert {each.status for each in answers} == {200}
    assert len(upstream.seen) == 1


def test_a_killed_process_leaves_the_end_unknown(environment, upstream, tmp_path):
    """Nothing is charged twice unnoticed; what was answered before the kill is still there."""
    data = ("--data-dir", str(tmp_path))
    kept, broken = keyed(), keyed()
    with running_gateway(environment, arguments=data) as gateway:
        upstream.will(WHOLE)
        first = call(gateway.url, OPENAI, BODY, kept)
        upstream.will(Answer(headers=WHOLE.headers, body=WHOLE.body, delay_s=2.0))
        caller = threading.Thread(target=_call_into_the_kill, args=(gateway.url, broken), daemon=True)
        caller.start()
        while not upstream.seen:
            time.sleep(0.02)
        gateway.process.kill()
        caller.join(10)
    with running_gateway(environment, arguments=data) as gateway:
        replayed = call(gateway.url, OPENAI, BODY, kept)
        repeat = call(gateway.url, OPENAI, BODY, broken)

    assert (replayed.status, replayed.body) == (200, first.body)
    assert repeat.status == 409
    assert repeat.json["error"]["code"] == "idempotency_outcome_unknown"
    assert len(upstream.seen) == 1


def test_a_stopped_gateway_finishes_first(environment, upstream, tmp_path):
    """A call whose caller has left is under way like any other: the next gateway has its answer."""
    data = ("--data-dir", str(tmp_path))
    sent = keyed()
    with running_gateway(environment, arguments=data) as gateway:
        upstream.will(Answer(headers=WHOLE.headers, body=WHOLE.body, delay_s=1.0))
        with pytest.raises(TimeoutError):
            _call_briefly(gateway.url, OPENAI, BODY, sent, 0.3)
    with running_gateway(environment, arguments=data) as gateway:
        repeat = call(gateway.url, OPENAI, BODY, sent)

    assert (repeat.status, repeat.headers.get("idempotency-replayed")) == (200, "true")
    assert len(upstream.seen) == 1


def _call_into_the_kill(url, headers):
    with pytest.raises(ConnectionError):
        call(url, OPENAI, BODY, headers)
