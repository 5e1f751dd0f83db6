"""Record types of the native wire format for media. A medium is a string: an http(s) link, a data URL, or base64."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field

from llm_gate.dialects.native_wire import (
    Body,
    Fallbacks,
    Number,
    ProviderName,
    ProviderSelector,
    Reply,
    Seed,
)
from llm_gate.domain.catalog import EditTask

Pictures = Annotated[int, Meta(ge=1, le=10)]
Side = Annotated[int, Meta(ge=1, le=65_536)]
Size = Annotated[str, Meta(pattern=r"^(auto|[1-9][0-9]{0,4}[xX*][1-9][0-9]{0,4})$")]
Ratio = Annotated[str, Meta(pattern=r"^[1-9][0-9]?:[1-9][0-9]?$")]
Word = Annotated[str, Meta(min_length=1, max_length=100)]
Prompted = Annotated[str, Meta(min_length=1, max_length=100_000)]
Seconds = Annotated[int, Meta(ge=1, le=3_600)]
Factor = Annotated[float, Meta(ge=0, le=100)]
Medium = Annotated[str, Meta(min_length=4)]
Form = Literal["url", "b64_json"]


class ImageParameter(Body, frozen=True, kw_only=True):
    """How pictures are to be made. `extra` holds fields of the vendor's own, by its names."""

    n: Pictures = 1
    size: Size | None = None
    aspect_ratio: Ratio | None = None
    resolution: Word | None = None
    quality: Word | None = None
    style: Word | None = None
    background: Word | None = None
    format: Word | None = None
    response_format: Form = "url"
    negative_prompt: str | None = None
    guidance_scale: Factor | None = None
    steps: Side | None = None
    seed: Seed | None = None
    extra: dict[str, Any] | None = None


class ImagePrompt(Body, frozen=True, kw_only=True):
    """What the pictures are to show, and how they are to be made."""

    message: Prompted
    parameter: ImageParameter | None = None


class ImagesBody(Body, frozen=True, kw_only=True):
    """The body of a request for pictures."""

    prompt: ImagePrompt
    provider: ProviderSelector | None = None
    fallbacks: Fallbacks | None = None


class EditParameter(ImageParameter, frozen=True, kw_only=True):
    """How a picture is to be changed; the prompt says the rest."""

    operation: EditTask = "general_edit"


class EditPrompt(Body, frozen=True, kw_only=True):
    """What is to be done to the pictures. Some operations need no message."""

    message: Annotated[str, Meta(max_length=100_000)] = ""
    parameter: EditParameter | None = None


class ImageEditBody(Body, frozen=True, kw_only=True):
    """The body of a request to change pictures; `mask` marks where."""

    images: Annotated[list[Medium], Meta(min_length=1, max_length=16)]
    mask: Medium | None = None
    prompt: EditPrompt | None = None
    provider: ProviderSelector | None = None
    fallbacks: Fallbacks | None = None


class FaceSwapParameter(Body, frozen=True, kw_only=True):
    """Whose face is replaced: `targetFaceIndex` 0 is the largest."""

    target_face_index: Annotated[int, Meta(ge=0, le=100)] | None = None
    target_gender: Literal["all", "female", "male"] | None = None
    format: Word | None = None
    seed: Seed | None = None
    response_format: Form = "url"
    extra: dict[str, Any] | None = None


class FaceSwapBody(Body, frozen=True, kw_only=True):
    """The body of a request to put the face of one picture into another."""

    base_image: Medium
    face_image: Medium
    parameter: FaceSwapParameter | None = None
    provider: ProviderSelector | None = None
    fallbacks: Fallbacks | None = None


class VideoParameter(Body, frozen=True, kw_only=True):
    """How a film is to be made; the model says what it takes where a field is left out."""

    duration: Seconds | None = None
    resolution: Word | None = None
    size: Size | None = None
    aspect_ratio: Ratio | None = None
    negative_prompt: str | None = None
    seed: Seed | None = None
    guidance_scale: Factor | None = None
    steps: Side | None = None
    enable_prompt_expansion: bool | None = None
    generate_audio: bool | None = None
    image: Medium | None = None
    audio: Medium | None = None
    extra: dict[str, Any] | None = None


