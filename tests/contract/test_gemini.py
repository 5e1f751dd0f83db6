"""The Gemini dialect, outbound: requests as sent, answers, streams and errors; own cases and recorded traffic."""

import json
import random
import re
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from llm_gate.dialects.gemini import provider
from llm_gate.domain.catalog import Model, ProviderSpec
from llm_gate.domain.errors import (
    BadProviderResponse,
    ContextTooLong,
    InvalidRequest,
    ProviderAuthFailed,
    ProviderError,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from llm_gate.domain.events import (
    ChatEvent,
    Ended,
    Finished,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_gate.domain.messages import (
    Conversation,
    MediaPart,
    Message,
    ResponseFormat,
    TextPart,
    ThinkingPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from llm_gate.domain.provider import Auth, Deployment, Encoded, HttpReply, Target
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.secret import Secret
from llm_gate.domain.usage import Usage
from support.figures import property_of
from support.recorded import Interaction, parametrize, recordings

BASE = "https://vendor.example/v1beta"
chat, embedding = provider.chat, provider.embedding
assert chat is not None
assert embedding is not None


def target_for(model: str = "gemini-2.5-flash", **spec: Any) -> Target:
    auth = Auth(kind="header", header="x-goog-api-key", secret=Secret("AQ.very-secret-key"))
    deployment = Deployment(
        provider="gemini", base_url=BASE, auth=auth, spec=ProviderSpec(**spec), codecs=provider
    )
    entry = Model(id="1", provider="gemini", name=model, label="", description="", operations=("chat",))
    return Target(deployment=deployment, model=entry)


TARGET = target_for()


def user(text: str) -> Message:
    return Message(role="user", parts=(TextPart(text=text),))


def ask(*messages: Message, **fields: Any) -> ChatRequest:
    said = messages or (user("hi"),)
    return ChatRequest(model="gemini/m", conversation=Conversation(lambda: said), **fields)


def sent(encoded: Encoded) -> Any:
    return json.loads(encoded.request.body)


def reply_of(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> HttpReply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(status=status, headers=headers or {}, body=raw)


def answer(*parts: dict[str, Any], finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish, "index": 0}
    return {"candidates": [candidate], "modelVersion": "gemini-x-001", "responseId": "r1", **more}


def sse(*chunks: Any, end: str = "\r\n\r\n") -> bytes:
    return "".join(f"data: {json.dumps(chunk, ensure_ascii=False)}{end}" for chunk in chunks).encode()


def run_stream(pieces: list[bytes], request: ChatRequest | None = None) -> list[ChatEvent]:
    stream = chat.open_stream(request or ask(stream=True), TARGET)
    events = [event for piece in pieces for event in stream.feed(piece)]
    return [*events, *stream.close()]


# ---- requests as sent


def test_plain_question():
    """A plain question becomes one user turn, at the address of the model, with nothing the caller did not say."""
    encoded = chat.encode(ask(), TARGET)
    assert encoded.request.method == "POST"
    assert encoded.request.url == f"{BASE}/models/gemini-2.5-flash:generateContent"
    assert encoded.request.headers == {"content-type": "application/json"}
    assert sent(encoded) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    assert encoded.dropped == ()


def test_stream_address():
    """A streamed answer is asked for as server-sent events."""
    encoded = chat.encode(ask(stream=True), TARGET)
    assert encoded.request.url == f"{BASE}/models/gemini-2.5-flash:streamGenerateContent?alt=sse"


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("a b?c#d", "models/a%20b%3Fc%23d"),
        ("org/m", "models/org/m"),
        ("models/m", "models/m"),
        ("tunedModels/m", "tunedModels/m"),
    ],
)
def test_model_in_the_path(model, path):
    """A model's name is escaped in the path, and a full resource name is not prefixed twice."""
    assert chat.encode(ask(), target_for(model)).request.url == f"{BASE}/{path}:generateContent"


@pytest.mark.parametrize("model", ["../../files", "a/../b", ".", "a//b"])
def test_model_cannot_leave_its_collection(model):
    """A model's name never leads to another address of the vendor."""
    with pytest.raises(InvalidRequest) as caught:
        chat.encode(ask(), target_for(model))
    assert caught.value.param == "model"


def test_system_messages_wherever_they_stand():
    """System messages become the instruction, in their order, wherever they stand."""
    encoded = chat.encode(
        ask(
            Message(role="system", parts=(TextPart(text="Be kind."),)),
            user("hi"),
            Message(role="assistant", parts=(TextPart(text="hello"),)),
            Message(role="system", parts=(TextPart(text="Be short."),)),
            user("go"),
        ),
        TARGET,
    )
    assert sent(encoded) == {
        "systemInstruction": {"parts": [{"text": "Be kind."}, {"text": "Be short."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "hi"}]},
            {"role": "model", "parts": [{"text": "hello"}]},
            {"role": "user", "parts": [{"text": "go"}]},
        ],
    }


def test_system_message_alone():
    """Instructions without a question are sent as a question, since the vendor needs one."""
    encoded = chat.encode(ask(Message(role="system", parts=(TextPart(text="Say hi."),))), TARGET)
    assert sent(encoded) == {"contents": [{"role": "user", "parts": [{"text": "Say hi."}]}]}


def test_nothing_to_send():
    """A conversation without any content is refused instead of being sent empty."""
    with pytest.raises(InvalidRequest) as caught:
        chat.encode(ask(user("")), TARGET)
    assert caught.value.param == "messages"


def tool_turns(signature: str | None) -> tuple[Message, ...]:
    calls = (
        TextPart(text="Let me see."),
        ToolCallPart(id="c1", name="weather", arguments='{"city": "Oslo"}', signature=signature),
        ToolCallPart(id="c2", name="now", arguments=""),
    )
    return (
        user("weather?"),
        Message(role="assistant", parts=calls),
        tool_says("c1", '{"celsius": 3}'),
        tool_says("c2", "noon"),
        user("thanks"),
    )


def tool_says(call: str, text: str, **more: Any) -> Message:
    return Message(
        role="tool", parts=(ToolResultPart(tool_call_id=call, content=(TextPart(text=text),), **more),)
    )


def test_tool_conversation():
    """Calls and their results travel as function parts, the results together and each an object with its name."""
    encoded = chat.encode(ask(*tool_turns("c2ln")), target_for("gemini-3-flash-preview"))
    assert sent(encoded)["contents"] == [
        {"role": "user", "parts": [{"text": "weather?"}]},
        {
            "role": "model",
            "parts": [
                {"text": "Let me see."},
                {
                    "functionCall": {"id": "c1", "name": "weather", "args": {"city": "Oslo"}},
                    "thoughtSignature": "c2ln",
                },
                {"functionCall": {"id": "c2", "name": "now", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c1", "name": "weather", "response": {"celsius": 3}}},
                {"functionResponse": {"id": "c2", "name": "now", "response": {"result": "noon"}}},
            ],
        },
        {"role": "user", "parts": [{"text": "thanks"}]},
    ]


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("gemini-3-flash-preview", "skip_thought_signature_validator"),
        ("gemini-flash-latest", "skip_thought_signature_validator"),
        ("gemini-2.5-flash", None),
        ("gemini-2.0-flash-001", None),
        ("gemma-3-27b-it", None),
    ],
)
def test_calls_of_another_model(model, wanted):
    """The first call of a turn that came without a signature gets the documented stand-in where one is needed."""
    parts = sent(chat.encode(ask(*tool_turns(None)), target_for(model)))["contents"][1]["parts"]
    assert parts[1].get("thoughtSignature") == wanted
    assert "thoughtSignature" not in parts[2]


def test_failed_tool():
    """A tool's failure is told apart from a result by its key."""
    turns = (*tool_turns(None)[:2], tool_says("c1", "no network", is_error=True), tool_says("c2", "[1]"))
    parts = sent(chat.encode(ask(*turns), TARGET))["contents"][2]["parts"]
    assert [part["functionResponse"]["response"] for part in parts] == [
        {"error": "no network"},
        {"result": "[1]"},
    ]


def test_picture_from_a_tool():
    """A picture that a tool returned follows all results of the turn, in a turn of its own."""
    picture = MediaPart(kind="image", data="AAAA", media_type="image/png")
    shown = ToolResultPart(tool_call_id="c1", content=(TextPart(text="see"), picture))
    turns = (
        *tool_turns(None)[:2],
        Message(role="tool", parts=(shown,)),
        tool_says("c2", "noon"),
        user("so?"),
    )
    contents = sent(chat.encode(ask(*turns), TARGET))["contents"]
    assert [list(part) for part in contents[2]["parts"]] == [["functionResponse"], ["functionResponse"]]
    assert contents[3:] == [
        {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]},
        {"role": "user", "parts": [{"text": "so?"}]},
    ]


