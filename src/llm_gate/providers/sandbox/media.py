"""The sandbox's codecs for media: small JSON bodies, pictures in base64, as a vendor might want them.

Every result says by its notes that it is synthetic, and which of the wishes were not carried out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Struct, structs

from llm_gate.dialects._failures import VendorFailure, bad_response, typed_error
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import (
    FaceSwapRequest,
    ImageEditRequest,
    ImageRequest,
    ImageResult,
    Medium,
    Picture,
    Segment,
    SpeechRequest,
    SpeechResult,
    TranscriptionRequest,
    TranscriptionResult,
    VideoRequest,
)
from llm_gate.domain.provider import Exchanges, Facts, HttpReply, HttpRequest, JobView, Send, Target, Ticket
from llm_gate.providers.sandbox.control import with_control
from llm_gate.providers.sandbox.drawing import PictureFormat, picture_type
from llm_gate.providers.sandbox.sound import read_wav_duration
from llm_gate.providers.sandbox.studio import (
    EditOrder,
    FilmOrder,
    FilmState,
    Heard,
    HearingOrder,
    MadePictures,
    PictureOrder,
    SpeechOrder,
    SwapOrder,
)

A = TypeVar("A", bound=Struct)

NOTE = "synthetic: made by the LLM Gate sandbox"

_LONG_SIDES = {"1K": 1024, "2K": 2048}
_SHORT_SIDES = {"480p": 480, "360p": 360, "720p": 720, "1080p": 1080}
_FILM_LASTS_S = 4
_FORMATS: Mapping[str, PictureFormat] = {"png": "png", "jpeg": "jpeg", "jpg": "jpeg", "webp": "webp"}
_BEGINNINGS = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"RIFF", "webp"))
# How far a ratio may be from a size that is given as well: rounding, no more.
_RATIO_LEEWAY = 0.02
_SEEDS = (-(2**63), 2**63)

_IMAGE_UNHEEDED = ("quality", "style", "background", "negative_prompt", "guidance_scale", "steps")
_EDIT_UNHEEDED = (*_IMAGE_UNHEEDED, "aspect_ratio", "resolution", "seed")
_SPEECH_UNHEEDED = ("speakers", "pitch", "volume", "emotion", "instructions", "language")
_HEARING_UNHEEDED = ("prompt", "temperature")
_FILM_UNHEEDED = (
    "audio",
    "negative_prompt",
    "guidance_scale",
    "steps",
    "prompt_expansion",
    "generate_audio",
)


class SandboxImages:
    """Draws pictures that show their prompt."""

    def run(self, request: ImageRequest, target: Target, facts: Facts) -> Exchanges[ImageResult]:  # noqa: ARG002
        """Ask for the pictures and read them."""
        width, height = _size(request, _LONG_SIDES, "1:1", of=max)
        order = PictureOrder(
            model=target.wire_model,
            prompt=request.prompt,
            width=width,
            height=height,
            seed=_seed(request.seed),
            n=request.n,
            format=_format(request.format) or "png",
        )
        reply = yield _paid("/images/generations", order, request.extra, target)
        return _pictures(reply, target, _notes(request, _IMAGE_UNHEEDED))


class SandboxImageEdits:
    """Returns the given picture with a banner that says what was asked."""

    def run(self, request: ImageEditRequest, target: Target, facts: Facts) -> Exchanges[ImageResult]:  # noqa: ARG002
        """Ask for the edit and read it."""
        asked = [f"{request.task.replace('_', ' ')}: {request.prompt}".rstrip(": ")]
        if request.mask is not None:
            asked.append("(where the mask says)")
        order = EditOrder(
            model=target.wire_model,
            images=tuple(_bytes(image) for image in request.images),
            asked=" ".join(asked),
            width=request.width or request.height,
            height=request.height or request.width,
            n=request.n,
            format=_format(request.format),
        )
        reply = yield _paid("/images/edits", order, request.extra, target)
        return _pictures(reply, target, _notes(request, _EDIT_UNHEEDED))


class SandboxFaceSwaps:
    """Sets the second picture into the first, small, under a banner."""

    def run(self, request: FaceSwapRequest, target: Target, facts: Facts) -> Exchanges[ImageResult]:  # noqa: ARG002
        """Ask for the swap and read it."""
        asked = ["face swap: the small picture is the face to put in"]
        if request.face_index is not None:
            asked.append(f"for face {request.face_index}")
        if request.gender is not None:
            asked.append(f"(gender: {request.gender})")
        order = SwapOrder(
            model=target.wire_model,
            image=_bytes(request.image),
            face=_bytes(request.face),
            asked=" ".join(asked),
            n=request.n,
            format=_format(request.format),
        )
        reply = yield _paid("/images/face-swaps", order, request.extra, target)
        return _pictures(reply, target, _notes(request, ("seed",)))


class SandboxSpeech:
    """Makes soft tones, with the text in the head of the WAV."""

    def run(self, request: SpeechRequest, target: Target, facts: Facts) -> Exchanges[SpeechResult]:  # noqa: ARG002
        """Ask for the tones and read them."""
        if request.format not in {None, "wav"}:
            raise InvalidRequest("format: the sandbox speaks in wav only", param="format")
        order = SpeechOrder(
            model=target.wire_model,
            input=request.text,
            voice=request.voice or "",
            speed=1.0 if request.speed is None else request.speed,
        )
        reply = yield _paid("/audio/speech", order, request.extra, target)
        data = _body(reply, target)
        lasts_s = read_wav_duration(data)
        if lasts_s is None:
            raise bad_response(target, "holds no recording")
        return SpeechResult(
            audio=Medium(data=data, type="audio/wav"),
            model=target.wire_model,
            duration_s=lasts_s,
            notes=_notes(request, _SPEECH_UNHEEDED),
        )


class SandboxTranscription:
    """Reads the text back out of the sandbox's own recordings; of any other it says that it does not listen."""

    def run(
        self,
        request: TranscriptionRequest,
        target: Target,
        facts: Facts,  # noqa: ARG002
    ) -> Exchanges[TranscriptionResult]:
        """Ask for the transcript and read it."""
        audio = cast("Medium", request.audio)
        order = HearingOrder(
            model=target.wire_model, file=audio.data, type=audio.type, duration_s=request.duration_s
        )
        reply = yield _paid("/audio/transcriptions", order, request.extra, target)
        heard = _read(reply, Heard, target, "holds no transcript")
        words = tuple(Segment(start_s=word.start, end_s=word.end, text=word.text) for word in heard.words)
        segments: tuple[Segment, ...] = ()
        if "segment" in request.timestamps and heard.duration_s is not None:
            segments = (Segment(start_s=0.0, end_s=heard.duration_s, text=heard.text),)
        return TranscriptionResult(
            text=heard.text,
            language=request.language,
            duration_s=heard.duration_s,
            segments=segments,
            words=words if "word" in request.timestamps else (),
            model=heard.model,
            notes=_notes(request, _HEARING_UNHEEDED),
        )


