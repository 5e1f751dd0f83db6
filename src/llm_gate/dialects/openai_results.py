"""Complete chat answers in the OpenAI wire format: read from providers, written to callers."""

import re
from typing import Any

import msgspec
from msgspec import Raw

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._json import ABSENT, given_or_none, is_given
from llm_gate.dialects.openai_errors import error_in_success
from llm_gate.dialects.openai_messages import write_tool_call
from llm_gate.dialects.openai_usage import add_cost, read_usage, write_usage
from llm_gate.dialects.openai_wire import Completion, ContentPart, ReplyChoice, ReplyMessage
from llm_gate.domain.messages import Part, TextPart, ThinkingPart, ToolCallPart
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import HttpReply, Target
from llm_gate.domain.requests import Wire
from llm_gate.domain.results import ChatResult, Choice, FinishReason

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "model_length": "length",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_decoder = msgspec.json.Decoder(Completion)
_fields_decoder = msgspec.json.Decoder(dict[str, Raw])
_choices_decoder = msgspec.json.Decoder(list[dict[str, Raw]])
_any_decoder = msgspec.json.Decoder(dict[str, Any])
_message_decoder = msgspec.json.Decoder(ReplyMessage)
_IRREGULAR = re.compile(rb'"content"\s*:\s*\[')


def finish_reason(word: str | None) -> FinishReason:
    """Translate a vendor's word; words of vendors that add their own count as a plain stop."""
    return _FINISH.get(word or "stop", "stop")


def decode_result(reply: HttpReply, target: Target) -> ChatResult:
    """Read a complete answer.

    Raises:
        ProviderError: the body is no completion, or an error in spite of the status.
    """
    try:
        completion, body = read_completion(reply.body)
        fields = _fields_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_response(target, "is not a chat completion", status=reply.status) from None
    if is_given(completion.error):
        raise error_in_success(completion.error, target)
    if not completion.choices:
        raise bad_response(target, "holds no choices", status=reply.status)
    return ChatResult(
        choices=tuple(_choice(choice, target) for choice in completion.choices),
        usage=read_usage(completion.usage),
        id=completion.id,
        model=completion.model,
        created_s=None if completion.created is None else int(completion.created),
        wire=Wire(dialect="openai", fields=fields),
    )


def read_completion(data: bytes) -> tuple[Completion, bytes]:
    """Decode an answer or a chunk; the bytes come back with it, mended where a server is known to stray.

    Raises:
        msgspec.DecodeError: it is neither.
    """
    try:
        return _decoder.decode(data), data
    except msgspec.ValidationError:
        if b'"tool_calls"' not in data:
            raise
        mended = _mend_calls(data)
        return _decoder.decode(mended), mended


def _mend_calls(data: bytes) -> bytes:
    """Write arguments that came as an object as the text they should be, and a lone call as a list of one.

    https://github.com/huggingface/text-generation-inference answered so for long.
    """
    document: dict[str, Any] = _any_decoder.decode(data)
    for choice in _objects(document.get("choices")):
        for message in _objects([choice.get("message"), choice.get("delta")]):
            if isinstance(message.get("tool_calls"), dict):
                message["tool_calls"] = [message["tool_calls"]]
            for call in _objects(message.get("tool_calls")):
                for function in _objects([call.get("function")]):
                    if isinstance(function.get("arguments"), dict):
                        function["arguments"] = msgspec.json.encode(function["arguments"]).decode()
    return msgspec.json.encode(document)


