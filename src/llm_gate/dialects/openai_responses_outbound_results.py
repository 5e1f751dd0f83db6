"""Answers in OpenAI's Responses format, read from providers: the records, and what a complete answer comes to."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._json import ABSENT, is_given
from llm_gate.dialects.openai_errors import error_in_success
from llm_gate.dialects.openai_usage import count
from llm_gate.dialects.openai_wire import CompletionDetails, PromptDetails, UsageBody
from llm_gate.domain.messages import Part, TextPart, ThinkingPart, ToolCallPart
from llm_gate.domain.provider import HttpReply, Target
from llm_gate.domain.results import ChatResult, Choice, FinishReason
from llm_gate.domain.usage import Usage

_CUT: Mapping[str | None, FinishReason] = {"content_filter": "content_filter"}
_SPOKEN = frozenset({"message", "function_call", "reasoning"})


class OutputPart(Struct, frozen=True):
    """A piece of a message or of reasoning."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    logprobs: Raw = ABSENT


class OutputItem(Struct, frozen=True):
    """One item of the output; which fields are there depends on its type."""

    type: str
    id: str | None = None
    content: list[OutputPart] | None = None
    summary: list[OutputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class Incomplete(Struct, frozen=True):
    """Why an answer was cut short."""

    reason: str | None = None


class Response(Struct, frozen=True):
    """An answer, also one that has only begun."""

    id: str | None = None
    model: str | None = None
    created_at: float | None = None
    status: str | None = None
    output: list[Raw] | None = None
    incomplete_details: Incomplete | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT


class _Kind(Struct, frozen=True):
    type: str | None = None


class _Usage(Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens_details: PromptDetails | None = None
    output_tokens_details: CompletionDetails | None = None
    cost: Raw = ABSENT


_decoder = msgspec.json.Decoder(Response)
_kind_decoder = msgspec.json.Decoder(_Kind)
_item_decoder = msgspec.json.Decoder(OutputItem)
_usage_decoder = msgspec.json.Decoder(_Usage)
_list_decoder = msgspec.json.Decoder(list[Raw])


def decode_response(reply: HttpReply, target: Target) -> ChatResult:
    """Read a complete answer.

    Raises:
        ProviderError: the body is no response object, not an ended one, or an error in spite of the status.
    """
    try:
        response = _decoder.decode(reply.body)
        if is_given(response.error) or response.status == "failed":
            raise error_in_success(response.error, target)
        if response.output is None:
            raise bad_response(target, "holds no output", status=reply.status)
        items = read_items(response.output)
        logprobs = _logprobs(items)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_response(target, "is not a response object", status=reply.status) from None
    parts = tuple(part for index, item in enumerate(items) for part in _parts(item, index))
    has_calls = any(isinstance(part, ToolCallPart) for part in parts)
    reason = finish_reason(response, target, has_calls=has_calls)
    return ChatResult(
        choices=(Choice(parts=parts, finish_reason=reason, logprobs=logprobs),),
        usage=read_response_usage(response.usage),
        id=response.id,
        model=response.model,
        created_s=None if response.created_at is None else int(response.created_at),
    )


def read_items(output: Sequence[Raw]) -> list[OutputItem]:
    """Read the items of an output that have a neutral form; those of the vendor's own tools are left out.

    Raises:
        msgspec.DecodeError: one of them has another shape.
    """
    found = (read_item(raw) for raw in output)
    return [item for item in found if item is not None]


def read_item(raw: Raw) -> OutputItem | None:
    """Read an item, or nothing where it has no neutral form.

    Raises:
        msgspec.DecodeError: it has another shape.
    """
    return _item_decoder.decode(raw) if _kind_decoder.decode(raw).type in _SPOKEN else None


def finish_reason(response: Response, target: Target, *, has_calls: bool) -> FinishReason:
    """Return why an answer ended.

    Raises:
        BadProviderResponse: it has not ended.
    """
    if response.status in {None, "completed"}:
        return "tool_calls" if has_calls else "stop"
    if response.status == "incomplete":
        details = response.incomplete_details or Incomplete()
        return _CUT.get(details.reason, "length")
    raise bad_response(target, "is a response that is not complete")


def read_response_usage(raw: Raw) -> Usage | None:
    """Read a usage object; None when it is absent, malformed, absurd, or says that nothing at all was read."""
    if not is_given(raw):
        return None
    try:
        body = _usage_decoder.decode(raw)
    except msgspec.DecodeError:
        return None
    if not body.input_tokens and not body.output_tokens:
        # Some answers that were cut short are counted so, though they were billed.
        return None
    return count(
        UsageBody(
            prompt_tokens=body.input_tokens,
            completion_tokens=body.output_tokens,
            total_tokens=body.total_tokens,
            prompt_tokens_details=body.input_tokens_details,
            completion_tokens_details=body.output_tokens_details,
            cost=body.cost,
        )
    )


def thought_texts(item: OutputItem) -> list[str]:
    """Return the pieces of a reasoning item that are shown: its summary, then the reasoning itself."""
    return [part.text for part in (*(item.summary or ()), *(item.content or ())) if part.text]


def _parts(item: OutputItem, index: int) -> list[Part]:
    match item.type:
        case "function_call":
            call_id = item.call_id or item.id or f"call_{index}"
            return [ToolCallPart(id=call_id, name=item.name or "", arguments=item.arguments or "{}")]
        case "reasoning":
            texts = thought_texts(item)
            return [ThinkingPart(text="\n\n".join(texts))] if texts else []
        case _:
            return [
                TextPart(text=text, refusal=part.type == "refusal")
                for part in item.content or ()
                if (text := part.refusal if part.type == "refusal" else part.text)
            ]


def _logprobs(items: Sequence[OutputItem]) -> Raw | None:
    """Return the log probabilities of the text in the neutral form, which is that of the chat format."""
    found: list[Raw] = []
    for item in items:
        for part in item.content or ():
            if part.type == "output_text" and is_given(part.logprobs):
                found += _list_decoder.decode(part.logprobs)
    return Raw(msgspec.json.encode({"content": found, "refusal": None})) if found else None
