"""The OpenAI dialect against recorded traffic of every vendor that speaks it.

What a test expects is computed here from the recorded JSON, without the code under test.
"""

import json
import random

import pytest
from msgspec import structs

from llm_gate.dialects import openai
from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.dialects.openai_embeddings import decode_embedding_request, encode_embedding_result
from llm_gate.dialects.openai_errors import decode_error
from llm_gate.dialects.openai_results import decode_result, encode_result
from llm_gate.dialects.openai_stream import ChunkEncoder, OpenAIChatStream
from llm_gate.domain.catalog import ProviderSpec
from llm_gate.domain.errors import (
    BadProviderResponse,
    ContentFiltered,
    InvalidRequest,
    ProviderAuthFailed,
    ProviderModelGone,
    ProviderRateLimited,
    ProviderRejected,
)
from llm_gate.domain.events import (
    Ended,
    Finished,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    Verbatim,
    VerbatimUsage,
)
from llm_gate.domain.messages import MediaPart, TextPart, ToolCallPart
from llm_gate.domain.provider import HttpReply
from support.recorded import REASON as NOT_HERE
from support.recorded import recorded_root, recordings
from support.targets import make_target

VENDORS = ("openai", "azure_openai", "mistral", "groq", "openrouter", "huggingface", "xai")
OPERATIONS = ("chat", "chat-stream", "chat-tools", "json-schema", "embeddings", "errors")
LENIENT = ProviderSpec(dialect="openai", finish_is_end=True)
FINISH = {"function_call": "tool_calls", "eos": "stop", None: "stop"}

# Interactions that are no traffic of this dialect's chat and embedding operations.
NOT_FITTING = {
    "openai/json-schema/responses-decimal-strict.json": "another API: /v1/responses",
    "openai/errors/400-context-length.json": "another API: /v1/responses",
    "openai/errors/400-responses-model.json": "another API: /v1/responses",
    "openai/errors/401-responses-invalid-key.json": "another API: /v1/responses",
    "openai/errors/401-stream-wrong-key.json": "another API: /v1/completions",
    "openai/errors/404-fine-tune-job.json": "another API: /v1/fine_tuning",
    "openai/errors/404-model-delete.json": "another API: /v1/models",
    "openai/errors/500-vector-store.json": "another API: /v1/vector_stores",
    "huggingface/errors/400-missing-input.json": "another API: the older inference API",
    "huggingface/errors/404-plain-text.json": "another API: the older inference API",
    "xai/errors/400-key.json": "another API: /v1/responses",
}
ERRORS = {
    "openai/errors/400-image-url.json": (ProviderRejected, None),
    "openai/errors/400-unknown-parameter.json": (ProviderRejected, None),
    "openai/errors/400-unsupported-parameter-then-retry.json": (ProviderRejected, None),
    "openai/errors/401-chat-invalid-key.json": (ProviderAuthFailed, None),
    "openai/errors/404-chat-model.json": (ProviderModelGone, None),
    "openai/errors/404-embedding-model.json": (ProviderModelGone, None),
    "azure_openai/errors/401-embeddings.json": (ProviderAuthFailed, None),
    "azure_openai/errors/401-key.json": (ProviderAuthFailed, None),
    "azure_openai/errors/404-deployment.json": (ProviderModelGone, None),
    "azure_openai/errors/429-retry-after-ms.json": (ProviderRateLimited, 1.0),
    "azure_openai/chat/prompt-filter-error-in-200.json": (ContentFiltered, None),
    "mistral/errors/401-key.json": (ProviderAuthFailed, None),
    "groq/errors/200-stream-error-after-text.json": (ProviderRejected, None),
    "groq/errors/200-stream-error-event.json": (ProviderRejected, None),
    "groq/errors/400-tool-use-failed-then-retry.json": (ProviderRejected, None),
    "groq/errors/404-model.json": (ProviderModelGone, None),
    "openrouter/errors/200-stream-error.json": (ProviderRejected, None),
    "openrouter/errors/400-context-length.json": (ProviderRejected, None),
    "openrouter/errors/401-key.json": (ProviderAuthFailed, None),
    "openrouter/errors/429-free-model.json": (ProviderRateLimited, 26.0),
    "openrouter/errors/429-upstream.json": (ProviderRateLimited, None),
}
# Requests that pass to the same dialect only, and the field that another dialect has to refuse.
BOUND = {
    "openai/chat/web-search-citations.json": "web_search_options",
    "openai/errors/400-unknown-parameter.json": "web_search_options",
    "openai/chat-tools/custom-tool.json": "tools[0].type",
    "openrouter/chat/annotations.json": "tools[0].type",
    "openrouter/chat/web-search-cost.json": "tools[0].type",
    "openrouter/chat-stream/web-search.json": "tools[0].type",
}


