"""What Ollama's answers and streams share: the line that is read, tool calls, usage and failures.

Contract: https://docs.ollama.com/api/chat and https://docs.ollama.com/api/errors
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._failures import VendorFailure, bad_response, typed_error
from llm_gate.dialects._json import ABSENT, is_given
from llm_gate.domain.messages import ToolCallPart
from llm_gate.domain.provider import Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import FinishReason
from llm_gate.domain.usage import Usage, believed

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a stranger's JSON may raise."""

JSON_HEADERS: Mapping[str, str] = {"content-type": "application/json"}
_UNKNOWN_STATUS = 500
_REJECTED = 400
# Too long an input comes without a code: the words of the message are the only signal there is.
_TOO_LONG = ("prompt too long", "exceeds the context length", "exceeds maximum context length")

Count = Annotated[int, Meta(ge=0)]


class Function(Struct, frozen=True):
    """A function and the arguments it is called with, an object."""

    name: Annotated[str, Meta(min_length=1)]
    arguments: Raw = ABSENT


class Call(Struct, frozen=True):
    """A tool call; older versions send no id."""

    function: Function
    id: str | None = None


class WireMessage(Struct, frozen=True):
    """What the model said, or a piece of it."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Call] | None = None


class Line(Struct, frozen=True):
    """A whole answer, or one line of a streamed one."""

    message: WireMessage
    done: bool
    done_reason: str | None = None
    model: str | None = None
    created_at: str | None = None
    error: Raw = ABSENT


class _Failed(Struct, frozen=True):
    error: Raw


class _Counts(Struct, frozen=True):
    prompt_eval_count: Count
    eval_count: Count = 0
    prompt_eval_cached_count: Count | None = None


_line_decoder = msgspec.json.Decoder(Line)
_failed_decoder = msgspec.json.Decoder(_Failed)
_counts_decoder = msgspec.json.Decoder(_Counts)


def read_line(data: bytes, target: Target, what: str) -> Line:
    """Read an answer or a line of one; `what` completes "the answer …" where it is neither.

    Raises:
        ProviderError: it is a failure, or nothing that this format has.
    """
    try:
        line = _line_decoder.decode(data)
        if not is_given(line.error):
            return line
    except UNREADABLE:
        pass
    failure = read_failure(data)
    raise bad_response(target, what) if failure is None else typed_error(failure, target)


def read_usage(data: bytes) -> Usage | None:
    """Read the counts of a last line, which include what was cached.

    Older versions leave out the count of a prompt that was in the cache: then nothing is known. The count of the
    output is missing only where it is zero.
    """
    try:
        counts = _counts_decoder.decode(data)
    except UNREADABLE:
        return None
    return believed(
        Usage(
            input_tokens=counts.prompt_eval_count,
            cached_input_tokens=min(counts.prompt_eval_cached_count or 0, counts.prompt_eval_count),
            output_tokens=counts.eval_count,
        )
    )


def finish_reason(line: Line, *, has_calls: bool) -> FinishReason:
    """Translate why the model stopped, which does not tell of tool calls."""
    if line.done_reason == "length":
        return "length"
    return "tool_calls" if has_calls else "stop"


def created_s(line: Line) -> int | None:
    """Return when the answer, or its line, was made."""
    try:
        moment = datetime.fromisoformat(line.created_at or "")
    except ValueError:
        return None
    return int(moment.timestamp()) if moment.tzinfo is not None else None


def calls_before(request: ChatRequest) -> int:
    """Count the tool calls of a conversation: ids that are made up go on from there, and so stay unique."""
    messages = request.conversation.messages
    return sum(isinstance(part, ToolCallPart) for message in messages for part in message.parts)


def read_call(call: Call, number: int, target: Target) -> ToolCallPart:
    """Read a tool call; without an id of its own it is called after its number in the conversation.

    Raises:
        BadProviderResponse: its arguments are no object.
    """
    arguments = "{}"
    if is_given(call.function.arguments):
        arguments = msgspec.json.format(bytes(call.function.arguments), indent=-1).decode()
    if not arguments.startswith("{"):
        raise bad_response(target, "holds a tool call whose arguments are no object")
    return ToolCallPart(id=call.id or f"call_{number}", name=call.function.name, arguments=arguments)


def read_failure(body: bytes, *, status: int | None = None) -> VendorFailure | None:
    """Read an error body or line; None when it is something else."""
    try:
        error = msgspec.json.decode(_failed_decoder.decode(body).error)
    except UNREADABLE:
        return None
    # The hosted service wraps the message as the OpenAI format does.
    message: Any = error.get("message") if isinstance(error, dict) else error
    if error is None:
        return None
    status = _UNKNOWN_STATUS if status is None else status
    text = message if isinstance(message, str) else ""
    too_long = status == _REJECTED and any(words in text.lower() for words in _TOO_LONG)
    return VendorFailure(status=status, message=text, codes=("context_length_exceeded",) if too_long else ())
