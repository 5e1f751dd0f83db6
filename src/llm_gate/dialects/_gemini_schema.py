"""What Gemini answers: the records that are read, and their usage, finish reasons and failures in neutral form."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._failures import VendorFailure, bad_response, plain_text, retry_after_s, typed_error
from llm_gate.domain.errors import ProviderError
from llm_gate.domain.messages import ToolCallPart
from llm_gate.domain.provider import HttpReply, Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import FinishReason
from llm_gate.domain.usage import Usage, believed

T = TypeVar("T")
Count = Annotated[int, Meta(ge=0)]
ABSENT = Raw(b"")

# Enums come as words, or as their numbers where a proxy asks for `$alt=json;enum-encoding=int`.
Word = str | int


class FunctionCall(Struct, frozen=True, kw_only=True):
    """A tool call; `id` is sent by newer models only."""

    name: str
    args: Raw = ABSENT
    id: str | None = None


class Blob(Struct, frozen=True, kw_only=True, rename="camel"):
    """Base64 data."""

    mime_type: str = ""
    data: str = ""


class ContentPart(Struct, frozen=True, kw_only=True, rename="camel"):
    """One part; those of kinds that are not asked for (code that was run) have none of these fields."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: FunctionCall | None = None
    inline_data: Blob | None = None


class Content(Struct, frozen=True, kw_only=True):
    """One turn."""

    parts: tuple[ContentPart, ...] | None = None


class Candidate(Struct, frozen=True, kw_only=True, rename="camel"):
    """One answer. An index of zero is left out by some models, as protocol buffers do."""

    content: Content | None = None
    finish_reason: Word | None = None
    index: Count | None = None
    finish_message: Raw = ABSENT
    safety_ratings: Raw = ABSENT
    citation_metadata: Raw = ABSENT
    grounding_metadata: Raw = ABSENT
    url_context_metadata: Raw = ABSENT
    logprobs_result: Raw = ABSENT

    @property
    def parts(self) -> tuple[ContentPart, ...]:
        """The parts of the content, if any."""
        return (self.content.parts or ()) if self.content is not None else ()


class PromptFeedback(Struct, frozen=True, kw_only=True, rename="camel"):
    """What the vendor thinks of the prompt."""

    block_reason: Word | None = None


class Reply(Struct, frozen=True, kw_only=True, rename="camel"):
    """A whole answer, or one chunk of a streamed one."""

    candidates: tuple[Candidate, ...] | None = None
    prompt_feedback: Raw = ABSENT
    usage_metadata: Raw = ABSENT
    model_version: str | None = None
    response_id: str | None = None
    create_time: str | None = None
    error: Raw = ABSENT


class _ModalityCount(Struct, frozen=True, kw_only=True, rename="camel"):
    modality: Word | None = None
    token_count: Count = 0


class _UsageMetadata(Struct, frozen=True, kw_only=True, rename="camel"):
    prompt_token_count: Count
    tool_use_prompt_token_count: Count | None = None
    cached_content_token_count: Count | None = None
    candidates_token_count: Count | None = None
    thoughts_token_count: Count | None = None
    prompt_tokens_details: tuple[_ModalityCount, ...] | None = None
    cache_tokens_details: tuple[_ModalityCount, ...] | None = None
    candidates_tokens_details: tuple[_ModalityCount, ...] | None = None


class _ErrorBody(Struct, frozen=True, kw_only=True):
    code: int | str | None = None
    message: str | None = None
    status: str | None = None
    details: Raw = ABSENT


class _Violation(Struct, frozen=True, kw_only=True, rename="camel"):
    quota_id: str | None = None


class _Detail(Struct, frozen=True, kw_only=True, rename="camel"):
    reason: str | None = None
    retry_delay: str | None = None
    violations: tuple[_Violation, ...] | None = None


class _Failed(Struct, frozen=True, kw_only=True):
    error: Raw = ABSENT


_one_decoder = msgspec.json.Decoder(Reply)
_many_decoder = msgspec.json.Decoder(list[Reply])
_feedback_decoder = msgspec.json.Decoder(PromptFeedback)
_usage_decoder = msgspec.json.Decoder(_UsageMetadata)
_failed_decoder = msgspec.json.Decoder(_Failed)
_failed_many_decoder = msgspec.json.Decoder(list[_Failed])
_error_decoder = msgspec.json.Decoder(_ErrorBody)
_details_decoder = msgspec.json.Decoder(tuple[_Detail, ...])
_text_decoder = msgspec.json.Decoder(str)