def sort(found):
    """Sort all interactions by what they are: unary, stream, embedding, error; the rest must be listed."""
    kinds = {"unary": [], "stream": [], "embedding": [], "error": [], "unfit": []}
    for recording in found:
        for number, one in enumerate(recording.interactions):
            path = one.request["url"].partition("?")[0].partition("#")[0]
            chat = path.endswith("/chat/completions")
            is_error = one.status >= 300 or (chat and _has_error(one.body))
            if not chat and not path.endswith("/embeddings"):
                kind = "unfit"
            elif is_error:
                kind = "error"
            elif not chat:
                kind = "embedding"
            else:
                kind = "unary" if one.json is not None else "stream"
            kinds[kind].append((recording.id, number, one))
    return kinds


def _has_error(body):
    events = [json.loads(line[5:]) for line in body.splitlines() if line.startswith(b"data: {")]
    events += [json.loads(body)] if body[:1] == b"{" else []
    return any(event.get("error") for event in events)


RECORDED = sort([one for vendor in VENDORS for one in recordings(vendor, *OPERATIONS)])


def over(*kinds, path=""):
    if recorded_root() is None:
        return pytest.mark.skip(reason=NOT_HERE)
    items = [item for kind in kinds for item in RECORDED[kind] if path in item[2].request["url"]]
    return pytest.mark.parametrize(
        ("name", "one"), [(name, one) for name, _, one in items], ids=[f"{n}-{i}" for n, i, _ in items]
    )


def price(_usage):
    return None


# What the recorded JSON says


def text_of(content):
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if part["type"] == "text")
    return content or ""


def calls_of(message):
    return [
        (call["id"], call["function"]["name"], call["function"]["arguments"] or "{}")
        for call in message.get("tool_calls") or ()
        if "function" in call
    ]


def choices_of(body):
    return [
        (
            choice["index"],
            text_of(choice.get("message", {}).get("content")),
            calls_of(choice.get("message", {})),
            FINISH.get(choice.get("finish_reason"), choice.get("finish_reason")),
        )
        for choice in body["choices"]
    ]


def counts_of(usage):
    if not usage:
        return None
    prompt, completion = (
        usage.get("prompt_tokens_details") or {},
        usage.get("completion_tokens_details") or {},
    )
    return (
        usage["prompt_tokens"],
        prompt.get("cached_tokens") or 0,
        prompt.get("cache_write_tokens") or 0,
        prompt.get("audio_tokens") or 0,
        usage.get("completion_tokens", 0),
        completion.get("reasoning_tokens") or 0,
        completion.get("audio_tokens") or 0,
    )


def counts(usage):
    if usage is None:
        return None
    return (
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.audio_input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.audio_output_tokens,
    )


