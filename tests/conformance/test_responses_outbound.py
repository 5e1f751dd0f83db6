"""A vendor asked in the Responses format, through the real gateway: every surface, whole and streamed, end to end."""

import json

import openai
import pytest

from support.forking import clean_environment, run_command
from support.gateway import NATIVE_HEADERS, running_gateway
from support.recorded import REASON, recorded_root, recordings
from support.replay import (
    CALLER_TOKEN,
    CHAT,
    EMBEDDINGS,
    NATIVE_CHAT,
    NATIVE_STREAM,
    Caller,
    assert_arrived,
    assert_no_credential,
    data_of,
    environment,
    native_chat,
    openai_stream_told,
    openai_told,
    plain_chat,
    replay,
)
from support.upstream import Answer

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
MODEL = "openai/gpt-oss-120b:groq"
NAMED = "x-llm-gate-inference-provider"
ORIGIN = "https://app.example.com"
TOML = f"""
[server]
allowed_origins = ["{ORIGIN}"]

[providers.huggingface]
api = "responses"

[[providers.huggingface.models]]
name = "chatty"
api = "chat"

[providers.azure_openai]
api = "responses"

[aliases.best]
targets = ["huggingface/{MODEL}", "openrouter/m"]
"""


@pytest.fixture(scope="module")
def asked(upstream):
    """A gateway that asks two vendors in this format."""
    with running_gateway(environment(upstream), toml=TOML) as running:
        yield running
    assert_no_credential("".join(running.log))


@pytest.fixture(scope="module")
def caller(asked):
    caller = Caller(asked.url)
    yield caller
    caller.close()


@pytest.fixture(scope="module")
def client(asked):
    with openai.OpenAI(base_url=f"{asked.url}/v1", api_key=CALLER_TOKEN, max_retries=0) as client:
        yield client


def response(*output, status="completed", **fields):
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1700000000,
        "status": status,
        "model": "gpt-oss-120b",
        "output": list(output),
        "usage": {"input_tokens": 12, "output_tokens": 5, "total_tokens": 17},
        **fields,
    }


def said(text):
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": '{"c":1}'}


def stream(*events, **more):
    lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
    return Answer.events(*lines, **more)


def streamed(*output, **more):
    """Stream an answer, each item whole."""
    items = [
        {"type": "response.output_item.done", "output_index": n, "item": item}
        for n, item in enumerate(output)
    ]
    begin = {"type": "response.created", "response": response(status="in_progress", usage=None)}
    return stream(begin, *items, {"type": "response.completed", "response": response(*output)}, **more)


def question(path, model, *, stream=False):
    """Return a plain question in the words of a surface."""
    name = f"huggingface/{model}"
    messages = [{"role": "user", "content": "Hello"}]
    more = {"stream": True} if stream else {}
    return {
        CHAT: {"model": name, "messages": messages, **more},
        "/v1/completions": {"model": name, "prompt": "Hello", **more},
        MESSAGES: {"model": name, "messages": messages, "max_tokens": 100, **more},
        RESPONSES: {"model": name, "input": "Hello", **more},
        NATIVE_CHAT: native_chat("huggingface", model),
        NATIVE_STREAM: native_chat("huggingface", model),
    }[path]


# ---- the configuration


def test_a_form_that_a_provider_does_not_have_is_a_fault(tmp_path):
    """`llm-gate check` names every `api` that was written for a provider whose wire format has only one."""
    config = tmp_path / "llm-gate.toml"
    config.write_text(
        '[providers.gemini]\napi = "responses"\n\n[providers.openai]\napi = "responses"\n\n'
        '[[providers.anthropic.models]]\nname = "x"\napi = "chat"\n'
    )
    done = run_command(
        "check",
        "--config",
        str(config),
        "--json",
        "--no-env-file",
        folder=tmp_path,
        environment=clean_environment(),
    )

    found = {(fault["key"], fault["line"]) for fault in json.loads(done.stdout)["faults"]}
    assert found == {("providers.gemini.api", 2), ("providers.anthropic.models[0].api", 9)}


# ---- the format on the way out


