"""Pictures, films, voices and transcripts: what callers ask for and what comes of it, whatever wire format it came in.

A medium is bytes with a type. What a caller gives by address is a Link until the gate has fetched it; codecs only ever
see bytes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from msgspec import Struct

from llm_gate.domain.catalog import EditTask, Operation
from llm_gate.domain.search import SearchRequest, SearchResult
from llm_gate.domain.usage import Usage

Gender = Literal["all", "female", "male"]


class Medium(Struct, frozen=True, kw_only=True):
    """A picture, recording or film. `type` is its media type, as found in the bytes where they tell."""

    data: bytes
    type: str
    name: str | None = None

    def __repr__(self) -> str:
        return f"Medium({self.type}, {len(self.data)} bytes)"


class Link(Struct, frozen=True, kw_only=True):
    """An address that a caller named, to be fetched by the guarded fetcher and by nothing else."""

    url: str


Given = Medium | Link
"""A medium as it comes from a caller."""


class ImageRequest(Struct, frozen=True, kw_only=True):
    """A wish for pictures. None means that the caller did not say; sizes in pixels.

    `quality`, `style` and `resolution` ("2K") are words of the vendors. `extra` holds vendors' own fields by their
    wire names; a target whose vendor does not know them refuses them.
    """

    operation: ClassVar[Operation] = "image"
    model: str
    prompt: str
    fallbacks: tuple[str, ...] = ()
    n: int = 1
    width: int | None = None
    height: int | None = None
    aspect_ratio: str | None = None
    resolution: str | None = None
    quality: str | None = None
    style: str | None = None
    background: str | None = None
    format: str | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    steps: int | None = None
    seed: int | None = None
    user: str | None = None
    extra: Mapping[str, Any] = {}


class ImageEditRequest(Struct, frozen=True, kw_only=True):
    """A wish to change pictures; `mask` marks where. The fields are those of ImageRequest where they bear its names."""

    operation: ClassVar[Operation] = "image_edit"
    model: str
    images: tuple[Given, ...]
    prompt: str = ""
    task: EditTask = "general_edit"
    mask: Given | None = None
    fallbacks: tuple[str, ...] = ()
    n: int = 1
    width: int | None = None
    height: int | None = None
    aspect_ratio: str | None = None
    resolution: str | None = None
    quality: str | None = None
    style: str | None = None
    background: str | None = None
    format: str | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    steps: int | None = None
    seed: int | None = None
    user: str | None = None
    extra: Mapping[str, Any] = {}


class FaceSwapRequest(Struct, frozen=True, kw_only=True):
    """A wish to put a face into a picture. `face_index` says whose place it takes: 0 is the largest face."""

    operation: ClassVar[Operation] = "face_swap"
    model: str
    image: Given
    face: Given
    fallbacks: tuple[str, ...] = ()
    face_index: int | None = None
    gender: Gender | None = None
    format: str | None = None
    seed: int | None = None
    n: int = 1
    user: str | None = None
    extra: Mapping[str, Any] = {}


class VideoRequest(Struct, frozen=True, kw_only=True):
    """A wish for a film, from words or (`image`) from a picture. `duration_s` in whole seconds, `resolution` "720p"."""

    operation: ClassVar[Operation] = "video"
    model: str
    prompt: str
    fallbacks: tuple[str, ...] = ()
    image: Given | None = None
    audio: Given | None = None
    duration_s: int | None = None
    resolution: str | None = None
    aspect_ratio: str | None = None
    width: int | None = None
    height: int | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    guidance_scale: float | None = None
    steps: int | None = None
    prompt_expansion: bool | None = None
    generate_audio: bool | None = None
    n: int = 1
    user: str | None = None
    extra: Mapping[str, Any] = {}


class Speaker(Struct, frozen=True, kw_only=True):
    """Who speaks the lines that begin with a name, and with which voice."""

    name: str
    voice: str


class SpeechRequest(Struct, frozen=True, kw_only=True):
    """A text to be read out. `format` is the caller's word (mp3, wav, ...); `speed` 1 is usual.

    `is_streamed` says that pieces are wanted as they arrive.
    """

    operation: ClassVar[Operation] = "speech"
    model: str
    text: str
    fallbacks: tuple[str, ...] = ()
    voice: str | None = None
    speakers: tuple[Speaker, ...] = ()
    format: str | None = None
    speed: float | None = None
    pitch: int | None = None
    volume: float | None = None
    emotion: str | None = None
    instructions: str | None = None
    language: str | None = None
    sample_rate: int | None = None
    is_streamed: bool = False
    n: int = 1
    user: str | None = None
    extra: Mapping[str, Any] = {}


class TranscriptionRequest(Struct, frozen=True, kw_only=True):
    """A recording to be written down. `duration_s` is its length as measured, None where the bytes do not tell.

    `timestamps` are wanted for "segment" or "word".
    """

    operation: ClassVar[Operation] = "transcription"
    model: str
    audio: Given
    fallbacks: tuple[str, ...] = ()
    duration_s: float | None = None
    language: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    timestamps: tuple[Literal["segment", "word"], ...] = ()
    n: int = 1
    user: str | None = None
    extra: Mapping[str, Any] = {}


MediaRequest = (
    ImageRequest
    | ImageEditRequest
    | FaceSwapRequest
    | VideoRequest
    | SpeechRequest
    | TranscriptionRequest
    | SearchRequest
)
"""What is answered by media, and what takes the same way: a search."""


class Picture(Struct, frozen=True, kw_only=True):
    """A picture that was made. Width and height are those of the bytes, in pixels; 0 until the gate has measured."""

    medium: Medium
    width: int = 0
    height: int = 0
    seed: int | None = None
    revised_prompt: str | None = None


class ImageResult(Struct, frozen=True, kw_only=True):
    """Pictures. `notes` say what was done otherwise than asked, in words, such as a size that became a ratio."""

    pictures: tuple[Picture, ...]
    usage: Usage | None = None
    model: str | None = None
    notes: tuple[str, ...] = ()


class SpeechResult(Struct, frozen=True, kw_only=True):
    """A voice. `duration_s` is None where the bytes do not tell."""

    audio: Medium
    usage: Usage | None = None
    model: str | None = None
    duration_s: float | None = None
    notes: tuple[str, ...] = ()


class Segment(Struct, frozen=True, kw_only=True):
    """A stretch of a transcript, in seconds from the start."""

    start_s: float
    end_s: float
    text: str
    speaker: str | None = None


class TranscriptionResult(Struct, frozen=True, kw_only=True):
    """A transcript. `duration_s` is the recording's as the vendor says."""

    text: str
    language: str | None = None
    duration_s: float | None = None
    segments: tuple[Segment, ...] = ()
    words: tuple[Segment, ...] = ()
    usage: Usage | None = None
    model: str | None = None
    notes: tuple[str, ...] = ()


class VideoResult(Struct, frozen=True, kw_only=True):
    """A film. What the bytes do not tell is None; sizes in pixels."""

    video: Medium
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    usage: Usage | None = None
    model: str | None = None
    notes: tuple[str, ...] = ()


MediaResult = ImageResult | SpeechResult | TranscriptionResult | VideoResult | SearchResult