def test_result_of_an_unknown_call():
    """A tool result whose call is nowhere to be found is refused by name, since the vendor needs the tool's name."""
    with pytest.raises(InvalidRequest) as caught:
        chat.encode(ask(user("hi"), tool_says("c9", "x")), TARGET)
    assert caught.value.param == "messages[1].tool_call_id"
    named = chat.encode(ask(user("hi"), tool_says("c9", "x", name="find")), TARGET)
    assert sent(named)["contents"][1]["parts"][0]["functionResponse"]["name"] == "find"


@pytest.mark.parametrize("arguments", ["[1]", "{", '{"a":}', "{} {}"])
def test_arguments_that_are_no_object(arguments):
    """Arguments that are no JSON object are refused under their wire name."""
    call = ToolCallPart(id="c1", name="f", arguments=arguments)
    with pytest.raises(InvalidRequest) as caught:
        chat.encode(ask(user("hi"), Message(role="assistant", parts=(TextPart(text="x"), call))), TARGET)
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


def test_signatures_travel_back():
    """Signatures go back where they stood: on a thought, on the text before them, or alone."""
    parts = (
        ThinkingPart(text="hm", signature="dDE="),
        TextPart(text="a"),
        ThinkingPart(signature="dDI="),
        ThinkingPart(signature="dDM="),
    )
    encoded = chat.encode(ask(user("q"), Message(role="assistant", parts=parts)), TARGET)
    assert sent(encoded)["contents"][1]["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": "dDE="},
        {"text": "a", "thoughtSignature": "dDI="},
        {"text": "", "thoughtSignature": "dDM="},
    ]