def is_present(raw: Raw) -> bool:
    """Tell whether a field was there and not null."""
    return bytes(raw) not in {b"", b"null"}


def read_lenient(decoder: msgspec.json.Decoder[T], data: Raw | bytes) -> T | None:
    """Decode what may be anything; None when it does not fit."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_replies(data: bytes, target: Target) -> list[Reply]:
    """Read an answer, a chunk, or an array of chunks.

    Raises:
        ProviderError: it carries an error, or is not what the contract says.
    """
    if data.lstrip()[:1] == b"[":
        replies = read_lenient(_many_decoder, data)
    else:
        one = read_lenient(_one_decoder, data)
        replies = None if one is None else [one]
    if replies is None:
        error = find_error(data)
    else:
        error = next((reply.error for reply in replies if is_present(reply.error)), None)
    if error is not None:
        raise typed_error(_read_error(error, status=0), target)
    if replies is None:
        raise bad_response(target, "is not a Gemini answer")
    return replies


def is_blocked(reply: Reply) -> bool:
    """Tell whether the vendor refused the prompt itself; such an answer has no candidates."""
    if not is_present(reply.prompt_feedback):
        return False
    feedback = read_lenient(_feedback_decoder, reply.prompt_feedback)
    return feedback is not None and feedback.block_reason not in {
        None,
        "",
        0,
        "BLOCK_REASON_UNSPECIFIED",
        "BLOCKED_REASON_UNSPECIFIED",
    }


def call_id(call: FunctionCall, reply: Reply, position: int, request: ChatRequest) -> str:
    """Return the id of a tool call, made from its position where the vendor gives none.

    It has to be unique in the conversation, so without a response id the calls made before count.
    """
    if call.id:
        return call.id
    if reply.response_id:
        return f"call_{reply.response_id}_{position}"
    messages = request.conversation.messages
    before = sum(isinstance(part, ToolCallPart) for message in messages for part in message.parts)
    return f"call_{before + position}"


def call_arguments(call: FunctionCall, target: Target) -> str:
    """Return the arguments of a tool call as compact JSON text.

    Raises:
        BadProviderResponse: they are no object.
    """
    if not is_present(call.args):
        return "{}"
    text = msgspec.json.format(bytes(call.args), indent=-1).decode()
    if not text.startswith("{"):
        raise bad_response(target, f"calls {call.name!r} with arguments that are no object")
    return text


def created_s(reply: Reply) -> int | None:
    """Return when the answer was made, which only one of the two services of this dialect says."""
    try:
        moment = datetime.fromisoformat(reply.create_time or "")
    except ValueError:
        return None
    return int(moment.timestamp()) if moment.tzinfo is not None else None


# The numbers of the enum, by https://ai.google.dev/api/generate-content#FinishReason.
_FINISH_WORDS = (
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
    "IMAGE_SAFETY",
)
_PLAIN_ENDS: Mapping[str, FinishReason] = {"STOP": "stop", "MAX_TOKENS": "length"}
_BROKEN = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
    }
)


def read_finish(word: Word | None, target: Target) -> FinishReason | None:
    """Return why a candidate ended, or None when it has not ended yet.

    SAFETY, RECITATION, MODEL_ARMOR and the like are the vendor withholding text. LANGUAGE, OTHER and words that
    are new mean the same to a caller: the vendor cut the answer for reasons of its own. It is neither complete
    ("stop") nor too long ("length"), so "content_filter" is the only honest word.

    Raises:
        BadProviderResponse: the model produced something that is no answer.
    """
    if isinstance(word, int):
        word = _FINISH_WORDS[word] if 0 <= word < len(_FINISH_WORDS) else "OTHER"
    if word in {None, "", "FINISH_REASON_UNSPECIFIED"}:
        return None
    if word in _BROKEN:
        raise bad_response(target, f"stopped with {word}")
    return _PLAIN_ENDS.get(str(word), "content_filter")


def read_usage(raw: Raw) -> Usage | None:
    """Return the counts of an answer; None when the vendor gave none or impossible ones.

    A count of zero is left out on the wire, except that an answer without `promptTokenCount` was not counted.
    """
    counts = read_lenient(_usage_decoder, raw) if is_present(raw) else None
    if counts is None:
        return None
    thoughts = counts.thoughts_token_count or 0
    # A cached token is priced as cached, whatever its modality, so audio is what is left beside the cache.
    heard = _audio(counts.prompt_tokens_details) - _audio(counts.cache_tokens_details)
    return believed(
        Usage(
            input_tokens=counts.prompt_token_count + (counts.tool_use_prompt_token_count or 0),
            cached_input_tokens=counts.cached_content_token_count or 0,
            audio_input_tokens=max(0, heard),
            output_tokens=(counts.candidates_token_count or 0) + thoughts,
            reasoning_tokens=thoughts,
            audio_output_tokens=_audio(counts.candidates_tokens_details),
        )
    )


def _audio(details: tuple[_ModalityCount, ...] | None) -> int:
    audio: tuple[Word, Word] = ("AUDIO", 4)
    return sum(item.token_count for item in details or () if item.modality in audio)


def decode_error(reply: HttpReply, target: Target) -> ProviderError:
    """Turn a reply that is not a success into the typed error."""
    error = find_error(reply.body)
    asked_s = retry_after_s(reply.headers)
    if error is None:
        return typed_error(
            VendorFailure(status=reply.status, message=plain_text(reply), retry_after_s=asked_s), target
        )
    return typed_error(_read_error(error, status=reply.status, asked_s=asked_s), target)


def error_in_success(body: bytes, target: Target) -> ProviderError | None:
    """Return the error that a 200 answer consists of, if it does."""
    error = find_error(body)
    return None if error is None else typed_error(_read_error(error, status=0), target)


def find_error(body: bytes) -> Raw | None:
    """Return the error an answer consists of: an object, or (on streams) the first element of an array."""
    if body.lstrip()[:1] == b"[":
        many = read_lenient(_failed_many_decoder, body)
        found = next((item.error for item in many or () if is_present(item.error)), ABSENT)
    else:
        one = read_lenient(_failed_decoder, body)
        found = ABSENT if one is None else one.error
    return found if is_present(found) else None


_UNNAMED = 502
_TOO_LONG = re.compile(r"token count .{0,40}exceeds the maximum number of tokens", re.IGNORECASE)
_DELAY = re.compile(r"(\d{1,7}(?:\.\d{1,9})?)s")


def _read_error(error: Raw, *, status: int, asked_s: float | None = None) -> VendorFailure:
    """Read an error object; without a status (it came inside a 200) its own code counts."""
    body = read_lenient(_error_decoder, error)
    if body is None:
        text = read_lenient(_text_decoder, error)
        return VendorFailure(status=status or _UNNAMED, message=text or "", retry_after_s=asked_s)
    details = read_lenient(_details_decoder, body.details) if is_present(body.details) else None
    reasons: list[str] = []
    waits = [] if asked_s is None else [asked_s]
    for detail in details or ():
        if detail.reason:
            reasons.append(detail.reason)
        match = _DELAY.fullmatch(detail.retry_delay or "")
        if match is not None:
            waits.append(float(match[1]))
        # A daily quota is told from a burst only by the name of the quota that was hit:
        # https://ai.google.dev/gemini-api/docs/rate-limits
        daily = [v.quota_id for v in detail.violations or () if v.quota_id and "PerDay" in v.quota_id]
        if daily:
            reasons += [daily[0], "insufficient_quota"]
    codes = [*reasons, *([body.status] if body.status else [])]
    # INVALID_ARGUMENT is all that says it, so the text is the last resort.
    if body.status == "INVALID_ARGUMENT" and _TOO_LONG.search(body.message or ""):
        codes.append("context_length_exceeded")
    return VendorFailure(
        status=status or _http_status(body.code),
        message=body.message or "",
        codes=tuple(codes),
        retry_after_s=max(waits) if waits else None,
    )


def _http_status(code: int | str | None) -> int:
    return code if isinstance(code, int) and 400 <= code < 600 else _UNNAMED  # noqa: PLR2004


MediaKind = Literal["image", "audio", "video", "file"]
_KINDS: Mapping[str, MediaKind] = {"image": "image", "audio": "audio", "video": "video"}


def media_kind(media_type: str) -> MediaKind:
    """Return the neutral kind of a media type."""
    return _KINDS.get(media_type.partition("/")[0], "file")
