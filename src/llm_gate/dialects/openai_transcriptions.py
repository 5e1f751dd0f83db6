"""Transcripts in the OpenAI wire format, both directions: a form with a recording in, text or subtitles out."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct, structs

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._json import ABSENT, is_given
from llm_gate.dialects._multipart import Field, ending_of, form_request
from llm_gate.dialects.openai_errors import error_in_success
from llm_gate.dialects.openai_usage import vendor_cost
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import Medium, Segment, TranscriptionRequest, TranscriptionResult
from llm_gate.domain.media_types import type_of
from llm_gate.domain.provider import Exchanges, Facts, HttpReply, Send, Target
from llm_gate.domain.usage import Usage, believed

FORMS = ("json", "text", "srt", "vtt", "verbose_json")
"""What a transcript can be written as."""

_TIMED = ("srt", "vtt", "verbose_json")
_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"
_MODELLED = frozenset(
    {"model", "file", "language", "prompt", "temperature", "response_format", "timestamp_granularities"}
    | {"stream", "include", "user"}
)
_DECIMAL = re.compile(r"[0-9]{1,3}(\.[0-9]{1,20})?|\.[0-9]{1,20}")
_LONGEST_S = 10.0**7


class _Span(Struct, frozen=True):
    """A segment or a word; words bear their text under either of two names."""

    start: float
    end: float
    text: str | None = None
    word: str | None = None
    speaker: str | int | None = None


class _Details(Struct, frozen=True):
    audio_tokens: int | None = None


class _Counts(Struct, frozen=True):
    """Usage under the names of OpenAI, and under those of chat as compatible vendors write it."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: _Details | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    seconds: float | None = None
    prompt_audio_seconds: float | None = None


class _Reply(Struct, frozen=True):
    text: str | None = None
    model: str | None = None
    language: str | None = None
    duration: float | None = None
    segments: list[_Span] | None = None
    words: list[_Span] | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT


# Durations come as numbers or as text that holds one.
_reply_decoder = msgspec.json.Decoder(_Reply, strict=False)
_counts_decoder = msgspec.json.Decoder(_Counts)


class OpenAITranscriptions:
    """The transcription operation of every provider that speaks this dialect.

    The catalog's `response_format` among a model's fields is sent as it is: a model that tells segments without being
    asked for times has "verbose_json" there. An empty one sends none, for vendors that do not know the field.
    """

    def __init__(self, address: Callable[[Target, str], str]) -> None:
        self._address = address

    def run(
        self, request: TranscriptionRequest, target: Target, facts: Facts
    ) -> Exchanges[TranscriptionResult]:
        """Have a recording written down.

        Raises:
            InvalidRequest: it asks for what this format has no word for.
            ProviderError: the answer is no transcript.
        """
        if request.n != 1:
            raise InvalidRequest(f"n: {target.name} writes one transcript at once", param="n")
        reply = yield Send(
            request=form_request(
                self._address(target, "audio/transcriptions"),
                _fields(request, target),
                boundary=facts.token,
                headers={},
            ),
            is_paid=True,
        )
        return _result(reply, target)


def _fields(request: TranscriptionRequest, target: Target) -> list[Field]:
    """Return the fields of the form; what the codec sets wins over the catalog's, and these over a caller's own."""
    spec = target.model.media
    fixed = spec.fields if spec is not None else {}
    said: dict[str, Any] = {
        "model": target.wire_model,
        "file": _named(request.audio),
        "language": request.language,
        "prompt": request.prompt,
        "temperature": request.temperature,
        "response_format": fixed.get("response_format", "verbose_json" if request.timestamps else "json"),
        "timestamp_granularities": list(request.timestamps) or None,
    }
    merged = {**request.extra, **fixed, **{name: value for name, value in said.items() if value is not None}}
    return [field for name, value in merged.items() for field in _written(name, value)]


def _written(name: str, value: Any) -> Iterator[Field]:
    """Write one value as the fields of a form: a list as one field for each of its items."""
    if value is None or value == "":
        return
    if isinstance(value, list):
        for item in value:
            yield from _written(f"{name}[]", item)
    elif isinstance(value, str | Medium):
        yield Field(name=name, value=value)
    else:
        yield Field(name=name, value=msgspec.json.encode(value).decode())


def _named(audio: Any) -> Any:
    """Return a recording under a name whose ending says what it is: some vendors look at nothing else."""
    if not isinstance(audio, Medium) or (audio.name is not None and "." in audio.name):
        return audio
    type_ = audio.type if audio.type.startswith(("audio/", "video/")) else type_of(audio.data) or audio.type
    return structs.replace(audio, name=f"{audio.name or 'file'}.{ending_of(type_)}", type=type_)