def test_media():
    """Data goes inline and links as files, with a media type guessed from the name where none is given."""
    parts = (
        MediaPart(kind="image", data="AAAA", media_type="image/png"),
        MediaPart(kind="image", url="data:image/webp;base64,BBBB"),
        MediaPart(kind="image", url="https://x.example/a.JPG?size=1"),
        MediaPart(kind="image", url="https://x.example/picture"),
        MediaPart(kind="audio", data="CCCC", media_type="audio/wav"),
        MediaPart(kind="file", data="DDDD", filename="report.pdf"),
    )
    encoded = chat.encode(ask(Message(role="user", parts=parts)), TARGET)
    assert sent(encoded)["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"inlineData": {"mimeType": "image/webp", "data": "BBBB"}},
        {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://x.example/a.JPG?size=1"}},
        {"fileData": {"fileUri": "https://x.example/picture"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "CCCC"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "DDDD"}},
    ]
    assert encoded.dropped == ("messages[0].content[5].file.filename",)


@pytest.mark.parametrize(
    ("role", "part"),
    [
        ("system", MediaPart(kind="image", data="AAAA", media_type="image/png")),
        ("user", MediaPart(kind="file", data="AAAA")),
        ("user", MediaPart(kind="file")),
        ("user", MediaPart(kind="image", url="ftp://x.example/a.png")),
    ],
)
def test_parts_that_cannot_be_carried_over(role, part):
    """A part without a counterpart is refused under its path."""
    message = Message(role=role, parts=(TextPart(text="look"), part))
    with pytest.raises(InvalidRequest) as caught:
        chat.encode(ask(user("hi"), message), TARGET)
    assert caught.value.param == "messages[1].content[1]"


def test_json_schema_untouched():
    """A JSON Schema reaches the vendor byte for byte."""
    schema = Raw(b'{"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "x": 1.50}')
    wanted = ResponseFormat(kind="json_schema", name="n", schema=schema, strict=True)
    encoded = chat.encode(ask(response_format=wanted), TARGET)
    assert bytes(schema) in encoded.request.body
    settings = sent(encoded)["generationConfig"]
    assert settings == {
        "responseMimeType": "application/json",
        "responseJsonSchema": json.loads(bytes(schema)),
    }


@pytest.mark.parametrize(
    ("kind", "settings"), [("json_object", {"responseMimeType": "application/json"}), ("text", None)]
)
def test_other_formats(kind, settings):
    """JSON without a schema is asked for by its media type, and text by nothing."""
    encoded = chat.encode(ask(response_format=ResponseFormat(kind=kind)), TARGET)
    assert sent(encoded).get("generationConfig") == settings


def test_all_parameters():
    """Every parameter the vendor knows arrives under its own name."""
    request = ask(
        max_output_tokens=10,
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        frequency_penalty=0.1,
        presence_penalty=-0.1,
        stop=("a", "b"),
        n=2,
        seed=-5,
        logprobs=True,
        top_logprobs=3,
        reasoning_effort="medium",
    )
    encoded = chat.encode(request, TARGET)
    assert encoded.dropped == ()
    assert sent(encoded)["generationConfig"] == {
        "maxOutputTokens": 10,
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 7,
        "frequencyPenalty": 0.1,
        "presencePenalty": -0.1,
        "stopSequences": ["a", "b"],
        "candidateCount": 2,
        "seed": -5,
        "responseLogprobs": True,
        "logprobs": 3,
        "thinkingConfig": {"thinkingBudget": 8192},
    }


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        (ToolChoice(mode="auto"), {"mode": "AUTO"}),
        (ToolChoice(mode="none"), {"mode": "NONE"}),
        (ToolChoice(mode="required"), {"mode": "ANY"}),
        (ToolChoice(mode="named", name="f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_tools_and_choice(choice, config):
    """Tools are declared with their schema untouched, and the choice in the vendor's words."""
    schema = Raw(b'{"type":"object","properties":{"a":{"type":"integer","minimum":1.0}}}')
    tools = (Tool(name="f", description="does f", parameters=schema, strict=True), Tool(name="g"))
    encoded = chat.encode(ask(tools=tools, tool_choice=choice), TARGET)
    assert b'"parametersJsonSchema":' + bytes(schema) in encoded.request.body
    body = sent(encoded)
    f = {"name": "f", "description": "does f", "parametersJsonSchema": json.loads(bytes(schema))}
    assert body["tools"] == [{"functionDeclarations": [f, {"name": "g"}]}]
    assert body["toolConfig"] == {"functionCallingConfig": config}
    assert encoded.dropped == ("tools[0].function.strict",)


def test_choice_without_tools():
    """A choice that demands a tool is refused where there is none; one that does not is left out."""
    assert "toolConfig" not in sent(chat.encode(ask(tool_choice=ToolChoice(mode="none")), TARGET))
    with pytest.raises(InvalidRequest) as caught:
        chat.encode(ask(tool_choice=ToolChoice(mode="required")), TARGET)
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        ("gemini-2.5-flash", "low", {"thinkingBudget": 1024}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", None),
        ("gemini-2.5-pro", "high", {"thinkingBudget": 24576}),
        ("gemini-3-pro-preview", "minimal", {"thinkingLevel": "low"}),
        ("gemini-3.5-flash", "medium", {"thinkingLevel": "medium"}),
        ("gemini-3.5-flash", "none", None),
        ("gemini-3.5-flash", "gigantic", None),
        ("gemini-flash-latest", "high", None),
        ("gemini-2.0-flash", "high", None),
        ("gemini-2.5-flash-image", "high", None),
        ("gemma-3-27b-it", "low", None),
    ],
)
def test_reasoning_effort(model, effort, config):
    """An effort becomes what the model's family understands, or is dropped and named."""
    encoded = chat.encode(ask(reasoning_effort=effort), target_for(model))
    assert sent(encoded).get("generationConfig", {}).get("thinkingConfig") == config
    assert encoded.dropped == (() if config else ("reasoning_effort",))


def test_hints_are_dropped_and_named():
    """Hints without a counterpart are left out and listed, each once."""
    parts = (
        MediaPart(kind="image", data="AAAA", media_type="image/png", detail="high"),
        MediaPart(kind="image", data="AAAA", media_type="image/png", detail="auto"),
    )
    request = ask(
        Message(role="user", parts=parts, name="ann"),
        Message(role="assistant", parts=(ThinkingPart(text="foreign"), TextPart(text="x"))),
        user="u",
        service_tier="flex",
        parallel_tool_calls=False,
        seed=2**40,
        extra={"metadata": Raw(b"{}")},
    )
    encoded = chat.encode(request, TARGET)
    assert sorted(encoded.dropped) == [
        "messages[0].content[0].image_url.detail",
        "messages[0].name",
        "messages[1].reasoning_content",
        "metadata",
        "parallel_tool_calls",
        "seed",
        "service_tier",
        "user",
    ]
    assert "generationConfig" not in sent(encoded)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"modalities": ("text", "audio")}, "modalities"),
        ({"logprobs": True, "stream": True}, "logprobs"),
        ({"binding": ("functions",)}, "functions"),
    ],
)
def test_meaning_is_refused(fields, param):
    """What changes the meaning of the answer and has no counterpart is refused by its wire name."""
    with pytest.raises(InvalidRequest) as caught:
        chat.encode(ask(**fields), TARGET)
    assert caught.value.param == param


