"""Films in the OpenAI wire format, both directions: a job is handed in, looked at, and its film fetched."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._failures import VendorFailure, bad_response, typed_error
from llm_gate.dialects._json import ABSENT, is_given, read_as, read_object
from llm_gate.dialects._multipart import Field, form_request
from llm_gate.dialects.openai_errors import error_in_success
from llm_gate.dialects.openai_speech import content_type, made_bytes
from llm_gate.domain.catalog import MediaSpec
from llm_gate.domain.errors import InvalidRequest, ProviderError
from llm_gate.domain.media import Given, Medium, VideoRequest
from llm_gate.domain.media_types import read_medium, type_of
from llm_gate.domain.operations import parse_size
from llm_gate.domain.provider import Exchanges, Facts, HttpReply, HttpRequest, JobView, Send, Target, Ticket

Word = Annotated[str, Meta(min_length=1)]
VideoStatus = Literal["queued", "in_progress", "completed", "failed"]
Standing = Literal["queued", "running", "succeeded", "failed", "cancelled"]

_STANDINGS: Mapping[str, Standing] = {
    "queued": "queued",
    "completed": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
_FILTER_MARKS = ("moderation", "sentinel", "content_policy", "content_filter", "safety")
_REFUSED, _BROKEN = 400, 502
_ALL = 100.0
_STEP = re.compile(r"([1-9][0-9]{2,3})p", re.IGNORECASE)
_RATIO = re.compile(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})")
_SECONDS = re.compile(r"[1-9][0-9]{0,3}")
_NEAR = 0.03
# Wishes that the format has no field for: they go out under these names where the catalog says that a model takes them.
_UNNAMED = ("negative_prompt", "seed", "guidance_scale", "steps", "prompt_expansion", "generate_audio")
_REFERENCE = "input_reference"
_REFERENCE_URL = f"{_REFERENCE}[image_url]"


class ImageReference(Struct, frozen=True, kw_only=True):
    """The picture that a film begins with: an http(s) link or a data URL. Files of the vendor's are not known here."""

    image_url: str | None = None
    file_id: str | None = None


class VideoBody(Struct, frozen=True, kw_only=True):
    """The body of a request for a film. `size` is "1280x720", `seconds` a whole number, mostly written as text."""

    model: Word
    prompt: Word
    seconds: str | int | None = None
    size: str | None = None
    input_reference: ImageReference | None = None
    user: str | None = None


class VideoError(Struct, frozen=True, kw_only=True):
    """Why there is no film."""

    code: str
    message: str