def test_the_vendor_is_asked_in_the_format(upstream, caller):
    """A chat request reaches /responses with the vendor's own credential, and its answer comes back as chat."""
    upstream.will(Answer.json(response(said("Hi"), CALL)))

    got = caller.post(CHAT, plain_chat("huggingface", MODEL, max_tokens=50))

    assert_arrived(upstream.only, "huggingface", "/responses")
    assert upstream.only.json == {
        "model": MODEL,
        "input": [{"type": "message", "role": "user", "content": "Hello"}],
        "store": False,
        "max_output_tokens": 50,
    }
    assert got.status == 200
    choice = got.json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hi", "tool_calls")
    assert choice["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"c":1}'}}
    ]
    assert (got.json["usage"]["prompt_tokens"], got.json["usage"]["completion_tokens"]) == (12, 5)


def test_a_model_of_its_own_mind(upstream, caller):
    """A model that is set to chat completions is asked so, though its provider is not."""
    reply = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]
    }
    upstream.will(Answer.json(reply))

    assert caller.post(CHAT, plain_chat("huggingface", "chatty")).status == 200
    assert upstream.only.path == "/hf/v1/chat/completions"


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", MESSAGES, RESPONSES, NATIVE_CHAT])
def test_every_surface_reaches_it(upstream, caller, path):
    """Whatever format the question comes in, the answer's text comes back in it."""
    upstream.will(Answer.json(response(said("Grüße"))))

    got = caller.post(path, question(path, MODEL))

    assert got.status == 200
    assert "Grüße" in got.body.decode()
    assert upstream.only.path == "/hf/v1/responses"


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", MESSAGES, RESPONSES, NATIVE_STREAM])
def test_every_streaming_surface_reaches_it(upstream, caller, path):
    """A streamed answer comes out of every surface as a stream that ends in order."""
    upstream.will(streamed(said("Grüße")))

    got = caller.post(path, question(path, MODEL, stream=True))

    assert (got.status, upstream.only.json["stream"]) == (200, True)
    assert "Grüße" in got.body.decode()
    assert "error" not in {event.get("type") for event in got.events if event != "[DONE]"}


def test_two_turns_with_a_tool(upstream, client):
    """The official client's second turn brings call and result back as the items they were."""
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    messages = [{"role": "user", "content": "Weather?"}]
    upstream.will(Answer.json(response(CALL)), Answer.json(response(said("Sunny"))))

    first = client.chat.completions.create(model=f"hf/{MODEL}", messages=messages, tools=[tool])
    call = first.choices[0].message
    messages += [call.model_dump(), {"role": "tool", "tool_call_id": "call_1", "content": "sun"}]
    second = client.chat.completions.create(model=f"hf/{MODEL}", messages=messages, tools=[tool])

    assert second.choices[0].message.content == "Sunny"
    assert upstream.seen[1].json["input"][1:] == [
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"c":1}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "sun"},
    ]


@pytest.mark.parametrize("model", [f"huggingface/{MODEL}", "azure_openai/gpt-4o"])
def test_a_stream_that_is_cut_is_never_complete(upstream, caller, model):
    """A stream without its last event carries an error and no [DONE], though a finish reason were enough in chat."""
    begin = {"type": "response.created", "response": response(status="in_progress")}
    delta = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hi"}
    upstream.will(stream(begin, delta))

    got = caller.post(CHAT, {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": True})

    assert got.events[0]["choices"][0]["delta"]["content"] == "Hi"
    assert got.events[-1]["error"]["code"] == "bad_provider_response"
    assert "[DONE]" not in got.events


def test_a_failure_at_the_start_moves_on(upstream, caller):
    """A stream that only began before it failed is asked for at the alias' next target."""
    begin = {"type": "response.created", "response": response(status="in_progress")}
    failed = {
        "type": "response.failed",
        "response": response(status="failed", error={"code": "server_error"}),
    }
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}]}
    upstream.will(
        stream(begin, failed), Answer.events(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())
    )

    got = caller.post(CHAT, {"model": "best", "messages": [{"role": "user", "content": "x"}], "stream": True})

    assert (got.headers["x-llm-gate-provider"], got.headers["x-llm-gate-attempts"]) == ("openrouter", "2")
    assert got.events[-1] == "[DONE]"