def test_operator_drops():
    """A hint that the operator's file drops is left out and named."""
    encoded = chat.encode(ask(temperature=1.0, top_p=0.5), target_for(drop=("temperature",)))
    assert encoded.dropped == ("temperature",)
    assert sent(encoded)["generationConfig"] == {"topP": 0.5}


def test_no_credential_in_requests():
    """A codec never puts the credential into a request."""
    for encoded in (
        chat.encode(ask(), TARGET),
        embedding.encode(EmbeddingRequest(model="m", inputs=("x",)), TARGET),
    ):
        assert "very-secret" not in repr(encoded)
        assert "very-secret" not in repr(msgspec.to_builtins(encoded.request))


# ---- whole answers

USAGE = {
    "promptTokenCount": 20,
    "toolUsePromptTokenCount": 5,
    "cachedContentTokenCount": 8,
    "candidatesTokenCount": 7,
    "thoughtsTokenCount": 3,
    "totalTokenCount": 35,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 14},
        {"modality": "AUDIO", "tokenCount": 6},
    ],
    "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 2}],
    "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 1}],
}
COUNTED = Usage(
    input_tokens=25,
    cached_input_tokens=8,
    audio_input_tokens=4,
    output_tokens=10,
    reasoning_tokens=3,
    audio_output_tokens=1,
)


def test_answer():
    """An answer comes out whole: text, thoughts with signatures, pictures, calls, usage, and facts beside it."""
    body = answer(
        {"text": "thinking", "thought": True},
        {"text": "Grüße", "thoughtSignature": "c2ln"},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"executableCode": {"language": "PYTHON", "code": "1"}},
        {"functionCall": {"name": "f", "args": {"b": 1.50, "a": [1, 2]}}, "thoughtSignature": "dHdv"},
        {"functionCall": {"name": "g", "id": "given"}},
        usageMetadata=USAGE,
        createTime="2026-01-02T03:04:05.678901Z",
    )
    body["candidates"][0]["groundingMetadata"] = {"webSearchQueries": ["x"]}
    result = chat.decode(reply_of(body), ask(), TARGET)
    (choice,) = result.choices
    assert choice.parts == (
        ThinkingPart(text="thinking"),
        TextPart(text="Grüße"),
        ThinkingPart(signature="c2ln"),
        MediaPart(kind="image", data="AAAA", media_type="image/png"),
        ToolCallPart(id="call_r1_0", name="f", arguments='{"b":1.5,"a":[1,2]}', signature="dHdv"),
        ToolCallPart(id="given", name="g", arguments="{}"),
    )
    assert (choice.index, choice.finish_reason) == (0, "tool_calls")
    assert (result.id, result.model, result.created_s) == ("r1", "gemini-x-001", 1767323045)
    assert result.usage == COUNTED
    assert {name: json.loads(bytes(raw)) for name, raw in result.notices.items()} == {
        "groundingMetadata": {"webSearchQueries": ["x"]}
    }


def test_several_answers():
    """Several candidates become choices in order; an index of zero may be left out."""
    body = {
        "candidates": [
            {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"},
            {"content": {"parts": [{"text": "b"}]}, "finishReason": "MAX_TOKENS", "index": 1},
        ]
    }
    result = chat.decode(reply_of(body), ask(n=2), TARGET)
    assert [(c.index, c.finish_reason) for c in result.choices] == [(0, "stop"), (1, "length")]
    assert result.usage is None


def test_made_up_ids_are_unique_in_the_conversation():
    """Without any id from the vendor, a call's id does not collide with the calls made before."""
    body = answer({"functionCall": {"name": "f", "args": {}}})
    del body["responseId"]
    result = chat.decode(reply_of(body), ask(*tool_turns(None)), TARGET)
    assert result.choices[0].parts == (ToolCallPart(id="call_2", name="f", arguments="{}"),)


def test_a_signature_survives_the_round():
    """What the vendor signed is sent back to it with the same signature at the same place."""
    parts = (
        {"text": "ok", "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "f", "args": {"a": 1}, "id": "i"}, "thoughtSignature": "dHdv"},
    )
    result = chat.decode(reply_of(answer(*parts)), ask(), TARGET)
    history = Message(role="assistant", parts=result.choices[0].parts)
    assert sent(chat.encode(ask(user("q"), history), TARGET))["contents"][1]["parts"] == list(parts)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "stop"),
        (1, "stop"),
        ("MAX_TOKENS", "length"),
        *((word, "content_filter") for word in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT")),
        *((word, "content_filter") for word in ("SPII", "IMAGE_SAFETY", "MODEL_ARMOR", "LANGUAGE", "OTHER")),
        (3, "content_filter"),
        ("A_NEW_WORD", "content_filter"),
    ],
)
def test_finish_reasons(word, reason):
    """Every way to end an answer has its neutral word; a withheld answer stays an answer."""
    body = answer({"text": "x"}, finish=word)
    assert chat.decode(reply_of(body), ask(), TARGET).choices[0].finish_reason == reason
    assert Finished(reason=reason) in run_stream([sse(body)])