def streamed(body):
    """Add up the events of a recorded stream: choices as in a complete answer, and the last usage."""
    choices, usage = {}, None
    for line in body.decode().splitlines():
        if not line.startswith("data: {"):
            continue
        event = json.loads(line[6:])
        aside = [value.get("usage") for key, value in event.items() if key.startswith("x_") and value]
        usage = event.get("usage") or next(filter(None, aside), None) or usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta", {})
            said = choices.setdefault(choice["index"], {"text": "", "calls": {}, "finish": None})
            said["text"] += text_of(delta.get("content"))
            said["finish"] = said["finish"] or choice.get("finish_reason")
            for call in delta.get("tool_calls") or ():
                known = said["calls"].setdefault(
                    call.get("index", call.get("id")), [call.get("id"), call["function"].get("name"), ""]
                )
                known[2] += call["function"].get("arguments") or ""
    summed = [
        (index, said["text"], [tuple(call) for call in said["calls"].values()], said["finish"])
        for index, said in sorted(choices.items())
    ]
    return summed, counts_of(usage)


def from_events(events):
    choices, usage = {}, None
    assert events[-1] == Ended()
    assert sum(isinstance(event, Ended) for event in events) == 1
    for event in events:
        said = choices.setdefault(getattr(event, "index", None), {"text": "", "calls": {}, "finish": []})
        if isinstance(event, TextDelta) and not event.refusal:
            said["text"] += event.text
        elif isinstance(event, ToolCallDelta):
            known = said["calls"].setdefault(event.call, [event.id, event.name, ""])
            known[2] += event.arguments
        elif isinstance(event, Finished):
            said["finish"].append(event.reason)
        elif isinstance(event, UsageReported):
            usage = event.usage
    del choices[None]
    summed = [
        (index, said["text"], [tuple(call) for call in said["calls"].values()], *said["finish"])
        for index, said in sorted(choices.items())
    ]
    return summed, counts(usage)


def read(portions, *, verbatim=False, spec=None):
    reader = OpenAIChatStream(make_target(spec=spec), verbatim=verbatim)
    events = [event for portion in portions for event in reader.feed(portion)]
    return events + list(reader.close())


def write(events, *, include_usage):
    encoder = ChunkEncoder(fallback_id="f", model="m", created_s=1, include_usage=include_usage, price=price)
    return encoder.encode(events)


def pieces(data, rng):
    places = sorted(rng.randrange(len(data)) for _ in range(40))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


# The tests


@pytest.mark.skipif(recorded_root() is None, reason=NOT_HERE)
def test_every_recording_is_used_or_listed():
    """Each recorded file is either tested here or listed with the reason why it does not fit."""
    unfit = {name for name, _, _ in RECORDED["unfit"]}
    assert unfit == set(NOT_FITTING)
    assert {name for name, _, _ in RECORDED["error"]} == set(ERRORS)
    assert {kind: len(found) > 5 for kind, found in RECORDED.items()} == dict.fromkeys(RECORDED, True)


@over("unary")
def test_answers_passed_on(name, one):
    """An answer for a caller of the dialect holds what was recorded, with our cost beside the counts."""
    result = decode_result(HttpReply(status=200, headers=one.headers, body=one.body), make_target())
    written = json.loads(encode_result(result, fallback_id="f", model="m", created_s=1, cost=None))
    assert choices_of(written) == choices_of(one.json)
    assert counts_of(written.get("usage")) == counts_of(one.json.get("usage"))
    apart = {"usage", "choices"}
    assert {k: v for k, v in written.items() if k not in apart} == {
        k: v for k, v in one.json.items() if k not in apart
    }
    if all(isinstance(choice.get("message", {}).get("content"), str) for choice in one.json["choices"]):
        assert written["choices"] == one.json["choices"]
    if result.usage is not None:
        vendor = dict(one.json["usage"])
        kept = {"vendor_cost": vendor.pop("cost")} if "cost" in vendor else {}
        assert written["usage"] == {**vendor, **kept, "cost": None}


