"""Transcripts in Gemini's wire format: a model is asked to write down what it hears.

Short recordings go along with the request; long ones are uploaded before and deleted after.
Contract: https://ai.google.dev/gemini-api/docs/audio, https://ai.google.dev/api/files
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from llm_gate.dialects._failures import VendorFailure, bad_response, typed_error
from llm_gate.dialects._gemini_schema import error_in_success, read_lenient
from llm_gate.dialects.gemini_images import (
    Made,
    inline,
    media_request,
    medium_of,
    missing,
    read_made,
)
from llm_gate.dialects.gemini_request import JSON_HEADERS
from llm_gate.dialects.gemini_videos import own_address
from llm_gate.domain.errors import InvalidRequest, ProviderError, ProviderTimeout
from llm_gate.domain.media import Medium, Segment, TranscriptionRequest, TranscriptionResult
from llm_gate.domain.provider import Exchanges, Facts, HttpReply, HttpRequest, Send, Target, Wait

_MOST_INLINE_BYTES = 14 * 1024 * 1024
"""With its base64 and the words around it, such a request stays below the vendor's 20 MB."""

_FIRST_FAILURE_STATUS = 300
_REFUSED, _LEAST_CALLER_STATUS, _LEAST_UNKNOWN_STATUS = 400, 400, 600
_LOOK_EVERY_S, _LOOKS = 2.0, 90
_FILE = re.compile(r"files/[A-Za-z0-9_-]{1,100}")
_UPLOAD_URL = "x-goog-upload-url"
_ASKED = (
    "Write down verbatim what is said in the recording, in the language that is spoken. "
    "Answer with the transcript alone, without any remark."
)
_ASKED_IN_SEGMENTS = (
    "Write down verbatim what is said in the recording, in the language that is spoken, sentence by sentence. "
    "Give for each sentence its start and its end, in seconds from the beginning of the recording."
)
_SEGMENTS: Mapping[str, Any] = {
    "type": "ARRAY",
    "items": {
        "type": "OBJECT",
        "properties": {
            "start": {"type": "NUMBER"},
            "end": {"type": "NUMBER"},
            "text": {"type": "STRING"},
        },
        "required": ["start", "end", "text"],
    },
}
_CUT = "the transcript ends early: the model reached the most that it may write at once"


class _Stretch(Struct, frozen=True, kw_only=True):
    """A sentence, in seconds."""

    start: float
    end: float
    text: str


class _Reason(Struct, frozen=True, kw_only=True):
    """Why a file cannot be used. The code is one of HTTP or of gRPC."""

    code: int | None = None
    message: str | None = None


class _File(Struct, frozen=True, kw_only=True):
    """An uploaded file; a state that is left out is the one of a file that needs no work."""

    name: str
    uri: str
    state: str = "ACTIVE"
    error: _Reason | None = None


class _Uploaded(Struct, frozen=True, kw_only=True):
    file: _File


_stretches_decoder = msgspec.json.Decoder(tuple[_Stretch, ...])
_file_decoder = msgspec.json.Decoder(_File)
_uploaded_decoder = msgspec.json.Decoder(_Uploaded)


class GeminiTranscription:
    """Writes a recording down."""

    def run(
        self, request: TranscriptionRequest, target: Target, facts: Facts
    ) -> Exchanges[TranscriptionResult]:
        """Make it.

        Raises:
            InvalidRequest: times of single words are asked for.
            ProviderError: an answer is not what the contract says, or tells of a failure.
        """
        if "word" in request.timestamps:
            raise InvalidRequest(
                f"timestamp_granularities: {target.name} gives times of segments, not of words",
                param="timestamp_granularities",
                code="unsupported_input",
            )
        audio = medium_of(request.audio, "file")
        if len(audio.data) <= _MOST_INLINE_BYTES:
            reply = yield Send(request=_question(request, inline(audio, "file"), target), is_paid=True)
            return _transcript(reply, request, target)
        file = yield from _uploaded(audio, target, facts)
        part = {"fileData": {"mimeType": audio.type, "fileUri": file.uri}}
        # Read here whatever comes, so that the file is deleted also where the model refuses it.
        reply = yield Send(request=_question(request, part, target), is_paid=True, reads_failures=True)
        yield from _deleted(file, target)
        if reply is not None and reply.status >= _FIRST_FAILURE_STATUS:
            raise target.deployment.codecs.decode_error(reply, target)
        return _transcript(reply, request, target)


def _question(request: TranscriptionRequest, part: Mapping[str, Any], target: Target) -> HttpRequest:
    """Return the request for a transcript of what a part holds."""
    is_timed = "segment" in request.timestamps
    words = [_ASKED_IN_SEGMENTS if is_timed else _ASKED]
    if request.language:
        words.append(f"The language of the recording is {request.language}.")
    if request.prompt:
        words.append(f"What is known about the recording, for names and spellings:\n{request.prompt}")
    settings: dict[str, Any] = {"responseMimeType": "application/json" if is_timed else "text/plain"}
    if is_timed:
        settings["responseSchema"] = _SEGMENTS
    if request.temperature is not None:
        settings["temperature"] = request.temperature
    return media_request(target, [{"text": "\n".join(words)}, part], settings, request.extra)