@pytest.mark.parametrize("word", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", 10, None, ""])
def test_broken_ends(word):
    """A call the vendor itself calls malformed, or no finish reason at all, is not an answer."""
    body = answer({"text": "x"}, finish=word)
    with pytest.raises(BadProviderResponse):
        chat.decode(reply_of(body), ask(), TARGET)
    with pytest.raises(BadProviderResponse):
        run_stream([sse(body)])


def test_blocked_prompt():
    """A blocked prompt is an empty answer that was filtered, with the vendor's reason beside it."""
    body = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}
    result = chat.decode(reply_of(body), ask(), TARGET)
    assert [(c.parts, c.finish_reason) for c in result.choices] == [((), "content_filter")]
    assert result.usage == Usage(input_tokens=4)
    assert json.loads(bytes(result.notices["promptFeedback"])) == {"blockReason": "SAFETY"}
    usage = UsageReported(usage=Usage(input_tokens=4))
    assert run_stream([sse(body)]) == [Started(), Finished(reason="content_filter"), usage, Ended()]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b"null",
        b"{}",
        b"[]",
        b'"x"',
        b"[{},{}]",
        b'{"candidates":[]}',
        b'{"candidates":{}}',
        b'{"candidates":[{"content":"x","finishReason":"STOP"}]}',
        b'{"candidates":[{"content":{"parts":[{"text":5}]},"finishReason":"STOP"}]}',
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"args":{}}}]},"finishReason":"STOP"}]}',
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":[]}}]},"finishReason":"STOP"}]}',
        b'{"candidates":[{"content":{"parts":[{"text":"\xff"}]},"finishReason":"STOP"}]}',
        b'{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"ST',
        b'{"promptFeedback":{}}',
        b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_what_is_no_answer(body):
    """Whatever is not an answer by contract is a bad response, whole and streamed, never an empty success."""
    with pytest.raises(BadProviderResponse):
        chat.decode(reply_of(body), ask(), TARGET)
    for framed in (body, b"data: " + body + b"\n\n"):
        with pytest.raises(BadProviderResponse):
            run_stream([framed])


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"trafficType": "ON_DEMAND"},
        {"promptTokenCount": -1},
        {"promptTokenCount": 1.5},
        {"promptTokenCount": "9"},
        {"promptTokenCount": 9, "candidatesTokenCount": True},
        "many",
    ],
)
def test_unknown_usage_is_none(usage):
    """A usage that is missing or impossible is unknown, never zero, and does not spoil the answer."""
    result = chat.decode(reply_of(answer({"text": "x"}, usageMetadata=usage)), ask(), TARGET)
    assert result.usage is None
    assert not any(
        isinstance(event, UsageReported)
        for event in run_stream([sse(answer({"text": "x"}, usageMetadata=usage))])
    )


def test_logprobs():
    """Log probabilities come out in the neutral form."""
    body = answer({"text": "é"})
    body["candidates"][0]["logprobsResult"] = {
        "chosenCandidates": [{"token": "é", "tokenId": 1, "logProbability": -0.5}],
        "topCandidates": [{"candidates": [{"token": "é", "logProbability": -0.5}, {"token": "e"}]}],
    }
    raw = chat.decode(reply_of(body), ask(logprobs=True), TARGET).choices[0].logprobs
    first = {"token": "é", "logprob": -0.5, "bytes": [195, 169]}
    second = {"token": "e", "logprob": 0.0, "bytes": [101]}
    assert json.loads(bytes(raw)) == {
        "content": [{**first, "top_logprobs": [first, second]}],
        "refusal": None,
    }


# ---- streams

CHUNKS = (
    answer({"text": "Hm", "thought": True}, finish=None, usageMetadata={"promptTokenCount": 3}),
    answer({"text": 'Grüße 🌍 "}]{['}, finish=None),
    answer(
        {"functionCall": {"name": "f", "args": {"q": 'a\\"b'}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "g", "args": {}, "id": "own"}},
        finish=None,
    ),
    answer({"text": "", "thoughtSignature": "dHdv"}, usageMetadata=USAGE),
)
EVENTS = [
    Started(id="r1", model="gemini-x-001"),
    ThinkingDelta(text="Hm"),
    TextDelta(text='Grüße 🌍 "}]{['),
    ToolCallDelta(call=0, id="call_r1_0", name="f", arguments='{"q":"a\\\\\\"b"}', signature="c2ln"),
    ToolCallDelta(call=1, id="own", name="g", arguments="{}"),
    ThinkingDelta(signature="dHdv"),
    UsageReported(usage=COUNTED),
    Finished(reason="tool_calls"),
    Ended(),
]
ARRAY = json.dumps(CHUNKS, indent=2, ensure_ascii=False).replace("},\n  {", "}\n,\r\n  {").encode()
FRAMINGS = {
    "lf": sse(*CHUNKS, end="\n\n"),
    "crlf": sse(*CHUNKS),
    "cr": sse(*CHUNKS, end="\r\r"),
    "comments": b": hello\n\n" + sse(*CHUNKS, end="\n: still here\n\n"),
    "bom": b"\xef\xbb\xbf" + sse(*CHUNKS),
    "unclosed": sse(*CHUNKS).rstrip(b"\r\n"),
    "foreign-end": sse(*CHUNKS) + b"data: [DONE]\n\n",
    "array": ARRAY,
    "array-compact": json.dumps(CHUNKS).encode() + b"\n",
}


@pytest.mark.parametrize("name", FRAMINGS)
def test_stream_events(name):
    """Every framing gives the same events, whole and byte by byte."""
    body = FRAMINGS[name]
    assert run_stream([body]) == EVENTS
    assert run_stream([body[i : i + 1] for i in range(len(body))]) == EVENTS


@pytest.mark.parametrize("name", FRAMINGS)
def test_stream_split_at_every_offset(name):
    """A stream split at any one offset gives the same events."""
    body = FRAMINGS[name]
    for at in range(len(body) + 1):
        assert run_stream([body[:at], body[at:]]) == EVENTS


