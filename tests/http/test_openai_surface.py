"""The OpenAI surface against the sandbox, with OpenAI's own client as the caller."""

import json

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from support.web import call

WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def client(gateway):
    """Make the official client, pointed at the gateway."""
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def ask(text="Hello"):
    return [{"role": "user", "content": text}]


def test_the_gateway_is_ready_within_its_promise(gateway):
    """From the command to the first answer takes at most 1.5 s, plus slack for a busy machine."""
    assert gateway.ready_after_s < 1.5 + 2.0


def test_plain_chat(client):
    """A plain call gets a text that says it is synthetic, with usage and a cost of exactly zero."""
    answer = client.chat.completions.create(model="sandbox/chat", messages=ask())

    assert "synthetic" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.cost == 0
    assert answer.synthetic is True


def test_default_names_the_preferred_provider(client):
    """The model name "default" reaches whatever the operator prefers: here the sandbox."""
    raw = client.chat.completions.with_raw_response.create(model="default", messages=ask())

    assert raw.headers["x-llm-gate-provider"] == "sandbox"
    assert raw.headers["x-llm-gate-model"] == "chat"
    assert raw.headers["x-llm-gate-cost-usd"] == "0"
    assert raw.headers["x-llm-gate-attempts"] == "1"
    assert raw.headers["x-llm-gate-synthetic"] == "true"
    assert raw.headers["x-request-id"]
    assert "upstream;dur=" in raw.headers["server-timing"]


def test_stream_with_usage(client):
    """A stream gives the text in pieces and, when asked, usage with cost in the last chunk."""
    stream = client.chat.completions.create(
        model="sandbox/chat", messages=ask(), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)

    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "You said: Hello" in text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.cost == 0


def test_stream_without_usage(client):
    """A stream carries no usage when nobody asked for it."""
    chunks = list(client.chat.completions.create(model="sandbox/chat", messages=ask(), stream=True))

    assert all(not chunk.usage for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)


def test_tools_over_two_turns(client):
    """The model asks for a tool with fitting arguments, and answers once it has the result."""
    first = client.chat.completions.create(model="sandbox/chat", messages=ask(), tools=[WEATHER_TOOL])
    call_made = first.choices[0].message.tool_calls[0]
    assert first.choices[0].finish_reason == "tool_calls"
    assert call_made.function.name == "get_weather"
    assert set(json.loads(call_made.function.arguments)) == {"city", "days"}

    turns = [
        *ask(),
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call_made.id, "content": "sunny"},
    ]
    second = client.chat.completions.create(model="sandbox/chat", messages=turns, tools=[WEATHER_TOOL])

    assert second.choices[0].finish_reason == "stop"
    assert "sunny" in second.choices[0].message.content


def test_streamed_tool_call(client):
    """A streamed tool call comes in pieces that make up JSON."""
    with client.chat.completions.stream(model="sandbox/chat", messages=ask(), tools=[WEATHER_TOOL]) as stream:
        final = stream.get_final_completion()

    assert final.choices[0].message.tool_calls[0].function.name == "get_weather"
    assert "city" in json.loads(final.choices[0].message.tool_calls[0].function.arguments)


class City(BaseModel):
    """What a structured answer is read into."""

    name: str
    inhabitants: int
    rivers: list[str]


def test_json_schema(client):
    """A structured answer fits its schema."""
    parsed = client.chat.completions.parse(model="sandbox/chat", messages=ask(), response_format=City)

    assert isinstance(parsed.choices[0].message.parsed, City)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(client, encoding):
    """Embeddings come in the encoding that was asked for, one for each text, close where words are shared."""
    texts = ["red apples", "red apples today", "stars"]
    answer = client.embeddings.create(model="sandbox/embedding", input=texts, encoding_format=encoding)
    vectors = [item.embedding for item in answer.data]
    if encoding == "base64":
        assert all(isinstance(vector, str) for vector in vectors)
        return

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2])
    assert answer.usage.prompt_tokens > 0


def test_the_client_reads_its_own_default_encoding(client):
    """The official client, which asks for base64 by itself, hands out numbers."""
    answer = client.embeddings.create(model="sandbox/embedding", input="x", dimensions=64)

    assert len(answer.data[0].embedding) == 64


def test_models(client):
    """The list holds what can be used now, with context and pricing fields."""
    listed = {model.id: model for model in client.models.list()}

    media = {
        f"sandbox/{name}"
        for name in ("image", "image-edit", "face-swap", "video", "speech", "transcription", "search")
    }
    assert set(listed) == {"sandbox/chat", "sandbox/embedding"} | media
    assert listed["sandbox/chat"].context_length == 128_000
    assert listed["sandbox/chat"].pricing == {"prompt": "0", "completion": "0"}
    assert client.models.retrieve("sandbox/chat").id == "sandbox/chat"


def test_an_unknown_model_is_404(client):
    """A name nobody knows is a 404 in OpenAI's own form."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=ask())

    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("sandbox/no-such-model")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (400, openai.BadRequestError),
    ],
)
def test_the_sandbox_fails_on_demand(client, status, kind):
    """The control header makes the sandbox fail as a vendor would, whole and streamed."""
    for stream in (False, True):
        with pytest.raises(kind) as caught:
            client.chat.completions.create(
                model="sandbox/chat",
                messages=ask(),
                stream=stream,
                extra_headers={"x-llm-gate-sandbox": f"fail={status}"},
            )
        expected = 503 if status == 500 else status
        assert caught.value.status_code == expected


def test_a_cut_stream_never_looks_complete(client):
    """A stream that breaks off ends with an error, which the official client raises."""
    stream = client.chat.completions.create(
        model="sandbox/chat",
        messages=ask(),
        stream=True,
        extra_headers={"x-llm-gate-sandbox": "cut_after=3"},
    )
    received = []
    with pytest.raises(openai.APIError, match="broke"):
        received.extend(stream)

    assert len(received) == 3


def test_a_control_word_nobody_knows_is_refused(gateway):
    """A control header that cannot be read is the caller's mistake."""
    body = {"model": "sandbox/chat", "messages": ask()}
    answer = call(gateway.url, "/v1/chat/completions", body, {"x-llm-gate-sandbox": "explode=1"})

    assert answer.status == 400
    assert answer.json["error"]["param"] == "x-llm-gate-sandbox"