def test_errors_keep_their_class(upstream, caller):
    """An error of the vendor is classified as in its other format."""
    upstream.will(Answer.json({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, 429))

    got = caller.post(CHAT, plain_chat("huggingface", MODEL))

    assert (got.status, got.json["error"]["code"]) == (429, "rate_limit_exceeded")


def test_a_structured_answer_is_checked(upstream, caller):
    """A schema goes out in this format's words, and an answer that does not fit is asked for again."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    upstream.will(Answer.json(response(said("{}"))), Answer.json(response(said('{"a": 1}'))))

    got = caller.post(
        CHAT, plain_chat("huggingface", MODEL, response_format=wanted), {"x-llm-gate-repair": "1"}
    )

    assert got.json["choices"][0]["message"]["content"] == '{"a": 1}'
    assert got.json["usage"]["prompt_tokens"] == 24
    assert upstream.seen[0].json["text"] == {
        "format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    }
    assert [item["role"] for item in upstream.seen[1].json["input"]] == ["user", "assistant", "user"]


# ---- recorded answers


def recorded(*, is_streamed):
    if recorded_root() is None:
        return pytest.mark.skip(reason=REASON)
    return pytest.mark.parametrize(
        "one",
        [
            pytest.param(one, id=f"{recording.id}-{number}")
            for vendor in ("openai", "azure_openai", "openrouter", "xai")
            for recording in recordings(vendor, "responses", "responses-stream")
            for number, one in enumerate(recording.interactions)
            if one.request["method"] == "POST" and one.request["url"].endswith("/responses")
            if (one.json is None) is is_streamed
        ],
    )


def comes_to(document):
    """Say what a recorded response object comes to as a chat answer: text, calls, finish reason."""
    output = document["output"]
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    calls = tuple(
        (item["name"], json.loads(item["arguments"])) for item in output if item["type"] == "function_call"
    )
    end = "tool_calls" if calls else "stop"
    if document["status"] == "incomplete":
        end = "length"
    text = "".join(part["text"] for part in parts if part["type"] == "output_text")
    return ((text, calls, end),)


def counts(document):
    usage = document["usage"]
    return (usage["input_tokens"], usage["output_tokens"]) if usage["total_tokens"] else None


@recorded(is_streamed=False)
def test_recorded_answers(upstream, caller, one):
    """A recorded answer comes out as chat with its text, calls, finish reason and counts."""
    upstream.will(replay(one))

    told = openai_told(caller.post(CHAT, plain_chat("huggingface", MODEL)).json)

    assert (told.choices, told.usage) == (comes_to(one.json), counts(one.json))


@recorded(is_streamed=True)
def test_recorded_streams(upstream, caller, one):
    """A recorded stream comes out as a chat stream with the same, complete."""
    upstream.will(replay(one))
    asked = plain_chat("huggingface", MODEL, stream=True, stream_options={"include_usage": True})

    events = caller.post(CHAT, asked).events

    document = [event for event in data_of(one.body) if event != "[DONE]"][-1]["response"]
    told = openai_stream_told(events)
    assert events[-1] == "[DONE]"
    assert (told.choices, told.usage) == (comes_to(document), counts(document))


# ---- headers of the vendor's answer that callers see


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", MESSAGES, RESPONSES, NATIVE_CHAT])
def test_whom_the_router_picked_is_shown(upstream, caller, path):
    """A header that the provider's entry maps is on every complete answer, and only where the vendor sent it."""
    upstream.will(
        Answer.json(response(said("a")), x_inference_provider="groq"), Answer.json(response(said("b")))
    )

    assert caller.post(path, question(path, MODEL)).headers[NAMED] == "groq"
    assert NAMED not in caller.post(path, question(path, MODEL)).headers


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", MESSAGES, RESPONSES, NATIVE_STREAM])
def test_whom_the_router_picked_is_shown_of_streams(upstream, caller, path):
    """The head of a streamed answer has it too."""
    upstream.will(streamed(said("a")))
    whole = upstream.next_answer(None)
    head = {**whole.headers, "X-Inference-Provider": "novita"}
    upstream.will(Answer(headers=head, pieces=whole.pieces))

    assert caller.post(path, question(path, MODEL, stream=True)).headers[NAMED] == "novita"


def test_it_is_shown_of_embeddings(upstream, caller):
    """Vectors come with it as well."""
    vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
    reply = {
        "object": "list",
        "data": [vector],
        "model": "m",
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
    upstream.will(Answer.json(reply, x_inference_provider="tei"))

    got = caller.post(EMBEDDINGS, {"model": "huggingface/bge", "input": "a"})

    assert (got.status, got.headers[NAMED]) == (200, "tei")


def test_what_is_shown_is_printable_and_short(upstream, caller):
    """A value is shortened, and whatever is no visible ASCII in it is replaced."""
    reply = Answer.json(response(said("a")))
    strange = Answer(
        headers={**reply.headers, "x-inference-provider": "gr\xfcq" + "x" * 400}, body=reply.body
    )
    upstream.will(strange)

    value = caller.post(CHAT, plain_chat("huggingface", MODEL)).headers[NAMED]

    assert value.isascii()
    assert value.isprintable()
    assert value.startswith("gr?")
    assert len(value) == 256


def test_web_pages_may_read_it(upstream, caller):
    """A page of a listed origin can read the header, since it is named among the exposed ones."""
    upstream.will(Answer.json(response(said("a")), x_inference_provider="groq"))

    got = caller.post(CHAT, plain_chat("huggingface", MODEL), {"Origin": ORIGIN, **NATIVE_HEADERS})

    assert NAMED in got.headers["access-control-expose-headers"].split(", ")


def test_it_is_nobody_elses(upstream, caller):
    """A vendor whose entry maps no headers shows none."""
    reply = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]
    }
    upstream.will(Answer.json(reply, x_inference_provider="groq"))

    assert NAMED not in caller.post(CHAT, plain_chat("openrouter", "m")).headers