@property_of()
@given(st.sampled_from(sorted(FRAMINGS)), st.lists(st.integers(min_value=0, max_value=4000), max_size=12))
def test_stream_split_at_many_offsets(name, offsets):
    """A stream in any portions gives the same events."""
    body = FRAMINGS[name]
    cuts = [0, *sorted(min(offset, len(body)) for offset in offsets), len(body)]
    assert run_stream([body[a:b] for a, b in pairwise(cuts)]) == EVENTS


@pytest.mark.parametrize("name", FRAMINGS)
def test_cut_stream(name):
    """A stream that stops before its finish reason, or before the array's bracket, is never complete."""
    body = FRAMINGS[name]
    end = body.rindex(b"]") if name.startswith("array") else body.rindex(b'"STOP"')
    for at in range(end + 1):
        stream = chat.open_stream(ask(stream=True), TARGET)
        assert not any(isinstance(event, Ended | Finished) for event in stream.feed(body[:at]))
        with pytest.raises(BadProviderResponse):
            stream.close()


def test_every_candidate_must_finish():
    """A stream of several candidates is complete only when each that appeared has finished."""
    second = {"content": {"parts": [{"text": "b"}]}, "index": 1}
    open_end = answer({"text": "a"})
    open_end["candidates"].append(second)
    with pytest.raises(BadProviderResponse):
        run_stream([sse(open_end)])
    closing = {"candidates": [{"finishReason": "MAX_TOKENS", "index": 1}]}
    events = run_stream([sse(open_end, closing)])
    assert events[1:] == [
        TextDelta(text="a"),
        TextDelta(text="b", index=1),
        Finished(reason="stop"),
        Finished(reason="length", index=1),
        Ended(),
    ]


def test_usage_after_the_finish_reason():
    """Usage that follows the finish reason still counts, and the last count is the one that holds."""
    early = answer({"text": "a"}, usageMetadata={"promptTokenCount": 5, "candidatesTokenCount": 1})
    late = {"usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 2}}
    reported = [event.usage for event in run_stream([sse(early, late)]) if isinstance(event, UsageReported)]
    assert reported[-1] == Usage(input_tokens=4, output_tokens=2)


ERROR = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}


@pytest.mark.parametrize(
    "tail",
    [
        sse(ERROR),
        json.dumps(ERROR).encode(),
        json.dumps([ERROR], indent=2).encode(),
        b"event: error\ndata: " + json.dumps(ERROR).encode() + b"\n\n",
    ],
)
def test_error_inside_a_stream(tail):
    """A failure inside a stream is the typed error, as an event or as bare JSON, after text or at once."""
    for body in (tail, sse(CHUNKS[0]) + tail):
        with pytest.raises(ProviderUnavailable) as caught:
            run_stream([body])
        assert caught.value.status == 503
        assert "overloaded" in caught.value.message


def test_error_inside_an_array():
    """A failure as an element of the array framing is the typed error."""
    body = json.dumps([CHUNKS[0], {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}]).encode()
    with pytest.raises(ProviderRateLimited):
        run_stream([body])


def test_error_inside_a_success():
    """A failure with status 200 is the typed error, alone or in an array."""
    for body in (ERROR, [ERROR]):
        with pytest.raises(ProviderUnavailable):
            chat.decode(reply_of(body), ask(), TARGET)
    with pytest.raises(ProviderUnavailable):
        chat.decode(reply_of({"error": "gone wrong"}), ask(), TARGET)


@pytest.mark.parametrize("head", [b"data: ", b"[{", b'["', b"[" + b" " * 10])
def test_giant_event(head):
    """An event without end is refused instead of being collected for ever."""
    with pytest.raises(BadProviderResponse):
        run_stream([head, *[b"x" * 50_000] * 40])


@pytest.mark.parametrize("body", [b"[1]", b'["x"]', b"[[]]", b"[{}]x", b"[{}]{}", b"[{} x {}]", b"[{]"])
def test_odd_arrays(body):
    """An array that is not one of objects is a bad response."""
    with pytest.raises(BadProviderResponse):
        run_stream([body])


# ---- errors


def error_body(status: str, message: str = "m", **more: Any) -> dict[str, Any]:
    return {"error": {"code": 1, "message": message, "status": status, **more}}


def quota(quota_id: str) -> list[dict[str, Any]]:
    return [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id}]}]


KEY_INVALID = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
TOO_LONG = "The input token count (9) exceeds the maximum number of tokens allowed (8)."


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, error_body("INVALID_ARGUMENT"), ProviderRejected),
        (400, error_body("INVALID_ARGUMENT", details=KEY_INVALID), ProviderAuthFailed),
        (400, error_body("INVALID_ARGUMENT", TOO_LONG), ContextTooLong),
        (401, error_body("UNAUTHENTICATED"), ProviderAuthFailed),
        (403, error_body("PERMISSION_DENIED"), ProviderAuthFailed),
        (404, error_body("NOT_FOUND"), ProviderModelGone),
        (404, b"<html>404</html>", ProviderModelGone),
        (429, error_body("RESOURCE_EXHAUSTED"), ProviderRateLimited),
        (429, error_body("RESOURCE_EXHAUSTED", details=quota("TokensPerMinute")), ProviderRateLimited),
        (429, error_body("RESOURCE_EXHAUSTED", details=quota("RequestsPerDay-Free")), ProviderQuotaExhausted),
        (500, error_body("INTERNAL"), ProviderUnavailable),
        (500, error_body("INVALID_ARGUMENT", TOO_LONG), ProviderUnavailable),
        (503, [error_body("UNAVAILABLE")], ProviderUnavailable),
        (503, b"", ProviderUnavailable),
        (503, b"\xff\xfe", ProviderUnavailable),
        (504, error_body("DEADLINE_EXCEEDED"), ProviderTimeout),
        (400, {"error": "plain"}, ProviderRejected),
        (400, {"error": {"message": 5}}, ProviderRejected),
        (400, error_body("INVALID_ARGUMENT", details="?"), ProviderRejected),
        (400, [], ProviderRejected),
        (302, b"", BadProviderResponse),
    ],
)
def test_error_classes(status, body, kind):
    """Every failure gets the class that says what can be done, whatever its body looks like."""
    error = provider.decode_error(reply_of(body, status), TARGET)
    assert type(error) is kind
    assert error.status == status