def _result(reply: HttpReply | None, target: Target) -> TranscriptionResult:
    status = None if reply is None else reply.status
    try:
        parsed = _reply_decoder.decode(b"" if reply is None else reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_response(target, "holds no transcript", status=status) from None
    if is_given(parsed.error):
        raise error_in_success(parsed.error, target)
    if parsed.text is None:
        raise bad_response(target, "holds no transcript", status=status)
    counts = _read_counts(parsed.usage)
    lasts = (parsed.duration, counts.seconds, counts.prompt_audio_seconds)
    return TranscriptionResult(
        text=parsed.text,
        language=parsed.language,
        duration_s=next((each for each in lasts if each is not None and 0 <= each < _LONGEST_S), None),
        segments=_spans(parsed.segments),
        words=_spans(parsed.words),
        usage=_usage(counts),
        model=parsed.model,
    )


def _spans(found: list[_Span] | None) -> tuple[Segment, ...]:
    """Return segments or words; those whose times cannot be are left out."""
    return tuple(
        Segment(
            start_s=span.start,
            end_s=span.end,
            text=span.text or span.word or "",
            speaker=None if span.speaker is None else str(span.speaker),
        )
        for span in found or ()
        if 0 <= span.start <= span.end < _LONGEST_S
    )


def _read_counts(raw: Raw) -> _Counts:
    """Return what a usage object says; nothing where it is absent or malformed."""
    try:
        return _counts_decoder.decode(raw if is_given(raw) else b"{}")
    except msgspec.DecodeError:
        return _Counts()


def _usage(counts: _Counts) -> Usage | None:
    """Bring counts to the neutral form; None when they are absent or absurd."""
    given = counts.input_tokens if counts.input_tokens is not None else counts.prompt_tokens
    made = counts.output_tokens if counts.output_tokens is not None else counts.completion_tokens
    if given is None and made is None:
        return None
    details = counts.input_token_details or counts.prompt_tokens_details or _Details()
    given, made, audio = given or 0, made or 0, details.audio_tokens or 0
    # Some count audio beside the prompt; only their total gives it away.
    if counts.total_tokens == given + audio + made:
        given += audio
    return believed(Usage(input_tokens=given, audio_input_tokens=audio, output_tokens=made))


def decode_transcription(
    fields: Mapping[str, list[str]], files: Mapping[str, list[Medium]]
) -> tuple[TranscriptionRequest, str]:
    """Read a parsed form, and the form that the transcript is wanted in: one of FORMS.

    Fields that the format does not name are handed on as the vendor's own, lists without the brackets of their names.

    Raises:
        InvalidRequest: it is malformed, or wants what is not offered (streams, speakers, log probabilities).
    """
    form = _one(fields, "response_format") or "json"
    if form not in FORMS:
        raise _not_offered("response_format", f"must be one of {', '.join(FORMS)}")
    if (_one(fields, "stream") or "false").lower() not in {"false", "0"}:
        raise _not_offered("stream", "transcripts are not streamed")
    if _many(fields, "include"):
        raise _not_offered("include", "further parts of an answer are not offered")
    model = _one(fields, "model")
    if not model:
        raise _refused("model", "required field is missing")
    request = TranscriptionRequest(
        model=model,
        audio=_file(fields, files),
        language=_one(fields, "language") or None,
        prompt=_one(fields, "prompt") or None,
        temperature=_temperature(_one(fields, "temperature")),
        timestamps=_timestamps(_many(fields, "timestamp_granularities"), form),
        user=_one(fields, "user") or None,
        extra=_extra(fields),
    )
    return request, form


def _file(fields: Mapping[str, list[str]], files: Mapping[str, list[Medium]]) -> Medium:
    unknown = next((name for name in files if name != "file"), None)
    if unknown is not None:
        raise _refused(unknown, "is no file that is taken")
    given = files.get("file", [])
    if not given:
        raise _refused("file", "must be a file" if "file" in fields else "required field is missing")
    if len(given) > 1 or not given[0].data:
        raise _refused("file", "must be one file that is not empty")
    return given[0]


def _temperature(text: str | None) -> float | None:
    if not text:
        return None
    value = float(text) if _DECIMAL.fullmatch(text) else -1.0
    if not 0 <= value <= 1:
        raise _refused("temperature", "must be a number between 0 and 1")
    return value


def _timestamps(words: list[str], form: str) -> tuple[Literal["segment", "word"], ...]:
    if not set(words) <= {"segment", "word"}:
        raise _refused("timestamp_granularities", "must be segment or word")
    if words and form not in _TIMED:
        raise _refused("timestamp_granularities", f"needs the response_format verbose_json, not {form}")
    return tuple("word" if word == "word" else "segment" for word in dict.fromkeys(words))


def _one(fields: Mapping[str, list[str]], name: str) -> str | None:
    """Return the only value of a field, None where there is none."""
    values = fields.get(name, [])
    if len(values) > 1:
        raise _refused(name, "must be given once")
    return values[0] if values else None


def _many(fields: Mapping[str, list[str]], name: str) -> list[str]:
    """Return the values of a list, whose name may bear brackets."""
    return [*fields.get(name, []), *fields.get(f"{name}[]", [])]


def _extra(fields: Mapping[str, list[str]]) -> dict[str, Any]:
    return {
        name: list(values) if name != written or len(values) > 1 else values[0]
        for written, values in fields.items()
        if (name := written.removesuffix("[]")) not in _MODELLED
    }


def _refused(name: str, message: str, *, code: str | None = None) -> InvalidRequest:
    return InvalidRequest(f"{name}: {message}", param=name, code=code)


def _not_offered(name: str, message: str) -> InvalidRequest:
    return _refused(name, message, code="unsupported_parameter")


def encode_transcription(
    result: TranscriptionResult, form: str, *, cost_usd: str | None
) -> tuple[bytes, str]:
    """Write a transcript as one of FORMS and return the body and its content type.

    The cost in dollars stands inside `usage`, where there is one; null is unknown. Nothing that nobody measured is
    written, such as log probabilities.

    Raises:
        InvalidRequest: subtitles or times are wanted of a transcript without them, of a recording of unknown length.
    """
    if form == "text":
        return f"{result.text}\n".encode(), _TEXT
    if form == "json":
        body: dict[str, Any] = {"text": result.text, **_written_usage(result, cost_usd)}
        return msgspec.json.encode(body), _JSON
    segments = _timed(result, form)
    if form == "verbose_json":
        return msgspec.json.encode(_verbose(result, segments, cost_usd)), _JSON
    return (_srt(segments) if form == "srt" else _vtt(segments)).encode(), _TEXT


def _timed(result: TranscriptionResult, form: str) -> tuple[Segment, ...]:
    """Return the segments, or one over the whole recording."""
    if result.segments:
        return result.segments
    if result.duration_s is None:
        message = f"{form} needs times, and nobody knows any of this recording; json and text need none"
        raise _not_offered("response_format", message)
    text = result.text.strip()
    return (Segment(start_s=0.0, end_s=result.duration_s, text=text),) if text else ()


def _verbose(result: TranscriptionResult, parts: tuple[Segment, ...], cost_usd: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": result.language or "",
        "duration": result.duration_s if result.duration_s is not None else parts[-1].end_s,
        "text": result.text,
        "segments": [
            {"id": index, "start": segment.start_s, "end": segment.end_s, "text": segment.text}
            | ({} if segment.speaker is None else {"speaker": segment.speaker})
            for index, segment in enumerate(parts)
        ],
    }
    if result.words:
        body["words"] = [
            {"word": word.text, "start": word.start_s, "end": word.end_s} for word in result.words
        ]
    return body | _written_usage(result, cost_usd)


def _written_usage(result: TranscriptionResult, cost_usd: str | None) -> dict[str, Any]:
    """Return the field `usage`: tokens where they are known, else the length that was written down, else nothing."""
    usage, cost = result.usage, None if cost_usd is None else Raw(cost_usd.encode())
    if usage is not None:
        counts: dict[str, Any] = {
            "type": "tokens",
            "input_tokens": usage.input_tokens,
            "input_token_details": {
                "text_tokens": max(0, usage.input_tokens - usage.audio_input_tokens),
                "audio_tokens": usage.audio_input_tokens,
            },
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
            "cost": cost,
        }
        return {"usage": counts | vendor_cost(usage)}
    if result.duration_s is not None:
        return {"usage": {"type": "duration", "seconds": result.duration_s, "cost": cost}}
    return {}


def _srt(segments: tuple[Segment, ...]) -> str:
    return "".join(
        f"{number}\n{_clock(each.start_s, ',')} --> {_clock(each.end_s, ',')}\n{_line(each.text)}\n\n"
        for number, each in enumerate(segments, start=1)
    )


def _vtt(segments: tuple[Segment, ...]) -> str:
    """Write WebVTT, in which "&" and "<" would begin markup."""
    cues = (
        f"{_clock(each.start_s, '.')} --> {_clock(each.end_s, '.')}\n"
        f"{_line(each.text).replace('&', '&amp;').replace('<', '&lt;')}\n\n"
        for each in segments
    )
    return "WEBVTT\n\n" + "".join(cues)


def _line(text: str) -> str:
    """Return a text without what would end its subtitle: blank lines, and the arrow that stands between times."""
    return " ".join(text.split()).replace("-->", "->")


def _clock(seconds: float, mark: str) -> str:
    """Write a time as HH:MM:SS and milliseconds after a mark."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}{mark}{thousandths:03}"
