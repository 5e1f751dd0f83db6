"""A streamed structured answer is checked as it goes: a misfit ends with a typed error, never with the proper end."""

import json

import pytest

from support.gateway import NATIVE_HEADERS, running_gateway
from support.upstream import Answer, fake_upstream
from support.web import call

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "inhabitants": {"type": "integer"}},
    "required": ["city", "inhabitants"],
}
GOOD = '{"city": "Oslo", "inhabitants": 700000}'
BAD = '{"city": "Oslo"}'
CODE = "structured_output_invalid"
HELLO = [{"role": "user", "content": "Which city?"}]
OPENAI, ANTHROPIC = "second/m", "claude/some-model"
SURFACES = ["openai", "anthropic", "native", "responses"]


@pytest.fixture(scope="module")
def upstream():
    """Run a scripted provider of this module's own."""
    with fake_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream):
    """Run a gateway that reaches it in two dialects."""
    environment = {"ANTHROPIC_API_KEY": "sk-ant-fake-0123456789", "LLM_GATE_ANTHROPIC_BASE_URL": upstream.url}
    toml = f"""
        [providers.second]
        dialect = "openai"
        base_url = "{upstream.url}/v1"
        auth = {{ kind = "none" }}
        [[providers.second.models]]
        name = "m"
        prices = [
            {{ unit = "input_tokens", per = 1_000_000, usd = "0.15" }},
            {{ unit = "output_tokens", per = 1_000_000, usd = "0.60" }},
        ]
    """
    with running_gateway(environment, toml=toml) as running:
        yield running


def halves(text):
    return text[: len(text) // 2], text[len(text) // 2 :]


def openai_stream(text, reason="stop", field="content", choices=1):
    def chunk(**fields):
        return b"data: " + json.dumps({"id": "c", "model": "m", "odd_field": 7, **fields}).encode() + b"\n\n"

    pieces = [
        chunk(choices=[{"index": index, "delta": {field: half}, "finish_reason": None}])
        for index in range(choices)
        for half in halves(text)
    ]
    ends = [
        chunk(choices=[{"index": index, "delta": {}, "finish_reason": reason}]) for index in range(choices)
    ]
    usage = {"prompt_tokens": 1000, "completion_tokens": 2000, "total_tokens": 3000}
    return Answer.events(*pieces, *ends, chunk(choices=[], usage=usage), b"data: [DONE]\n\n")


def anthropic_stream(text, reason="end_turn"):
    def event(kind, **fields):
        return f"event: {kind}\ndata: {json.dumps({'type': kind, 'odd_field': 7, **fields})}\n\n".encode()

    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    return Answer.events(
        event("message_start", message={**message, "usage": {"input_tokens": 1000, "output_tokens": 1}}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": half})
            for half in halves(text)
        ),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 2000}),
        event("message_stop"),
    )


def streamed(model, text):
    return openai_stream(text) if model == OPENAI else anthropic_stream(text)


def ask(gateway, surface, model, schema=SCHEMA, **more):
    """Ask for a structured stream on one of the surfaces."""
    form = {"type": "json_schema", "schema": schema}
    if surface == "native":
        name, _, model_name = model.partition("/")
        body = {
            "provider": {"name": name, "model": {"name": model_name}},
            "prompt": {"messages": HELLO, "responseFormat": form},
        }
        return call(gateway.url, "/llm-gate/v1/chat/stream", body | more, NATIVE_HEADERS)
    shared = {"model": model, "stream": True, **more}
    if surface == "anthropic":
        body = {"max_tokens": 50, "messages": HELLO, "output_config": {"format": form}}
        return call(gateway.url, "/v1/messages", body | shared)
    if surface == "responses":
        text = {"format": {"name": "answer", **form}}
        return call(gateway.url, "/v1/responses", {"input": "Which city?", "text": text, **shared})
    named = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return call(gateway.url, "/v1/chat/completions", {"messages": HELLO, "response_format": named, **shared})


def has_ended_well(surface, answer):
    last = answer.events[-1]
    return {
        "openai": lambda: last == "[DONE]",
        "anthropic": lambda: last["type"] == "message_stop",
        "native": lambda: last.get("finishReason") == "stop",
        "responses": lambda: last["type"] == "response.completed",
    }[surface]()


def error_code(surface, answer):
    last = answer.events[-1]
    return {
        "openai": lambda: last["error"]["code"],
        "anthropic": lambda: CODE if last["type"] == "error" and "JSON Schema" in str(last) else last,
        "native": lambda: last["errorDetails"][0]["details"],
        "responses": lambda: CODE if "JSON Schema" in str(answer.events[-1]) else last,
    }[surface]()


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("surface", SURFACES)
def test_a_fitting_stream_ends_as_ever(gateway, upstream, surface, model):
    """What fits passes with its proper end, on every surface and from either dialect."""
    upstream.will(streamed(model, GOOD))
    answer = ask(gateway, surface, model)

    assert answer.status == 200
    assert has_ended_well(surface, answer)
    assert b"error" not in answer.body.replace(b'"error":null', b"")


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("text", [BAD, "no JSON at all"])
def test_a_misfit_ends_with_the_typed_error(gateway, upstream, surface, model, text):
    """The text has gone out; the end has not, and the error stands in its place. Nothing is asked again."""
    upstream.will(streamed(model, text))
    answer = ask(gateway, surface, model)

    assert answer.status == 200
    assert error_code(surface, answer) == CODE
    for sign_of_an_end in (b"[DONE]", b"message_stop", b"message_delta", b'"stop"', b"response.completed"):
        assert sign_of_an_end not in answer.body
    assert len(upstream.seen) == 1