@pytest.mark.parametrize(
    ("delay", "headers", "wanted"),
    [
        ("48.9s", {}, 48.9),
        ("7s", {"retry-after": "9"}, 9.0),
        ("soon", {"retry-after": "2"}, 2.0),
        ("-3s", {}, None),
        (None, {}, None),
    ],
)
def test_retry_hints(delay, headers, wanted):
    """The vendor's wish for patience is read from the body and from the header; the longer one counts."""
    details = [] if delay is None else [{"@type": "google.rpc.RetryInfo", "retryDelay": delay}]
    body = error_body("RESOURCE_EXHAUSTED", details=details)
    assert provider.decode_error(reply_of(body, 429, headers), TARGET).retry_after_s == wanted


# ---- embeddings


def test_embedding_request():
    """Texts become one batch, each with the model and the wished dimensions."""
    request = EmbeddingRequest(model="m", inputs=("a", "b"), dimensions=8, user="u", extra={"x": Raw(b"1")})
    encoded = embedding.encode(request, target_for("gemini-embedding-001"))
    assert encoded.request.url == f"{BASE}/models/gemini-embedding-001:batchEmbedContents"
    assert sent(encoded) == {
        "requests": [
            {
                "model": "models/gemini-embedding-001",
                "content": {"parts": [{"text": text}]},
                "outputDimensionality": 8,
            }
            for text in "ab"
        ]
    }
    assert encoded.dropped == ("user", "x")


def test_embedding_of_token_ids():
    """Token ids mean something to one vendor only and are refused."""
    with pytest.raises(InvalidRequest) as caught:
        embedding.encode(EmbeddingRequest(model="m", inputs=((1, 2),)), TARGET)
    assert caught.value.param == "input"


def test_embedding_answer():
    """Vectors come back in order, with the usage where the vendor gives one."""
    request = EmbeddingRequest(model="m", inputs=("a", "b"))
    body: dict[str, Any] = {"embeddings": [{"values": [1, 0.5]}, {"values": [0.25, -1e-3]}]}
    result = embedding.decode(reply_of(body), request, TARGET)
    assert result.vectors == ((1.0, 0.5), (0.25, -0.001))
    assert result.usage is None
    body["usageMetadata"] = {"promptTokenCount": 6}
    assert embedding.decode(reply_of(body), request, TARGET).usage == Usage(input_tokens=6)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"<html>",
        b'{"embeddings":[]}',
        b'{"embeddings":[{"values":[]}]}',
        b'{"embeddings":[{"values":["x"]}]}',
        b'{"embeddings":[{"values":[1]},{"values":[2]}]}',
    ],
)
def test_bad_embedding_answers(body):
    """Anything but one vector for each text is a bad response."""
    with pytest.raises(BadProviderResponse):
        embedding.decode(reply_of(body), EmbeddingRequest(model="m", inputs=("a",)), TARGET)


def test_embedding_error_inside_a_success():
    """A failure with status 200 is the typed error."""
    with pytest.raises(ProviderUnavailable):
        embedding.decode(reply_of(ERROR), EmbeddingRequest(model="m", inputs=("a",)), TARGET)


# ---- recorded traffic

# Recordings that do not fit, each with its reason.
UNFIT = {
    "gemini/embeddings/vertex-predict.json": "another method (:predict) of another service",
}
CHAT = [
    recording
    for recording in recordings(
        "gemini",
        "generate",
        "stream",
        "tools",
        "json-schema",
        "image-output",
        "audio-input",
        "video-input",
        "errors",
    )
    if any(interaction.status == 200 for interaction in recording.interactions)
]
EMBEDDINGS = [recording for recording in recordings("gemini", "embeddings") if recording.id not in UNFIT]
ERRORS = [
    recording
    for recording in recordings("gemini", "errors")
    if any(interaction.status != 200 for interaction in recording.interactions)
]
ERROR_CLASSES = {
    "400-key-invalid-stream": ProviderAuthFailed,
    "400-key-invalid": ProviderAuthFailed,
    "400-vertex-context-length": ContextTooLong,
    "400-vertex-image-url": ProviderRejected,
    "403-unregistered": ProviderAuthFailed,
    "404-embed-model": ProviderModelGone,
    "404-model": ProviderModelGone,
    "429-plain": ProviderRateLimited,
    "429-retry-info": ProviderRateLimited,
}


def chunks_of(interaction: Interaction) -> list[dict[str, Any]]:
    """Return what a recording says, read without the code under test."""
    if isinstance(interaction.json, dict):
        return [interaction.json]
    text = interaction.body.decode()
    if text.startswith("["):
        found: list[dict[str, Any]] = json.loads(text)
        return found
    return [json.loads(block.removeprefix("data: ")) for block in re.split(r"\r?\n\r?\n", text) if block]


