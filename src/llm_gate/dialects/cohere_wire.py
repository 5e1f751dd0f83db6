"""What Cohere's answers and streams share: usage, finish reasons and failures.

Contract: https://docs.cohere.com/reference/chat and https://docs.cohere.com/reference/errors
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._failures import VendorFailure, typed_error
from llm_gate.dialects._json import is_given
from llm_gate.domain.provider import Target
from llm_gate.domain.results import FinishReason
from llm_gate.domain.usage import Usage, believed

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a stranger's JSON may raise."""

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "ERROR_LIMIT": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
# Finish reasons that say that there is no answer, and the HTTP status that would have said the same.
_FAILED_WITH: Mapping[str, int] = {"ERROR": 500, "TIMEOUT": 504}
_UNKNOWN_STATUS = 500
_CODES: Mapping[str, str] = {"TOO_MANY_TOKENS": "context_length_exceeded"}
# Failures without a code of their own: a status and what the message says are the only signals there are.
_CODE_BY_MESSAGE: tuple[tuple[int, str, str], ...] = (
    (400, "too many tokens", "context_length_exceeded"),
    (429, "calls / month", "insufficient_quota"),
    # The vendor's side saw the call cancelled, so another try may work.
    (499, "", "server_error"),
)

# The description has counts as numbers that need not be written as integers.
Count = Annotated[float, Meta(ge=0)]


class Counts(Struct, frozen=True):
    """Token counts of one kind."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class _Usage(Struct, frozen=True):
    billed_units: Counts | None = None
    tokens: Counts | None = None


_usage_decoder = msgspec.json.Decoder(_Usage)


def read_usage(raw: Raw, *, has_output: bool = True) -> Usage | None:
    """Read the billed units, or the tokens where those are missing; None where neither is complete.

    What was billed leaves out the vendor's own preamble, of which most is cached; so the count of cached tokens,
    which includes it, says nothing about what is billed.
    """
    if not is_given(raw):
        return None
    try:
        usage = _usage_decoder.decode(raw)
    except UNREADABLE:
        return None
    reasoning = usage.tokens.reasoning_tokens if usage.tokens is not None else None
    for counts in (usage.billed_units, usage.tokens):
        if counts is None or counts.input_tokens is None:
            continue
        if not has_output:
            return believed(Usage(input_tokens=round(counts.input_tokens)))
        if counts.output_tokens is None:
            continue
        output = round(counts.output_tokens)
        return believed(
            Usage(
                input_tokens=round(counts.input_tokens),
                output_tokens=output,
                reasoning_tokens=min(round(reasoning or 0), output),
            )
        )
    return None


def finish_reason(word: str, target: Target, *, has_calls: bool, error: str | None = None) -> FinishReason:
    """Translate a finish reason; one that is not known yet is a stop.

    Raises:
        ProviderError: it says that the generation failed.
    """
    word = word.upper()
    if word in _FAILED_WITH:
        message = error or "the generation failed"
        raise typed_error(VendorFailure(status=_FAILED_WITH[word], message=message, codes=(word,)), target)
    reason = _FINISH_REASONS.get(word, "stop")
    return "tool_calls" if has_calls and reason == "stop" else reason


def read_failure(body: bytes, *, status: int | None = None) -> VendorFailure | None:
    """Read an error body; None when it is something else, as an answer, whose message is an object."""
    try:
        document = msgspec.json.decode(body)
    except UNREADABLE:
        return None
    if not isinstance(document, dict):
        return None
    message = document.get("message")
    if not isinstance(message, str):
        message = _proxy_message(document.get("error"))
    if message is None:
        return None
    status = _UNKNOWN_STATUS if status is None else status
    return VendorFailure(status=status, message=message, codes=_codes(document, message, status))


def _proxy_message(error: Any) -> str | None:
    """Return the message of an error as the proxies in front of the vendor write it."""
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else None


def _codes(document: Mapping[str, Any], message: str, status: int) -> tuple[str, ...]:
    codes: list[str] = []
    kind = document.get("error_type")
    if isinstance(kind, str) and kind:
        codes.append(kind)
        if kind in _CODES:
            codes.append(_CODES[kind])
    text = message.lower()
    codes += [code for wanted, words, code in _CODE_BY_MESSAGE if status == wanted and words in text]
    return tuple(dict.fromkeys(codes))