def test_what_passes_keeps_the_fields_of_the_vendor(gateway, upstream):
    """Within one dialect the events are the vendor's own, also before a misfit's end."""
    upstream.will(openai_stream(BAD))
    first, second, error = ask(gateway, "openai", OPENAI).events
    assert first["odd_field"] == second["odd_field"] == 7
    assert first["choices"][0]["delta"]["content"] + second["choices"][0]["delta"]["content"] == BAD
    assert "inhabitants" in error["error"]["message"]

    upstream.will(anthropic_stream(BAD))
    *passed, _ = ask(gateway, "anthropic", ANTHROPIC).events
    assert [event["type"] for event in passed][-1] == "content_block_stop"
    assert {event["odd_field"] for event in passed} == {7}


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("surface", ["openai", "anthropic", "native"])
def test_the_end_does_not_hang_on_how_the_bytes_were_cut(gateway, upstream, surface, model):
    """The same answer in one piece, or in pieces of a few bytes, ends alike."""
    whole = b"".join(streamed(model, BAD).pieces)
    ends = []
    for size in (len(whole), 50):
        upstream.will(Answer.events(*(whole[at : at + size] for at in range(0, len(whole), size))))
        answer = ask(gateway, surface, model)
        ends.append((answer.status, len(answer.events), error_code(surface, answer)))
    assert ends[0] == ends[1]
    assert ends[0][0] == 200


def test_a_misfit_is_counted(gateway, upstream):
    """Usage and cost of an answer that does not fit are in the log, since they were spent."""
    upstream.will(openai_stream(BAD))
    answer = ask(gateway, "openai", OPENAI)
    line = json.loads(gateway.logged(answer.headers["x-request-id"]))

    assert line["stream"] == "cut"
    assert line["input_tokens"] == 1000
    assert line["output_tokens"] == 2000
    assert str(line["cost_usd"]) == "0.00135"


@pytest.mark.parametrize(
    "answer",
    [
        openai_stream(BAD, reason="length"),
        openai_stream("No.", field="refusal"),
        openai_stream(BAD, reason="content_filter"),
    ],
)
def test_what_says_itself_that_it_does_not_fit_passes(gateway, upstream, answer):
    """A cut, filtered or refused answer ends as it is: its finish reason or refusal tells."""
    upstream.will(answer)
    assert ask(gateway, "openai", OPENAI).events[-1] == "[DONE]"


def test_every_choice_is_checked(gateway, upstream):
    """Of several choices each must fit."""
    upstream.will(openai_stream(GOOD, choices=2))
    assert ask(gateway, "openai", OPENAI, n=2).events[-1] == "[DONE]"

    second_is_bad = openai_stream(GOOD, choices=2)
    pieces = [
        piece.replace(b"city", b"town") if b'"index": 1' in piece else piece for piece in second_is_bad.pieces
    ]
    upstream.will(Answer.events(*pieces))
    assert error_code("openai", ask(gateway, "openai", OPENAI, n=2)) == CODE


def test_a_choice_without_a_finish_reason_is_checked_at_the_end(gateway, upstream):
    """A vendor that leaves the reason out does not get around the check."""
    upstream.will(Answer.events(openai_stream(BAD).pieces[0], b"data: [DONE]\n\n"))
    for surface in ("openai", "native"):
        assert error_code(surface, ask(gateway, surface, OPENAI)) == CODE


def test_an_end_that_brings_the_usage_is_checked(gateway, upstream):
    """Vendors that send finish reason and usage in one event do not get around the check, and are counted."""
    texts = openai_stream(BAD).pieces[:2]
    choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    last = json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": usage}).encode()
    upstream.will(Answer.events(*texts, b"data: " + last + b"\n\n", b"data: [DONE]\n\n"))
    answer = ask(gateway, "openai", OPENAI, stream_options={"include_usage": True})

    assert error_code("openai", answer) == CODE
    assert b'"stop"' not in answer.body
    assert json.loads(gateway.logged(answer.headers["x-request-id"]))["output_tokens"] == 5


def test_a_stream_without_schema_is_not_touched(gateway, upstream):
    """Only a request that names a schema is checked."""
    upstream.will(openai_stream(BAD))
    body = {"model": OPENAI, "stream": True, "messages": HELLO, "response_format": {"type": "json_object"}}
    assert call(gateway.url, "/v1/chat/completions", body).events[-1] == "[DONE]"


@pytest.mark.parametrize("surface", SURFACES)
def test_an_unusable_schema_is_refused_before_anything_is_sent(gateway, upstream, surface):
    """A schema that is none is a 400, and the provider hears nothing."""
    upstream.will(openai_stream(GOOD))
    answer = ask(gateway, surface, OPENAI, schema={"type": "nonsense"})

    assert answer.status == 400
    assert upstream.seen == []