class VideoPrompt(Body, frozen=True, kw_only=True):
    """What the film is to show, and how it is to be made."""

    message: Prompted
    parameter: VideoParameter | None = None


class VideosBody(Body, frozen=True, kw_only=True):
    """The body of a request for a film. `webhook` is told when the job has ended."""

    prompt: VideoPrompt
    provider: ProviderSelector | None = None
    fallbacks: Fallbacks | None = None
    webhook: Annotated[str, Meta(pattern=r"^https?://", max_length=2_000)] | None = None


class SpeakerBody(Body, frozen=True, kw_only=True):
    """Who speaks the lines that begin with a name, and with which voice."""

    name: Word
    voice: Word


class SpeechParameter(Body, frozen=True, kw_only=True):
    """How a text is to be read out."""

    voice: Word | None = None
    speakers: Annotated[list[SpeakerBody], Meta(max_length=8)] | None = None
    format: Word | None = None
    speed: Annotated[float, Meta(ge=0.1, le=10)] | None = None
    pitch: Annotated[int, Meta(ge=-100, le=100)] | None = None
    volume: Factor | None = None
    emotion: Word | None = None
    instructions: str | None = None
    language: Word | None = None
    sample_rate: Annotated[int, Meta(ge=1_000, le=400_000)] | None = None
    response_format: Literal["url", "b64_json", "binary"] = "url"
    extra: dict[str, Any] | None = None


class SpeechPrompt(Body, frozen=True, kw_only=True):
    """The text, and how it is to be read out."""

    message: Prompted
    parameter: SpeechParameter | None = None


class SpeechBody(Body, frozen=True, kw_only=True):
    """The body of a request for a voice."""

    prompt: SpeechPrompt
    provider: ProviderSelector | None = None
    fallbacks: Fallbacks | None = None


class TranscriptionParameter(Body, frozen=True, kw_only=True):
    """How a recording is to be written down. `prompt` tells the model what it is about."""

    language: Word | None = None
    prompt: str | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    timestamps: Annotated[list[Literal["segment", "word"]], Meta(max_length=2)] | None = None
    extra: dict[str, Any] | None = None


class TranscriptionBody(Body, frozen=True, kw_only=True):
    """The body of a request for a transcript."""

    audio: Medium
    parameter: TranscriptionParameter | None = None
    provider: ProviderSelector | None = None
    fallbacks: Fallbacks | None = None


class MediumReply(Reply, frozen=True, kw_only=True):
    """A medium that was made: a link that ends (`expiresAt`), or bytes as base64. In pixels and seconds."""

    url: str | UnsetType = UNSET
    b64_json: str | UnsetType = field(default=UNSET, name="b64_json")
    type: str
    width: int | UnsetType = UNSET
    height: int | UnsetType = UNSET
    duration: float | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    revised_prompt: str | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET


class MoneyReply(Reply, frozen=True, kw_only=True):
    """What a call costs, in US dollars."""

    total: Number
    currency: str = "USD"


class MediaReply(Reply, frozen=True, kw_only=True):
    """The answer to a request for pictures or a voice. `notes` say what was done otherwise than asked."""

    data: list[MediumReply]
    provider: ProviderName
    cost: MoneyReply | UnsetType = UNSET
    notes: list[str] | UnsetType = UNSET
    synthetic: bool | UnsetType = UNSET


class SegmentReply(Reply, frozen=True, kw_only=True):
    """A stretch of a transcript, in seconds."""

    start: float
    end: float
    text: str
    speaker: str | UnsetType = UNSET


class TranscriptionReply(Reply, frozen=True, kw_only=True):
    """A transcript."""

    text: str
    language: str | UnsetType = UNSET
    duration: float | UnsetType = UNSET
    segments: list[SegmentReply] | UnsetType = UNSET
    words: list[SegmentReply] | UnsetType = UNSET
    provider: ProviderName
    cost: MoneyReply | UnsetType = UNSET
    notes: list[str] | UnsetType = UNSET
    synthetic: bool | UnsetType = UNSET
