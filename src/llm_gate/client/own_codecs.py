"""The codecs of a program's own providers of media: options out as a request, answered inside the process.

What the options of a protocol cannot say is refused. A film has a ticket, by which it is asked how it stands.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from llm_gate.client.contracts import (
    DURATION_S,
    RESOLUTION,
    SIDE,
    FaceSwapOptions,
    ImageEditOptions,
    ImageGenerationOptions,
    VideoGenerationOptions,
)
from llm_gate.client.foreign import ADDRESS, decode_error
from llm_gate.dialects._failures import bad_response
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import InvalidRequest, ProviderError, ProviderTimeout
from llm_gate.domain.media import (
    FaceSwapRequest,
    Given,
    ImageEditRequest,
    ImageRequest,
    ImageResult,
    Medium,
    Picture,
    VideoRequest,
)
from llm_gate.domain.media_types import UNKNOWN, type_of
from llm_gate.domain.provider import (
    Exchanges,
    Facts,
    HttpReply,
    HttpRequest,
    JobCodec,
    JobView,
    MediaCodec,
    Send,
    Target,
    Ticket,
)

T = TypeVar("T")

OK, GONE = 200, 404
NAME, SEED = "x-own-name", "x-own-seed"
"""The headers by which a picture's name and seed travel."""

_LOOK_EVERY_S = 0.2


class Named(Struct, frozen=True, kw_only=True):
    """A film that was handed in, by its ticket."""

    id: str


class State(Struct, frozen=True, kw_only=True):
    """How far a film is, in percent, and whether it is there; or whether it was called off."""

    percent: float = 0.0
    is_done: bool = False


_named = msgspec.json.Decoder(Named)
_state = msgspec.json.Decoder(State)


def failed_own(reply: HttpReply, target: Target) -> ProviderError:
    """Turn what was written down of a failure into the typed error; who raised is not paid for it."""
    error = decode_error(reply, target)
    error.is_unbilled = not isinstance(error, ProviderTimeout)
    return error


def _post(path: str, body: object, *, is_paid: bool = False, reads_failures: bool = False) -> Send:
    request = HttpRequest(method="POST", url=f"{ADDRESS}/{path}", body=msgspec.json.encode(body))
    return Send(request=request, is_paid=is_paid, reads_failures=reads_failures)


def _text(given: Given | None) -> str | None:
    """Return a medium as base64."""
    return base64.b64encode(given.data).decode() if isinstance(given, Medium) else None


def _refuse(request: object, names: tuple[str, ...], target: Target) -> None:
    """Refuse what the options of a protocol cannot say."""
    for name in names:
        if getattr(request, name) is not None:
            raise InvalidRequest(f"{name}: {target.name} does not take it", param=name)


def _drawn(request: ImageRequest, target: Target) -> ImageGenerationOptions:
    _refuse(request, ("resolution",), target)
    return ImageGenerationOptions(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width or int(SIDE),
        height=request.height or int(SIDE),
        guidance_scale=request.guidance_scale,
        steps=request.steps,
        seed=request.seed,
        model=target.wire_model,
        extra=dict(request.extra) or None,
    )


def _edited(request: ImageEditRequest, target: Target) -> ImageEditOptions:
    _refuse(request, ("resolution",), target)
    return ImageEditOptions(
        image_base64=_text(request.images[0]) or "",
        prompt=request.prompt,
        operation=request.task,
        mask_base64=_text(request.mask),
        negative_prompt=request.negative_prompt,
        model=target.wire_model,
        width=request.width,
        height=request.height,
        guidance_scale=request.guidance_scale,
        steps=request.steps,
        seed=request.seed,
        extra=dict(request.extra) or None,
    )


def _swapped(request: FaceSwapRequest, target: Target) -> FaceSwapOptions:
    _refuse(request, ("seed",), target)
    return FaceSwapOptions(
        base_image_base64=_text(request.image) or "",
        face_image_base64=_text(request.face) or "",
        model=target.wire_model,
        target_face_index=request.face_index,
        target_gender=request.gender,
        extra=dict(request.extra) or None,
    )


class _OwnPictures:
    """Options out, the bytes of a picture in."""

    def __init__(self, path: str, options_of: Callable[[Any, Target], object]) -> None:
        self._path = path
        self._options_of = options_of

    def run(self, request: Any, target: Target, facts: Facts) -> Exchanges[ImageResult]:  # noqa: ARG002
        """Ask for the picture and read it."""
        reply = yield _post(self._path, self._options_of(request, target), is_paid=True)
        if reply is None or not reply.body:
            raise bad_response(target, "holds no picture")
        seed = reply.headers.get(SEED, "")
        medium = Medium(data=reply.body, type=type_of(reply.body) or UNKNOWN, name=reply.headers.get(NAME))
        return ImageResult(pictures=(Picture(medium=medium, seed=int(seed) if seed else None),))


class _OwnFilms:
    """Options out, a ticket in; how a film stands and what came of it is asked by the ticket."""

    look_every_s = _LOOK_EVERY_S

    def submit(self, request: VideoRequest, target: Target, facts: Facts) -> Exchanges[Ticket]:  # noqa: ARG002
        """Hand the film in."""
        _refuse(request, ("width", "height", "guidance_scale", "steps"), target)
        image = _text(request.image)
        extra = {**request.extra, **({} if image is None else {"image": image})}
        options = VideoGenerationOptions(
            prompt=request.prompt,
            duration=request.duration_s or int(DURATION_S),
            resolution=request.resolution or str(RESOLUTION),
            negative_prompt=request.negative_prompt,
            seed=request.seed,
            audio_base64=_text(request.audio),
            enable_prompt_expansion=request.prompt_expansion is not False,
            model=target.wire_model,
            extra=extra or None,
        )
        reply = yield _post("films", options, is_paid=True)
        return Ticket(id=_read(reply, _named, target).id)

    def look(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[JobView]:  # noqa: ARG002
        """Ask how it stands."""
        reply = yield _post("films/look", Named(id=ticket.id), reads_failures=True)
        if reply is not None and reply.status != OK:
            error = failed_own(reply, target)
            # Of what is not known any more nobody can say that it cost nothing.
            error.is_unbilled = error.is_unbilled and reply.status != GONE
            return JobView(status="failed", error=error)
        state = _read(reply, _state, target)
        return JobView(status="succeeded" if state.is_done else "running", progress=state.percent)

    def collect(
        self,
        ticket: Ticket,
        view: JobView,  # noqa: ARG002
        target: Target,
        facts: Facts,  # noqa: ARG002
    ) -> Exchanges[Medium]:
        """Fetch what came of it."""
        reply = yield _post("films/collect", Named(id=ticket.id))
        if reply is None or not reply.body:
            raise bad_response(target, "holds no film")
        return Medium(data=reply.body, type=type_of(reply.body) or "video/mp4")

    def cancel(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[bool]:  # noqa: ARG002
        """Call it off."""
        reply = yield _post("films/cancel", Named(id=ticket.id))
        return _read(reply, _state, target).is_done


def _read(reply: HttpReply | None, decoder: msgspec.json.Decoder[T], target: Target) -> T:
    if reply is None:
        raise bad_response(target, "is empty")
    return decoder.decode(reply.body)


MEDIA: Mapping[Operation, MediaCodec] = {
    "image": _OwnPictures("generate", _drawn),
    "image_edit": _OwnPictures("edit", _edited),
    "face_swap": _OwnPictures("swap_face", _swapped),
}
JOBS: Mapping[Operation, JobCodec] = {"video": _OwnFilms()}
