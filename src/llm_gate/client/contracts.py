"""What programs say of media and get back, and what their own providers of media look like.

The fields, their names and what they are where nobody says are a contract with existing programs. Where a field of
options was left out, the gateway lets the model decide: what stands there then still equals the documented number or
word, and is told from one that was given by its type.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

from llm_gate.domain.errors import GateError
from llm_gate.domain.media import Segment

ProgressCallback = Callable[[float, str], None]
"""Is told how far something is, in percent, and what is done now."""


class _LeftNumber(int):
    """A number that stands where nobody said one."""


class _LeftWord(str):
    """A word that stands where nobody said one."""

    __slots__ = ()


SIDE = _LeftNumber(1024)
"""The width and height of a picture where nobody says, in pixels."""

DURATION_S = _LeftNumber(5)
"""How long a film is where nobody says, in seconds."""

RESOLUTION = _LeftWord("720p")
"""The resolution of a film where nobody says."""


def number_said(value: int | None) -> int | None:
    """Return a number of some options as a caller gave it; None where it was left out."""
    return None if isinstance(value, _LeftNumber) else value


def word_said(value: str | None) -> str | None:
    """Return a word of some options as a caller gave it; None where it was left out."""
    return None if isinstance(value, _LeftWord) else value


@dataclass
class ImageGenerationOptions:
    """What a picture is to be; sizes in pixels. `extra` holds vendors' own fields by their wire names."""

    prompt: str
    negative_prompt: str | None = None
    width: int = SIDE
    height: int = SIDE
    guidance_scale: float | None = None
    steps: int | None = None
    seed: int | None = None
    model: str | None = None
    extra: dict[str, Any] | None = None


@dataclass
class ImageGenerationResult:
    """A picture. Width and height are those of its bytes, in pixels.

    The gateway's `metadata` say `media_type`, `cost_usd` (a Decimal, None where it is not known), `attempts`, `notes`
    (what was done otherwise than asked) and `revised_prompt`, beside what an own provider said.
    """

    image_bytes: bytes
    width: int
    height: int
    provider: str
    model: str
    seed: int | None = None
    metadata: dict[str, Any] | None = None


@dataclass
class ImageEditOptions:
    """What is to be done to a picture; sizes in pixels.

    `operation` is general_edit, inpaint, outpaint, erase, remove_background, replace_background, search_and_replace or
    search_and_recolor. The pictures are base64, data URLs or links.
    """

    image_base64: str
    prompt: str
    operation: str
    mask_base64: str | None = None
    negative_prompt: str | None = None
    model: str | None = None
    width: int | None = None
    height: int | None = None
    guidance_scale: float | None = None
    steps: int | None = None
    seed: int | None = None
    extra: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what is required, what else was said, and `extra` over all of it."""
        return _told(self, ("image_base64", "prompt", "operation"))


@dataclass
class FaceSwapOptions:
    """Whose face is to be put where. `target_face_index` 0 is the largest face; gender is all, female or male."""

    base_image_base64: str
    face_image_base64: str
    model: str | None = None
    target_face_index: int | None = None
    target_gender: str | None = None
    extra: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what is required, what else was said, and `extra` over all of it."""
        return _told(self, ("base_image_base64", "face_image_base64"))


@dataclass
class VideoGenerationOptions:
    """What a film is to be; `duration` in whole seconds, `resolution` such as "720p".

    `extra` holds vendors' own fields; its `image` (base64, a data URL or a link) is the picture a film begins with.
    """

    prompt: str
    duration: int = DURATION_S
    resolution: str = RESOLUTION
    negative_prompt: str | None = None
    seed: int | None = None
    audio_base64: str | None = None
    enable_prompt_expansion: bool = True
    model: str | None = None
    extra: dict[str, Any] | None = None


@dataclass
class VideoGenerationResult:
    """A film. `duration` in seconds, `cost` in dollars (0.0 where it is not known), sizes in pixels (0 so).

    `prediction_id` is the vendor's name for the work. The gateway's `metadata` say `job_id`, `media_type` and
    `cost_usd` (a Decimal, or None), beside what an own provider said.
    """

    video_bytes: bytes
    prompt: str
    duration: float
    model_name: str
    cost: float
    provider: str
    resolution: str
    width: int
    height: int
    metadata: dict[str, Any]
    source_video_url: str | None = None
    prediction_id: str | None = None


@dataclass
class AudioGenerationResult:
    """A voice. `text_length` in characters, `file_size` in bytes.

    `voice_id` is empty where the model's usual voice spoke. `metadata` say `media_type`, `duration_s`, `cost_usd`,
    `attempts` and `notes`.
    """

    audio_bytes: bytes
    provider: str
    model: str
    voice_id: str
    text_length: int
    file_size: int
    metadata: dict[str, Any] | None = None


@dataclass
class TranscriptionResult:
    """What was said in a recording. `duration` in seconds, None where it is not known.

    `segments` and `words` are there where they were asked for and the model tells them. `metadata` say `cost_usd`,
    `attempts` and `notes`.
    """

    text: str
    provider: str
    model: str
    language: str | None = None
    duration: float | None = None
    segments: tuple[Segment, ...] = ()
    words: tuple[Segment, ...] = ()
    metadata: dict[str, Any] | None = None


class VideoNotReady(GateError):
    """A film took longer than its caller would wait. It goes on: `LLMGate.resume_video(job_id)` waits for it again."""

    code = "video_not_ready"

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class VideoFailed(GateError):
    """A film was not made. `code` says why, `job_id` which job it was."""

    code = "video_failed"

    def __init__(self, message: str, *, job_id: str, code: str | None) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.code = code or VideoFailed.code


@runtime_checkable
class ImageGenerationProvider(Protocol):
    """A program's own maker of pictures; it may block."""

    def generate(self, options: ImageGenerationOptions) -> ImageGenerationResult:
        """Make a picture."""
        ...


@runtime_checkable
class ImageEditProvider(Protocol):
    """A program's own editor of pictures; it may block."""

    def edit(self, options: ImageEditOptions) -> ImageGenerationResult:
        """Change a picture."""
        ...


@runtime_checkable
class FaceSwapProvider(Protocol):
    """A program's own swapper of faces; it may block."""

    def swap_face(self, options: FaceSwapOptions) -> ImageGenerationResult:
        """Put a face into a picture."""
        ...


@runtime_checkable
class VideoGenerationProvider(Protocol):
    """A program's own maker of films; it works in the gateway's event loop, and must not block it."""

    async def generate_video(
        self, options: VideoGenerationOptions, progress_callback: ProgressCallback | None = None
    ) -> VideoGenerationResult:
        """Make a film, and say now and then how far it is, in percent."""
        ...


MediaProvider = ImageGenerationProvider | ImageEditProvider | FaceSwapProvider | VideoGenerationProvider
"""A program's own provider of media: one of these, or several in one."""


def _told(options: Any, required: tuple[str, ...]) -> dict[str, Any]:
    said = {each.name: getattr(options, each.name) for each in fields(options)}
    extra: Mapping[str, Any] = said.pop("extra") or {}
    return {
        **{name: value for name, value in said.items() if name in required or value is not None},
        **extra,
    }