class SandboxVideos:
    """Makes short films as jobs. Their ids hold all that is known of them: nothing is remembered anywhere."""

    look_every_s = 0.2

    def submit(self, request: VideoRequest, target: Target, facts: Facts) -> Exchanges[Ticket]:  # noqa: ARG002
        """Hand the job in."""
        if request.n != 1:
            raise InvalidRequest("n: the sandbox makes one film at once", param="n")
        width, height = _size(request, _SHORT_SIDES, "16:9", of=min)
        order = FilmOrder(
            model=target.wire_model,
            prompt=request.prompt,
            width=width,
            height=height,
            duration_s=_FILM_LASTS_S if request.duration_s is None else request.duration_s,
            seed=_seed(request.seed),
            image=None if request.image is None else _bytes(request.image),
            unheeded=_unheeded(request, _FILM_UNHEEDED),
        )
        reply = yield _paid("/videos", order, request.extra, target)
        return Ticket(id=_read(reply, FilmState, target, "holds no job").id)

    def look(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[JobView]:  # noqa: ARG002
        """Ask how it stands."""
        reply = yield _asked("GET", f"/videos/{ticket.id}", target)
        state = _read(reply, FilmState, target, "holds no job")
        if state.status != "failed":
            return JobView(status=state.status, progress=state.progress)
        failure = VendorFailure(status=500, message=state.error or "", codes=("film_failed",))
        error = typed_error(failure, target)
        error.is_unbilled = True
        return JobView(status="failed", error=error)

    def collect(self, ticket: Ticket, view: JobView, target: Target, facts: Facts) -> Exchanges[Medium]:  # noqa: ARG002
        """Fetch the film, an animated GIF."""
        reply = yield _asked("GET", f"/videos/{ticket.id}/content", target)
        data = _body(reply, target)
        if not data.startswith(b"GIF8"):
            raise bad_response(target, "holds no film")
        return Medium(data=data, type="image/gif")

    def cancel(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[bool]:  # noqa: ARG002
        """Call it off. The sandbox always takes notice and remembers nothing: a later look tells what it would have."""
        reply = yield _asked("DELETE", f"/videos/{ticket.id}", target)
        return _read(reply, FilmState, target, "holds no job").status == "cancelled"


def _paid(path: str, order: Struct, extra: Mapping[str, Any], target: Target) -> Send:
    request = HttpRequest(
        method="POST",
        url=f"{target.deployment.base_url}{path}",
        headers={"content-type": "application/json"},
        body=msgspec.json.encode({**extra, **structs.asdict(order)}),
    )
    return Send(request=with_control(request, target), is_paid=True)


def _asked(method: str, path: str, target: Target) -> Send:
    request = HttpRequest(method=method, url=f"{target.deployment.base_url}{path}", body=b"")
    return Send(request=with_control(request, target))


def _read(reply: HttpReply | None, kind: type[A], target: Target, otherwise: str) -> A:
    """Read a JSON answer; `otherwise` completes "the answer ..." where it is none."""
    try:
        return msgspec.json.decode(_body(reply, target), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise bad_response(target, otherwise) from None


def _body(reply: HttpReply | None, target: Target) -> bytes:
    if reply is None:
        raise bad_response(target, "is not there")
    return reply.body


def _pictures(reply: HttpReply | None, target: Target, notes: tuple[str, ...]) -> ImageResult:
    made = _read(reply, MadePictures, target, "holds no picture")
    pictures = tuple(
        Picture(medium=Medium(data=one.b64_json, type=_type_of(one.b64_json, target)), seed=one.seed)
        for one in made.data
    )
    if not pictures:
        raise bad_response(target, "holds no picture")
    return ImageResult(pictures=pictures, model=made.model, notes=notes)


def _type_of(data: bytes, target: Target) -> str:
    for beginning, form in _BEGINNINGS:
        if data.startswith(beginning):
            return picture_type(_FORMATS[form])
    raise bad_response(target, "holds no picture")


def _notes(request: Any, names: Sequence[str]) -> tuple[str, ...]:
    unheeded = _unheeded(request, names)
    return (NOTE, f"the sandbox did not carry out: {', '.join(unheeded)}") if unheeded else (NOTE,)


def _unheeded(request: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of what was asked for and is not carried out, vendors' own fields included."""
    said = [name for name in names if getattr(request, name) not in {None, ()}]
    return (*said, *request.extra)


def _bytes(given: Any) -> bytes:
    return cast("Medium", given).data


def _seed(seed: int | None) -> int:
    if seed is not None and not _SEEDS[0] <= seed < _SEEDS[1]:
        raise InvalidRequest("seed: beyond all measure", param="seed")
    return seed or 0


def _format(said: str | None) -> PictureFormat | None:
    if said is None:
        return None
    known = _FORMATS.get(said.lower())
    if known is None:
        raise InvalidRequest(f"format: the sandbox makes png, jpeg and webp, not {said!r}", param="format")
    return known


def _size(request: Any, sides: Mapping[str, int], usual_ratio: str, *, of: Any) -> tuple[int, int]:
    """Return width and height; `sides` are the pixels of the side that `of` (min or max) chooses, by resolution.

    Raises:
        InvalidRequest: the size contradicts ratio or resolution, or one of them is not known.
    """
    usual = next(iter(sides))
    resolution = request.resolution or usual
    side = sides.get(resolution)
    if side is None:
        raise InvalidRequest(
            f"resolution: the sandbox knows {', '.join(sides)}, not {resolution!r}", param="resolution"
        )
    across, down = _ratio(request.aspect_ratio or usual_ratio)
    width, height = request.width or request.height, request.height or request.width
    if width is None or height is None:
        scale = side / of(across, down)
        return max(1, round(across * scale)), max(1, round(down * scale))
    # The usual resolution is filled in where nobody says: it contradicts no size.
    if resolution != usual and of(width, height) != side:
        raise InvalidRequest(f"size: {width}x{height} is not {resolution}", param="size")
    if request.aspect_ratio is not None and abs(width * down / (height * across) - 1) > _RATIO_LEEWAY:
        raise InvalidRequest(f"size: {width}x{height} is not {request.aspect_ratio}", param="size")
    return width, height


def _ratio(written: str) -> tuple[int, int]:
    across, _, down = written.partition(":")
    if not (across.isdecimal() and down.isdecimal() and 0 < int(across) <= 100 and 0 < int(down) <= 100):  # noqa: PLR2004
        raise InvalidRequest(f"aspect_ratio: not a ratio: {written!r}", param="aspect_ratio")
    return int(across), int(down)