def expected(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    candidates = [chunk["candidates"][0] for chunk in chunks if chunk.get("candidates")]
    parts = [part for c in candidates for part in (c.get("content") or {}).get("parts", [])]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    word = next((c["finishReason"] for c in reversed(candidates) if "finishReason" in c), "SAFETY")
    reason = {"STOP": "stop", 1: "stop", "MAX_TOKENS": "length"}.get(word, "content_filter")
    counts = chunks[-1].get("usageMetadata", {})
    usage = None
    if "promptTokenCount" in counts:
        thoughts = counts.get("thoughtsTokenCount", 0)
        usage = (
            counts["promptTokenCount"] + counts.get("toolUsePromptTokenCount", 0),
            counts.get("candidatesTokenCount", 0) + thoughts,
            thoughts,
            counts.get("cachedContentTokenCount", 0),
        )
    return {
        "text": "".join(part.get("text", "") for part in parts if not part.get("thought")),
        "thoughts": "".join(part.get("text", "") for part in parts if part.get("thought")),
        "calls": [(call["name"], call.get("args", {})) for call in calls],
        "signatures": [
            part["thoughtSignature"]
            for part in parts
            if "thoughtSignature" in part and part.keys() & {"text", "functionCall", "inlineData"}
        ],
        "finish": "tool_calls" if calls and reason == "stop" else reason,
        "usage": usage,
        "id": chunks[0].get("responseId"),
        "model": chunks[0].get("modelVersion"),
    }


def counted(usage: Usage | None) -> tuple[int, ...] | None:
    if usage is None:
        return None
    return (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens, usage.cached_input_tokens)


def summary_of_result(interaction: Interaction) -> dict[str, Any]:
    result = chat.decode(
        HttpReply(status=200, headers=interaction.headers, body=interaction.body), ask(), TARGET
    )
    (choice,) = result.choices
    calls = [part for part in choice.parts if isinstance(part, ToolCallPart)]
    assert len({call.id for call in calls}) == len(calls)
    return {
        "text": "".join(part.text for part in choice.parts if isinstance(part, TextPart)),
        "thoughts": "".join(part.text for part in choice.parts if isinstance(part, ThinkingPart)),
        "calls": [(call.name, json.loads(call.arguments)) for call in calls],
        "signatures": [
            part.signature
            for part in choice.parts
            if isinstance(part, ThinkingPart | ToolCallPart) and part.signature
        ],
        "finish": choice.finish_reason,
        "usage": counted(result.usage),
        "id": result.id,
        "model": result.model,
    }


def summary_of_events(events: list[ChatEvent]) -> dict[str, Any]:
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Ended)
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    assert [call.call for call in calls] == list(range(len(calls)))
    assert all(call.id and call.name for call in calls)
    usages = [event.usage for event in events if isinstance(event, UsageReported)]
    (finished,) = (event for event in events if isinstance(event, Finished))
    return {
        "text": "".join(event.text for event in events if isinstance(event, TextDelta)),
        "thoughts": "".join(event.text for event in events if isinstance(event, ThinkingDelta)),
        "calls": [(call.name, json.loads(call.arguments)) for call in calls],
        "signatures": [
            event.signature
            for event in events
            if isinstance(event, ThinkingDelta | ToolCallDelta) and event.signature
        ],
        "finish": finished.reason,
        "usage": counted(usages[-1]) if usages else None,
        "id": events[0].id,
        "model": events[0].model,
    }


@parametrize("recording", CHAT)
def test_recorded_answers(recording):
    """Every recorded answer gives its text, calls, finish reason and usage, whole and in any portions."""
    for interaction in recording.interactions:
        if interaction.status != 200:
            continue
        wanted = expected(chunks_of(interaction))
        if isinstance(interaction.json, dict):
            assert summary_of_result(interaction) == wanted
            assert summary_of_events(run_stream([b"data: " + interaction.body])) == wanted
            continue
        body = interaction.body
        assert summary_of_events(run_stream([body])) == wanted
        assert summary_of_events(run_stream([body[i : i + 1] for i in range(len(body))])) == wanted
        chance = random.Random(recording.id)  # noqa: S311 - cuts, not secrets
        for _ in range(5):
            cuts = [0, *sorted(chance.randrange(len(body)) for _ in range(20)), len(body)]
            pieces = [body[a:b] for a, b in pairwise(cuts)]
            assert summary_of_events(run_stream(pieces)) == wanted


@parametrize("recording", [r for r in CHAT if "/stream" in r.id])
def test_recorded_streams_cut(recording):
    """A recorded stream that is cut before its last finish reason is a bad response."""
    for interaction in recording.interactions:
        body = interaction.body
        end = body.rindex(b'"finishReason"')
        for at in (0, 1, end, *range(0, end, max(1, end // 40))):
            with pytest.raises(BadProviderResponse):
                run_stream([body[:at]])


@parametrize("recording", EMBEDDINGS)
def test_recorded_embeddings(recording):
    """Every recorded embedding answer gives its vectors and, where there is one, its usage."""
    for interaction in recording.interactions:
        wanted = [item["values"] for item in interaction.json["embeddings"]]
        request = EmbeddingRequest(model="m", inputs=("x",) * len(wanted))
        result = embedding.decode(reply_of(interaction.body), request, TARGET)
        assert [list(vector) for vector in result.vectors] == wanted
        counts = interaction.json.get("usageMetadata")
        assert result.usage == (Usage(input_tokens=counts["promptTokenCount"]) if counts else None)


@parametrize("recording", ERRORS)
def test_recorded_errors(recording):
    """Every recorded failure gets its class, its retry hint, and shows no credential."""
    name = recording.id.rpartition("/")[2].removesuffix(".json")
    for interaction in recording.interactions:
        reply = HttpReply(status=interaction.status, headers=interaction.headers, body=interaction.body)
        error = provider.decode_error(reply, TARGET)
        assert isinstance(error, ProviderError)
        assert type(error) is ERROR_CLASSES[name]
        assert error.retry_after_s == (48.0 if name == "429-retry-info" else None)
        assert not re.search(r"AIza|AQ\.|very-secret", f"{error} {error.detail}")