class VideoObject(Struct, frozen=True, kw_only=True):
    """How a film stands. `progress` is a percentage; times are seconds since 1970, `seconds` the film's length."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: VideoStatus
    progress: int
    created_at: int
    completed_at: int | None
    expires_at: int | None = None
    prompt: str | None = None
    size: str | None
    seconds: str | None
    remixed_from_video_id: str | None = None
    error: VideoError | None


class _Job(Struct, frozen=True, kw_only=True):
    """What a vendor says of a job."""

    id: str | None = None
    status: str | None = None
    progress: float | None = None
    error: Raw = ABSENT


class _Reason(Struct, frozen=True, kw_only=True):
    code: str | None = None
    message: str | None = None


_body_decoder = msgspec.json.Decoder(VideoBody)
_job_decoder = msgspec.json.Decoder(_Job)
_reason_decoder = msgspec.json.Decoder(_Reason)
_modelled = frozenset(field.encode_name for field in msgspec.structs.fields(VideoBody))


def decode_video_request(body: bytes) -> VideoRequest:
    """Read a request for a film from JSON; fields that the format does not name are handed on as the vendor's own.

    Raises:
        InvalidRequest: it is malformed.
    """
    fields = read_object(body)
    parsed = read_as(_body_decoder, body)
    extra = {
        name: msgspec.json.decode(raw)
        for name, raw in fields.items()
        if name not in _modelled and is_given(raw)
    }
    return _request(parsed, _linked(parsed.input_reference), extra)


def decode_video_form(fields: Mapping[str, list[str]], files: Mapping[str, list[Medium]]) -> VideoRequest:
    """Read a request for a film from a parsed form, whose `input_reference` is a file or says where one is.

    Raises:
        InvalidRequest: it is malformed.
    """
    for name, number in [(each, len(given)) for form in (fields, files) for each, given in form.items()]:
        if number != 1:
            raise _refused(name, "must be given once")
    if not files.keys() <= {_REFERENCE}:
        raise _refused(min(files.keys() - {_REFERENCE}), "is no file that is taken")
    said = {name: values[0] for name, values in fields.items() if values[0]}
    link = said.get(_REFERENCE) or said.get(_REFERENCE_URL)
    image = files[_REFERENCE][0] if files else None
    if image is not None and (link is not None or not image.data):
        raise _refused(_REFERENCE, "must be one file that is not empty, or one link")
    plain = {name: said[name] for name in _modelled - {_REFERENCE} if name in said}
    return _request(
        read_as(_body_decoder, msgspec.json.encode(plain)),
        image or _linked(None if link is None else ImageReference(image_url=link)),
        {name: text for name, text in said.items() if name not in {*_modelled, _REFERENCE_URL}},
    )


def _request(parsed: VideoBody, image: Given | None, extra: dict[str, Any]) -> VideoRequest:
    width, height = (None, None) if parsed.size is None else parse_size(parsed.size) or (0, 0)
    if width == 0:
        raise _refused("size", 'must be like "1280x720"')
    seconds = None if parsed.seconds is None else str(parsed.seconds)
    if seconds is not None and not _SECONDS.fullmatch(seconds):
        raise _refused("seconds", "must be a whole number of seconds")
    return VideoRequest(
        model=parsed.model,
        prompt=parsed.prompt,
        image=image,
        duration_s=None if seconds is None else int(seconds),
        width=width,
        height=height,
        user=parsed.user,
        extra=extra,
    )


def _linked(reference: ImageReference | None) -> Given | None:
    if reference is None:
        return None
    if reference.file_id is not None or reference.image_url is None:
        raise _refused(_REFERENCE, "must hold image_url, and no file_id: files are not kept here")
    try:
        return read_medium(reference.image_url)
    except ValueError as error:
        raise _refused(_REFERENCE_URL, str(error)) from None


def video_object(  # noqa: PLR0913 (the answer has as many fields)
    *,
    id: str,  # noqa: A002 (the name in the answer)
    status: VideoStatus,
    progress: float | None,
    model: str,
    created_s: float,
    completed_s: float | None,
    seconds: int | None,
    size: str | None,
    error_code: str | None,
    error_message: str | None,
) -> VideoObject:
    """Make the answer that tells how a film stands; times in seconds since 1970, `progress` a percentage."""
    is_error = error_code is not None or error_message is not None
    return VideoObject(
        id=id,
        model=model,
        status=status,
        progress=round(_ALL if status == "completed" else progress or 0),
        created_at=int(created_s),
        completed_at=None if completed_s is None else int(completed_s),
        size=size,
        seconds=None if seconds is None else str(seconds),
        error=VideoError(code=error_code or "error", message=error_message or "") if is_error else None,
    )


class OpenAIVideos:
    """The video operation of every provider that speaks this dialect."""

    look_every_s = 5.0

    def __init__(self, address: Callable[[Target, str], str]) -> None:
        self._address = address

    def submit(self, request: VideoRequest, target: Target, facts: Facts) -> Exchanges[Ticket]:
        """Hand the job in: as JSON, or as a form where a picture comes along.

        Raises:
            InvalidRequest: it asks for what this format has no word for.
            ProviderError: the answer is no job, or one that has failed already.
        """
        url, payload = self._address(target, "videos"), _payload(request, target)
        if request.image is not None:
            wanted = form_request(url, _written(payload), boundary=facts.token, headers={})
        else:
            wanted = HttpRequest(
                method="POST",
                url=url,
                headers={"content-type": "application/json"},
                body=msgspec.json.encode(payload),
            )
        reply = yield Send(request=wanted, is_paid=True)
        job = _read(reply, target)
        if (job.status or "").lower() == "failed":
            raise _failure(job, target)
        if not job.id:
            raise _no_job(job, target)
        return Ticket(id=job.id)

    def look(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[JobView]:
        """Ask how it stands.

        Raises:
            ProviderError: the answer is no job.
        """
        del facts
        reply = yield Send(request=self._get(ticket, target, ""))
        job = _read(reply, target)
        if job.status is None:
            raise _no_job(job, target)
        # A word that is not known here is one of work under way.
        status, told = _STANDINGS.get(job.status.lower(), "running"), job.progress
        return JobView(
            status=status,
            progress=told if told is not None and 0 <= told <= _ALL else None,
            error=_failure(job, target) if status == "failed" else None,
        )

    def collect(self, ticket: Ticket, view: JobView, target: Target, facts: Facts) -> Exchanges[Medium]:
        """Fetch the film.

        Raises:
            ProviderError: the answer is no film.
        """
        del view, facts
        reply = yield Send(request=self._get(ticket, target, "/content"))
        data = made_bytes(reply, target, "film")
        found, said = type_of(data) or "", content_type(reply)
        kind = next((each for each in (found, said) if each.startswith("video/")), None)
        if kind is None:
            raise bad_response(target, "holds no film")
        return Medium(data=data, type=kind)

    def cancel(self, ticket: Ticket, target: Target, facts: Facts) -> None:
        """Offer no way: the vendor deletes films that are finished, and stops none that is being made."""
        del ticket, target, facts

    def _get(self, ticket: Ticket, target: Target, rest: str) -> HttpRequest:
        url = self._address(target, f"videos/{quote(ticket.id, safe='')}{rest}")
        return HttpRequest(method="GET", url=url, body=b"")


def _payload(request: VideoRequest, target: Target) -> dict[str, Any]:
    """Return the fields; what the codec sets wins over the catalog's, and these over a caller's own."""
    spec = target.model.media
    said: dict[str, Any] = {
        "model": target.wire_model,
        "prompt": request.prompt,
        "seconds": None if request.duration_s is None else str(request.duration_s),
        "size": _size(request, target),
        _REFERENCE: request.image,
    }
    if request.n != 1:
        raise _not_carried("n", target)
    if request.audio is not None:
        raise _not_carried("audio", target)
    for name in _UNNAMED:
        value = getattr(request, name)
        if value is None:
            continue
        if spec is None or name not in spec.takes:
            raise _not_carried(name, target)
        said[name] = value
    set_here = {name: value for name, value in said.items() if value is not None}
    return {**request.extra, **(spec.fields if spec is not None else {}), **set_here}


def _written(payload: Mapping[str, Any]) -> Iterator[Field]:
    for name, value in payload.items():
        is_plain = isinstance(value, str | Medium)
        yield Field(name=name, value=value if is_plain else msgspec.json.encode(value).decode())


def _refused(name: str, message: str, code: str | None = None) -> InvalidRequest:
    return InvalidRequest(f"{name}: {message}", param=name, code=code)


def _not_carried(name: str, target: Target) -> InvalidRequest:
    return _refused(name, f"cannot be carried over to {target.name}", "unsupported_parameter")


def _size(request: VideoRequest, target: Target) -> str | None:
    """Return width and height as the vendor writes them: as asked for, or found from step and ratio.

    Raises:
        InvalidRequest: step and ratio do not tell the pixels of any size that the model makes.
    """
    if request.width is not None and request.height is not None:
        return f"{request.width}x{request.height}"
    step, ratio = request.resolution, _ratio(request.aspect_ratio)
    if step is None and ratio is None:
        return None
    spec = target.model.media or MediaSpec()
    short = _STEP.fullmatch(step or "")
    side = None if short is None else int(short[1])
    for width, height, of_step in _known_sizes(spec):
        is_of_step = step == of_step if of_step else side == min(width, height)
        if (step is None or is_of_step) and (ratio is None or abs(width / height / ratio - 1) < _NEAR):
            return f"{width}x{height}"
    if side is not None and ratio is not None and not spec.sizes:
        # Films have even sides.
        far = round(side * max(ratio, 1 / ratio) / 2) * 2
        return f"{side}x{far}" if ratio < 1 else f"{far}x{side}"
    name = "resolution" if step is not None else "aspect_ratio"
    asked = " and ".join(filter(None, (step, request.aspect_ratio)))
    raise _refused(name, f"{target.name} has no size for {asked}", "unsupported_input")


def _known_sizes(spec: MediaSpec) -> Iterator[tuple[int, int, str | None]]:
    """Yield the sizes of a model, in pixels, with the step that they stand for; a step also on its side."""
    for step, text in spec.pixels.items():
        if (size := parse_size(text)) is not None:
            yield (*size, step)
            if not spec.sizes:
                yield (size[1], size[0], step)
    for text in spec.sizes:
        if (size := parse_size(text)) is not None:
            yield (*size, None)


def _ratio(text: str | None) -> float | None:
    """Return width by height of a ratio such as "16:9"; None where none is asked for."""
    if text is None:
        return None
    found = _RATIO.fullmatch(text)
    if found is None:
        raise _refused("aspect_ratio", 'must be like "16:9"')
    return int(found[1]) / int(found[2])


def _read(reply: HttpReply | None, target: Target) -> _Job:
    try:
        return _job_decoder.decode(b"" if reply is None else reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_response(target, "is no job", status=None if reply is None else reply.status) from None


def _no_job(job: _Job, target: Target) -> ProviderError:
    return error_in_success(job.error, target) if is_given(job.error) else bad_response(target, "is no job")


def _failure(job: _Job, target: Target) -> ProviderError:
    """Return why the vendor made no film; it does not bill that."""
    try:
        reason = _reason_decoder.decode(job.error)
    except (msgspec.DecodeError, UnicodeDecodeError):
        reason = _Reason()
    code = (reason.code or "").lower()
    if any(mark in code for mark in _FILTER_MARKS):
        codes = (code, "content_filter")
        error = typed_error(VendorFailure(status=_REFUSED, message=reason.message or "", codes=codes), target)
    elif is_given(job.error):
        error = error_in_success(job.error, target)
    else:
        error = typed_error(VendorFailure(status=_BROKEN, message="no reason is given"), target)
    error.is_unbilled = True
    return error