@over("unary")
def test_answers_translated(name, one):
    """The neutral answer, and what is written from it, hold the recorded text, calls, reasons and counts."""
    result = decode_result(HttpReply(status=200, headers=one.headers, body=one.body), make_target())
    result = structs.replace(result, wire=None)
    assert counts(result.usage) == counts_of(one.json.get("usage"))
    assert [
        (
            choice.index,
            "".join(part.text for part in choice.parts if isinstance(part, TextPart) and not part.refusal),
            [(part.id, part.name, part.arguments) for part in choice.parts if isinstance(part, ToolCallPart)],
            choice.finish_reason,
        )
        for choice in result.choices
    ] == choices_of(one.json)
    written = json.loads(encode_result(result, fallback_id="f", model="m", created_s=1, cost=None))
    assert choices_of(written) == choices_of(one.json)
    assert counts_of(written.get("usage")) == counts_of(one.json.get("usage"))
    assert (written["id"], written["model"]) == (one.json.get("id") or "f", one.json.get("model") or "m")


@over("stream")
def test_streams_translated(name, one):
    """The events add up to what was recorded, whole, in random portions and byte by byte; so does what is written."""
    expected = streamed(one.body)
    rng = random.Random(name)  # noqa: S311
    whole = read([one.body])
    assert from_events(whole) == expected
    for _ in range(3):
        assert read(pieces(one.body, rng)) == whole
    if len(one.body) < 20_000:
        assert read([bytes([byte]) for byte in one.body]) == whole
    assert streamed(write(whole, include_usage=True)) == expected
    assert streamed(write(whole, include_usage=False)) == (expected[0], None)


@over("stream")
def test_streams_passed_on(name, one):
    """A caller of the dialect gets every recorded event, the usage only where asked for, in any portions."""
    expected = streamed(one.body)
    rng = random.Random(name)  # noqa: S311
    whole = read([one.body], verbatim=True)
    assert {type(event) for event in whole} <= {Verbatim, VerbatimUsage, Ended}
    written = write(whole, include_usage=True)
    assert streamed(written) == expected
    assert streamed(write(whole, include_usage=False))[0] == expected[0]
    first = [one.body[place : place + 1] for place in range(min(20_000, len(one.body)))]
    for portions in (pieces(one.body, rng), pieces(one.body, rng), [*first, one.body[len(first) :]]):
        assert write(read(portions, verbatim=True), include_usage=True) == written
    assert written.endswith(b"data: [DONE]\n\n")


@over("stream")
def test_cut_streams_are_errors(name, one):
    """Wherever a stream is cut before its terminal event it is refused."""
    end = one.body.rindex(b"[DONE]") + len(b"[DONE")
    rng = random.Random(name)  # noqa: S311
    places = (
        range(end + 1)
        if end < 3000
        else {*(rng.randrange(end) for _ in range(60)), *range(end - 60, end + 1)}
    )
    for place in places:
        for verbatim in (False, True):
            with pytest.raises(BadProviderResponse):
                read([one.body[:place]], verbatim=verbatim)


@over("stream")
def test_streams_of_lenient_vendors(name, one):
    """Without the end marker the same stream is complete only for a vendor known to send none."""
    body = one.body.partition(b"data: [DONE]")[0]
    assert from_events(read([body], spec=LENIENT)) == streamed(one.body)
    with pytest.raises(BadProviderResponse):
        read([body])
    first = body.index(b'"finish_reason"')
    with pytest.raises(BadProviderResponse):
        read([body[:first]], spec=LENIENT)


@over("embedding")
def test_vectors(name, one):
    """Recorded vectors and counts are read, passed on and written as they were."""
    request = decode_embedding_request(json.dumps(one.request["body"]).encode())
    target = make_target(model=one.request["body"]["model"])
    assert json.loads(openai.provider.embedding.encode(request, target).request.body) == one.request["body"]
    reply = HttpReply(status=200, headers=one.headers, body=one.body)
    result = openai.provider.embedding.decode(reply, request, target)
    usage = one.json["usage"]
    assert (result.usage.input_tokens, result.usage.output_tokens) == (usage["prompt_tokens"], 0)
    assert len(result.vectors) == len(one.json["data"])
    written = json.loads(encode_embedding_result(result, request, model="m", cost=None))
    assert [item["embedding"] for item in written["data"]] == [item["embedding"] for item in one.json["data"]]
    anew = structs.replace(result, wire=None)
    written = json.loads(encode_embedding_result(anew, request, model="m", cost=None))
    assert [item["embedding"] for item in written["data"]] == [item["embedding"] for item in one.json["data"]]
    assert written["usage"]["prompt_tokens"] == usage["prompt_tokens"]


