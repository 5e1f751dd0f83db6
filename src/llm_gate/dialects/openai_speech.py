"""Speech in the OpenAI wire format, both directions: text and a voice go in, the bytes of a recording come out."""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._json import ABSENT, is_given, read_as, read_object
from llm_gate.dialects.openai_errors import error_in_success
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import Medium, SpeechRequest, SpeechResult
from llm_gate.domain.media_types import type_of
from llm_gate.domain.provider import Exchanges, Facts, HttpReply, HttpRequest, Send, Target

Word = Annotated[str, Meta(min_length=1)]

# What the six words for a format stand for; raw samples (pcm) have no head that would tell.
_TYPES: Mapping[str, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_USUAL_TYPE = "audio/mpeg"
# Wishes that the format has no field for: they go out under these names where the catalog says that a model takes them.
_UNNAMED = ("pitch", "volume", "emotion", "language", "sample_rate")
_OWN_VOICE = "voice_"


class OwnVoice(Struct, frozen=True, kw_only=True):
    """A voice of the caller's own at the vendor."""

    id: Word


class SpeechBody(Struct, frozen=True, kw_only=True):
    """The body of a speech request. `speed` 1 is usual; `stream_format` "audio" wants pieces as they arrive."""

    model: Word
    input: Word
    voice: Word | OwnVoice | None = None
    response_format: Word | None = None
    speed: Annotated[float, Meta(ge=0.25, le=4)] | None = None
    instructions: str | None = None
    stream_format: Literal["sse", "audio"] | None = None
    user: str | None = None


class _Wrapped(Struct, frozen=True, kw_only=True):
    """A JSON answer: a recording in base64, as one compatible vendor wraps it, or an error."""

    audio_data: Any = None
    error: Raw = ABSENT


_body_decoder = msgspec.json.Decoder(SpeechBody)
_wrapped_decoder = msgspec.json.Decoder(_Wrapped)
_raw_decoder = msgspec.json.Decoder(Raw)
_modelled = frozenset(field.encode_name for field in msgspec.structs.fields(SpeechBody))


def decode_speech_request(body: bytes) -> SpeechRequest:
    """Read a speech request; fields that the format does not name are handed on as the vendor's own.

    Raises:
        InvalidRequest: it is malformed, or wants events where only bytes are answered.
    """
    fields = read_object(body)
    parsed = read_as(_body_decoder, body)
    if parsed.stream_format == "sse":
        raise InvalidRequest(
            "stream_format: events are not offered, only the bytes of the recording",
            param="stream_format",
            code="unsupported_parameter",
        )
    return SpeechRequest(
        model=parsed.model,
        text=parsed.input,
        voice=parsed.voice.id if isinstance(parsed.voice, OwnVoice) else parsed.voice,
        format=parsed.response_format,
        speed=parsed.speed,
        instructions=parsed.instructions or None,
        is_streamed=parsed.stream_format == "audio",
        user=parsed.user,
        extra={
            name: msgspec.json.decode(raw)
            for name, raw in fields.items()
            if name not in _modelled and is_given(raw)
        },
    )


class OpenAISpeech:
    """The speech operation of every provider that speaks this dialect."""

    def __init__(self, address: Callable[[Target, str], str]) -> None:
        self._address = address

    def run(self, request: SpeechRequest, target: Target, facts: Facts) -> Exchanges[SpeechResult]:
        """Have a text read out.

        Raises:
            InvalidRequest: it asks for what this format has no word for.
            ProviderError: the answer is no recording.
        """
        del facts
        reply = yield Send(request=self.encode(request, target), is_paid=True)
        data = _unwrapped(reply)
        if data is None:
            data = made_bytes(reply, target, "voice")
        asked = request.format or _default_format(target)
        return SpeechResult(audio=Medium(data=data, type=_type(reply, data, asked)))

    def encode(self, request: SpeechRequest, target: Target) -> HttpRequest:
        """Build the request."""
        return HttpRequest(
            method="POST",
            url=self._address(target, "audio/speech"),
            headers={"content-type": "application/json"},
            body=msgspec.json.encode(_payload(request, target)),
        )

    def begin(self, head: HttpReply, request: SpeechRequest, target: Target) -> str:
        """Return the media type of an answer by its headers and its first bytes.

        Raises:
            ProviderError: it is no sound: a page, an error, nothing.
        """
        data = made_bytes(head, target, "voice")
        if content_type(head) == "application/json":
            raise bad_response(target, "holds no voice that comes in pieces", status=head.status)
        return _type(head, data, request.format or _default_format(target))


def _payload(request: SpeechRequest, target: Target) -> dict[str, Any]:
    """Return the body; what the codec sets wins over the catalog's fields, and these over a caller's own."""
    spec = target.model.media
    said: dict[str, Any] = {
        "model": target.wire_model,
        "input": request.text,
        "voice": _voice(request.voice),
        "response_format": request.format,
        "speed": request.speed,
        "instructions": request.instructions,
    }
    if request.n != 1:
        raise _refused("n", target)
    if request.speakers:
        raise _refused("speakers", target)
    for name in _UNNAMED:
        value = getattr(request, name)
        if value is None:
            continue
        if spec is None or name not in spec.takes:
            raise _refused(name, target)
        said[name] = value
    set_here = {name: value for name, value in said.items() if value is not None}
    return {**request.extra, **(spec.fields if spec is not None else {}), **set_here}


def _voice(name: str | None) -> str | dict[str, str] | None:
    """Return a voice as it is written: a caller's own is an object with its id."""
    return {"id": name} if name is not None and name.startswith(_OWN_VOICE) else name


def _refused(name: str, target: Target) -> InvalidRequest:
    return InvalidRequest(
        f"{name}: cannot be carried over to {target.name}", param=name, code="unsupported_parameter"
    )


def _default_format(target: Target) -> str | None:
    """Return the format that the catalog sends where nobody asks for one."""
    spec = target.model.media
    said = spec.fields.get("response_format") if spec is not None else None
    return said if isinstance(said, str) else None


def _unwrapped(reply: HttpReply | None) -> bytes | None:
    """Return the recording inside a JSON answer; None where it is no such answer."""
    if reply is None or not reply.body[:64].lstrip().startswith(b"{"):
        return None
    try:
        wrapped = _wrapped_decoder.decode(reply.body)
        data = base64.b64decode(wrapped.audio_data, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, ValueError, binascii.Error):
        return None
    return data or None


def _type(reply: HttpReply | None, data: bytes, asked: str | None) -> str:
    """Tell the media type of a recording: the vendor's word, else what the asked format stands for."""
    said = content_type(reply)
    if said.startswith("audio/"):
        return said
    return _TYPES.get((asked or "").lower()) or type_of(data) or _USUAL_TYPE


def content_type(reply: HttpReply | None) -> str:
    """Return an answer's media type without parameters, in lower case; "" where there is none."""
    if reply is None:
        return ""
    return reply.headers.get("content-type", "").partition(";")[0].strip().lower()


def made_bytes(reply: HttpReply | None, target: Target, what: str) -> bytes:
    """Return the bytes of an answer that is a medium; `what` names it in the error.

    Raises:
        ProviderError: it is empty, a page or JSON; an error inside the JSON is raised as such.
    """
    if reply is None or not reply.body:
        raise bad_response(target, f"holds no {what}", status=None if reply is None else reply.status)
    said, head = content_type(reply), reply.body[:512].lstrip().lower()
    if _is_json(reply.body, head):
        try:
            error = _wrapped_decoder.decode(reply.body).error
        except (msgspec.DecodeError, UnicodeDecodeError):
            error = ABSENT
        if is_given(error):
            raise error_in_success(error, target)
        raise bad_response(target, f"holds no {what}", status=reply.status)
    is_page = head.startswith((b"<!doctype", b"<html", b"<?xml"))
    if is_page or said.startswith("text/") or said == "application/json" or not head:
        raise bad_response(target, f"holds no {what}", status=reply.status)
    return reply.body


def _is_json(body: bytes, head: bytes) -> bool:
    """Tell whether a body is JSON; samples may begin like it by chance, but do not go on so."""
    if not head.startswith((b"{", b"[", b'"', b"null", b"true", b"false")):
        return False
    try:
        _raw_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