def _transcript(
    reply: HttpReply | None, request: TranscriptionRequest, target: Target
) -> TranscriptionResult:
    made = read_made(reply, target, "transcript")
    text = made.text.strip()
    if not text or made.reason == "content_filter":
        raise missing(made, "transcript", target)
    segments: tuple[Segment, ...] = ()
    if "segment" in request.timestamps:
        segments = _segments(made, target)
        text = " ".join(segment.text for segment in segments)
    return TranscriptionResult(
        text=text,
        segments=segments,
        usage=made.usage,
        model=made.model,
        notes=(_CUT,) if made.reason == "length" else (),
    )


def _segments(made: Made, target: Target) -> tuple[Segment, ...]:
    """Read the sentences; the model only guesses their times, so one that runs backwards lasts no time."""
    stretches = read_lenient(_stretches_decoder, made.text.encode())
    if stretches is None:
        raise missing(made, "transcript in segments", target)
    segments: list[Segment] = []
    for stretch in stretches:
        start_s = max(0.0, stretch.start)
        segments.append(Segment(start_s=start_s, end_s=max(start_s, stretch.end), text=stretch.text.strip()))
    return tuple(segments)


def _uploaded(audio: Medium, target: Target, facts: Facts) -> Exchanges[_File]:
    """Upload a recording and wait until the vendor has read it in."""
    started = yield Send(request=_start(audio, target, facts))
    if started is None:
        raise bad_response(target, "holds no address for an upload")
    address = own_address(started.headers.get(_UPLOAD_URL, ""), target)
    if address is None:
        raise bad_response(target, "holds no address for an upload at its own place", status=started.status)
    reply = yield Send(
        request=HttpRequest(
            method="POST",
            url=address,
            body=audio.data,
            headers={
                "content-type": audio.type,
                "x-goog-upload-offset": "0",
                "x-goog-upload-command": "upload, finalize",
            },
        )
    )
    answer = _read(_uploaded_decoder, reply, target)
    file = _checked(answer.file, target)
    for _ in range(_LOOKS):
        if file.state == "ACTIVE":
            return file
        if file.state == "FAILED":
            yield from _deleted(file, target)
            raise _failure(file, target)
        yield Wait(seconds=_LOOK_EVERY_S)
        reply = yield Send(request=_of_file(file, target, "GET"))
        file = _checked(_read(_file_decoder, reply, target), target)
    yield from _deleted(file, target)
    raise ProviderTimeout(
        f"provider {target.provider!r} did not read the recording in within {_LOOKS * _LOOK_EVERY_S:.0f} s",
        provider=target.provider,
        model=target.wire_model,
    )


def _start(audio: Medium, target: Target, facts: Facts) -> HttpRequest:
    """Return the request that opens an upload; its address has "upload" before the version."""
    base = urlsplit(target.deployment.base_url)
    before, slash, version = base.path.rpartition("/")
    return HttpRequest(
        method="POST",
        url=f"{base.scheme}://{base.netloc}{before}/upload{slash}{version}/files",
        body=msgspec.json.encode({"file": {"display_name": facts.token}}),
        headers={
            **JSON_HEADERS,
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": str(len(audio.data)),
            "x-goog-upload-header-content-type": audio.type,
        },
    )


def _of_file(file: _File, target: Target, method: str) -> HttpRequest:
    return HttpRequest(method=method, url=f"{target.deployment.base_url}/{file.name}", body=b"")


def _read(decoder: msgspec.json.Decoder[Any], reply: HttpReply | None, target: Target) -> Any:
    """Read what an answer says of a file.

    Raises:
        ProviderError: it is no such answer, or consists of an error.
    """
    body = b"" if reply is None else reply.body
    read = read_lenient(decoder, body)
    if read is None:
        error = error_in_success(body, target)
        raise error or bad_response(target, "is no file", status=None if reply is None else reply.status)
    return read


def _checked(file: _File, target: Target) -> _File:
    """Refuse a file whose name would lead elsewhere, or that has no address."""
    if not _FILE.fullmatch(file.name) or not file.uri:
        raise bad_response(target, "is no file")
    return file


def _failure(file: _File, target: Target) -> ProviderError:
    """Return why the vendor could not read the recording in; nothing was asked of a model yet."""
    reason = file.error or _Reason()
    code = reason.code or _REFUSED
    status = code if _LEAST_CALLER_STATUS <= code < _LEAST_UNKNOWN_STATUS else _REFUSED
    message = reason.message or "the recording could not be read"
    error = typed_error(VendorFailure(status=status, message=message), target)
    error.is_unbilled = True
    return error


def _deleted(file: _File, target: Target) -> Exchanges[None]:
    """Delete a file that is no longer needed; where that fails, the vendor does it after two days."""
    try:
        yield Send(request=_of_file(file, target, "DELETE"), reads_failures=True)
    except ProviderError:
        return