@over("error")
def test_errors(name, one):
    """Recorded errors, inside a 200 too, become the class that says what can be done."""
    expected, wait_s = ERRORS[name]
    if one.status >= 300:
        found = decode_error(HttpReply(status=one.status, headers=one.headers, body=one.body), make_target())
        assert (type(found), found.status, found.retry_after_s) == (expected, one.status, wait_s)
        return
    for verbatim in (False, True):
        with pytest.raises(expected) as caught:
            _read_success(one, verbatim=verbatim)
        assert type(caught.value) is expected


def _read_success(one, *, verbatim):
    if one.json is not None:
        return decode_result(HttpReply(status=200, headers=one.headers, body=one.body), make_target())
    return read([one.body], verbatim=verbatim)


# Requests


def spoken(message):
    role = {"developer": "system"}.get(message["role"], message["role"])
    return role, text_of(message.get("content")), calls_of(message), message.get("tool_call_id")


def heard(message):
    calls = [(part.id, part.name, part.arguments) for part in message.parts if isinstance(part, ToolCallPart)]
    if message.role == "tool":
        (result,) = message.parts
        return "tool", "".join(piece.text for piece in result.content), calls, result.tool_call_id
    return message.role, message.text, calls, None


@over("unary", "stream", "error", path="/chat/completions")
def test_requests_passed_on(name, one):
    """A recorded request passes unchanged to the same dialect, but for the stream options."""
    body = one.request["body"]
    request = decode_chat_request(json.dumps(body).encode())
    target = make_target(model=body["model"])
    encoded = openai.provider.chat.encode(request, target)
    expected = {key: value for key, value in body.items() if key != "stream_options"}
    if body.get("stream"):
        expected["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    assert json.loads(encoded.request.body) == expected
    assert encoded.dropped == ()


@over("unary", "stream", "error", path="/chat/completions")
def test_requests_translated(name, one):
    """The neutral form of a recorded request says the same, and is written back as the same request."""
    body = one.request["body"]
    request = structs.replace(decode_chat_request(json.dumps(body).encode()), wire=None)
    target = make_target(model=body["model"])
    if name in BOUND:
        with pytest.raises(InvalidRequest) as caught:
            openai.provider.chat.encode(request, target)
        assert caught.value.param == BOUND[name]
        return
    messages = request.conversation.messages
    assert [heard(message) for message in messages] == [spoken(message) for message in body["messages"]]
    media = sum(isinstance(part, MediaPart) for message in messages for part in message.parts)
    listed = [
        part
        for message in body["messages"]
        if isinstance(message.get("content"), list)
        for part in message["content"]
    ]
    assert media == sum(part["type"] not in {"text", "thinking"} for part in listed)
    encoded = openai.provider.chat.encode(request, target)
    written = json.loads(encoded.request.body)
    assert [spoken(message) for message in written["messages"]] == [
        spoken(message) for message in body["messages"]
    ]
    for key in (
        "tools",
        "tool_choice",
        "response_format",
        "temperature",
        "n",
        "stop",
        "user",
        "reasoning_effort",
    ):
        given = None if body.get(key) in (None, []) else body[key]
        unneeded = (
            key == "tool_choice" and given == "auto" and not body.get("tools")
        ) or key in encoded.dropped
        same = [given] if isinstance(given, str) and key == "stop" else given
        same = "required" if same == "any" else same
        assert written.get(key) == (None if unneeded else same)