def _objects(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _choice(choice: ReplyChoice, target: Target) -> Choice:
    # A choice whose whole text was filtered comes without a message.
    if choice.message is None and choice.finish_reason != "content_filter":
        raise bad_response(target, "holds a choice without a message")
    if choice.finish_reason == "error":
        raise bad_response(target, "ended with an error of the model")
    parts = () if choice.message is None else message_parts(choice.message)
    reason = finish_reason(choice.finish_reason)
    return Choice(
        index=choice.index, parts=parts, finish_reason=reason, logprobs=given_or_none(choice.logprobs)
    )


def message_parts(message: ReplyMessage) -> tuple[Part, ...]:
    """Translate a message of an answer."""
    parts: list[Part] = []
    thought = reasoning_text(message)
    if thought:
        parts.append(ThinkingPart(text=thought))
    text = content_text(message.content)
    if text:
        parts.append(TextPart(text=text))
    if message.refusal:
        parts.append(TextPart(text=message.refusal, refusal=True))
    parts += [
        ToolCallPart(
            id=call.id or f"call_{index}",
            name=call.function.name or "",
            arguments=call.function.arguments or "{}",
            signature=call.signature,
        )
        for index, call in enumerate(message.tool_calls or ())
        if call.function is not None
    ]
    if message.function_call is not None:
        legacy = message.function_call
        parts.append(ToolCallPart(id="call_0", name=legacy.name or "", arguments=legacy.arguments or "{}"))
    return tuple(parts)


def content_text(content: str | list[ContentPart] | None) -> str:
    """Join the text of a content, which some vendors send in parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content if part.type == "text")


def reasoning_text(message: ReplyMessage) -> str:
    """Return the shown reasoning, wherever the vendor puts it."""
    if message.reasoning_content:
        return message.reasoning_content
    if bytes(message.reasoning).startswith(b'"'):
        return msgspec.json.decode(message.reasoning, type=str)
    if isinstance(message.content, list):
        return "".join(_thinking(part) for part in message.content if part.type == "thinking")
    return ""


def _thinking(part: ContentPart) -> str:
    if isinstance(part.thinking, list):
        return "".join(piece.text or "" for piece in part.thinking)
    return part.thinking or part.text or ""


def encode_result(
    result: ChatResult, *, fallback_id: str, model: str, created_s: int, cost: Cost | None
) -> bytes:
    """Write a complete answer; one that came in this dialect keeps every field of the vendor's.

    `fallback_id`, `model` and `created_s` stand in where the vendor did not say.
    """
    if result.wire is not None and result.wire.dialect == "openai":
        fields: dict[str, Any] = dict(result.wire.fields)
        if result.usage is not None:
            fields["usage"] = add_cost(fields["usage"], cost)
        if _IRREGULAR.search(fields["choices"]) or any(not choice.parts for choice in result.choices):
            fields["choices"] = plain_choices(fields["choices"], "message")
        return msgspec.json.encode(fields)
    body: dict[str, Any] = {
        "id": result.id or fallback_id,
        "object": "chat.completion",
        "created": result.created_s or created_s,
        "model": result.model or model,
        "choices": [_write_choice(choice) for choice in result.choices],
    }
    if result.usage is not None:
        body["usage"] = write_usage(result.usage, cost)
    return msgspec.json.encode(body)


def plain_choices(raw: Raw, key: str) -> list[dict[str, Any]]:
    """Bring a vendor's choices to what clients rely on: a `key` of "message" or "delta" with text as its content.

    Content in parts becomes text, and its reasoning moves to the field where other vendors have it.
    """
    choices: list[dict[str, Any]] = _choices_decoder.decode(raw)
    for choice in choices:
        said = choice.get(key, ABSENT)
        if not is_given(said):
            choice[key] = {"role": "assistant", "content": None, "refusal": None} if key == "message" else {}
            continue
        fields: dict[str, Any] = _fields_decoder.decode(said)
        if bytes(fields.get("content", ABSENT)).startswith(b"["):
            message = _message_decoder.decode(said)
            fields["content"] = content_text(message.content) or None
            if thought := reasoning_text(message):
                fields["reasoning_content"] = thought
            choice[key] = fields
    return choices


def _write_choice(choice: Choice) -> dict[str, Any]:
    said = [part for part in choice.parts if isinstance(part, TextPart)]
    text = "".join(part.text for part in said if not part.refusal)
    refusal = "".join(part.text for part in said if part.refusal)
    calls = [write_tool_call(part) for part in choice.parts if isinstance(part, ToolCallPart)]
    thought = "".join(part.text for part in choice.parts if isinstance(part, ThinkingPart))
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not (calls or refusal) else None,
        "refusal": refusal or None,
    }
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
    return {
        "index": choice.index,
        "message": message,
        "logprobs": choice.logprobs,
        "finish_reason": choice.finish_reason,
    }