# ---- what a vendor says its answer cost


COUNTS = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": 8.1e-05}
CHOICE = {"index": 0, "finish_reason": "stop"}
COSTLY = {
    "id": "gen-1",
    "choices": [{**CHOICE, "message": {"role": "assistant", "content": "a"}}],
    "usage": COUNTS,
}
COSTLY_STREAM = [
    {"id": "gen-1", "choices": [{**CHOICE, "delta": {"role": "assistant", "content": "a"}}]},
    {"id": "gen-1", "choices": [], "usage": COUNTS},
]


def of_openrouter(path, *, stream=False):
    text = json.dumps(question(path, "m", stream=stream))
    asked = json.loads(text.replace("huggingface", "openrouter"))
    if stream and path in {CHAT, "/v1/completions"}:
        asked["stream_options"] = {"include_usage": True}
    return asked


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", MESSAGES, RESPONSES])
def test_a_vendors_own_cost_is_kept_beside_ours(upstream, caller, path):
    """The cost that a vendor names stands beside ours, which is unknown here, on every surface that shows usage."""
    upstream.will(Answer.json(COSTLY))

    usage = caller.post(path, of_openrouter(path)).json["usage"]

    assert (usage["cost"], usage["vendor_cost"]) == (None, 8.1e-05)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", MESSAGES, RESPONSES])
def test_a_vendors_own_cost_is_kept_in_streams(upstream, caller, path):
    """So it does in the event of a stream that brings the usage."""
    lines = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in COSTLY_STREAM]
    upstream.will(Answer.events(*lines, b"data: [DONE]\n\n"))

    events = caller.post(path, of_openrouter(path, stream=True)).events

    holders = [event.get("response", event) for event in events if event != "[DONE]"]
    usage = [holder["usage"] for holder in holders if holder.get("usage")][-1]
    assert (usage["cost"], usage["vendor_cost"]) == (None, 8.1e-05)


def test_the_native_surface_logs_it_only(upstream, caller, asked):
    """The native answer keeps to its documented fields; the log has the vendor's cost."""
    upstream.will(Answer.json(COSTLY))
    correlation = {"X-Correlation-Id": "0b1c2c1e-6f0e-4b53-9a43-0d4c4a1f5b99"}

    got = caller.post(NATIVE_CHAT, of_openrouter(NATIVE_CHAT), correlation)

    assert got.json["usage"] == {"completionTokens": 5, "promptTokens": 10, "totalTokens": 15}
    line = json.loads(asked.logged(correlation["X-Correlation-Id"]))
    assert line["vendor_cost_usd"] == "0.000081"
    assert "cost_usd" not in line
