"""What callers of the library ask of media, as the requests that are made of it.

The options of each kind are one record: it is what a type checker reads, and what a call is checked against.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

import msgspec
from msgspec import Meta

from llm_gate.client.contracts import (
    FaceSwapOptions,
    ImageEditOptions,
    ImageGenerationOptions,
    VideoGenerationOptions,
    number_said,
    word_said,
)
from llm_gate.dialects.native_media_wire import Factor, Ratio, Seconds, Side, Size, Word
from llm_gate.dialects.native_wire import Seed
from llm_gate.domain.catalog import EditTask
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import Gender, Given, Medium, Speaker
from llm_gate.domain.media_types import UNKNOWN, read_medium, type_of
from llm_gate.domain.operations import parse_size

GivenMedium = bytes | bytearray | memoryview | os.PathLike[str] | str
"""A medium as a program has it: its bytes, the path of a file, or as text a link, a data URL or base64.

A text is never taken for a path: it may come from somebody who should not read files here.
"""


class MediaChoice(TypedDict, total=False):
    """Who is asked.

    `model` is `provider/model`, a provider's name, a model's name, or an alias; without it the default for what is to
    be made is asked. `fallbacks` are names like `model`, tried in their order where that does not answer. `timeout_s`
    is how long all of it may take, in seconds. `extra` holds vendors' own fields by their wire names.
    """

    model: str
    fallbacks: Sequence[str]
    timeout_s: float | None
    extra: Mapping[str, Any] | None


class ImageWish(MediaChoice, total=False):
    """What pictures are to be like; `size` is "1024x1024", in pixels, `resolution` a word of the vendor's ("2K")."""

    size: Size | None
    aspect_ratio: Ratio | None
    resolution: Word | None
    quality: Word | None
    style: Word | None
    background: Word | None
    format: Word | None
    negative_prompt: str | None
    guidance_scale: Factor | None
    steps: Side | None
    seed: Seed | None


class ImageEditWish(ImageWish, total=False):
    """What is to be done to pictures, and what they are to be like."""

    operation: EditTask


class FaceSwapWish(MediaChoice, total=False):
    """Whose face is replaced: `target_face_index` 0 is the largest."""

    target_face_index: Annotated[int, Meta(ge=0, le=100)] | None
    target_gender: Gender | None
    format: Word | None
    seed: Seed | None


class VideoWish(MediaChoice, total=False):
    """What a film is to be like; `duration` in whole seconds. The model says what is left out."""

    duration: Seconds | None
    resolution: Word | None
    size: Size | None
    aspect_ratio: Ratio | None
    negative_prompt: str | None
    seed: Seed | None
    guidance_scale: Factor | None
    steps: Side | None
    enable_prompt_expansion: bool | None
    generate_audio: bool | None


class SpeechWish(MediaChoice, total=False):
    """How a text is to be read out. `speakers` are voices by the names that lines begin with."""

    voice: Word | None
    speakers: Mapping[str, str] | None
    format: Word | None
    speed: Annotated[float, Meta(ge=0.1, le=10)] | None
    pitch: Annotated[int, Meta(ge=-100, le=100)] | None
    volume: Factor | None
    emotion: Word | None
    instructions: str | None
    language: Word | None
    sample_rate: Annotated[int, Meta(ge=1_000, le=400_000)] | None


class TranscriptionWish(MediaChoice, total=False):
    """How a recording is to be written down. `prompt` tells the model what it is about."""

    language: Word | None
    prompt: str | None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None
    timestamps: Sequence[Literal["segment", "word"]] | None


_RENAMED: Mapping[str, str] = {
    "operation": "task",
    "duration": "duration_s",
    "enable_prompt_expansion": "prompt_expansion",
    "target_face_index": "face_index",
    "target_gender": "gender",
}


def checked(said: Mapping[str, Any], wish: Any) -> dict[str, Any]:
    """Return what was said, found to be as its record has it, without what is None.

    Raises:
        TypeError: there is a name that the record does not have.
        InvalidRequest: a value is not what it should be.
    """
    known = get_type_hints(wish)
    unknown = sorted(said.keys() - known.keys())
    if unknown:
        raise TypeError(f"unexpected option {unknown[0]!r}: there are {', '.join(sorted(known))}")
    try:
        found: dict[str, Any] = msgspec.convert(dict(said), wish)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$.")
        name = place.rstrip("`")
        raise InvalidRequest(f"{name}: {text}" if name else text, param=name or None) from None
    _check_extra(found.get("extra"))
    return {name: value for name, value in found.items() if value is not None}


def _check_extra(extra: Mapping[str, Any] | None) -> None:
    try:
        msgspec.json.encode(extra)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"extra: no JSON: {error}", param="extra") from None


def fields_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as the fields of a request; what frames the call (fallbacks, timeout) is left out."""
    fields = {
        _RENAMED.get(name, name): value
        for name, value in said.items()
        if name not in {"fallbacks", "timeout_s"}
    }
    size = fields.pop("size", None)
    if size is not None:
        fields["width"], fields["height"] = parse_size(size) or (None, None)
    if "speakers" in fields:
        fields["speakers"] = tuple(
            Speaker(name=name, voice=voice) for name, voice in fields["speakers"].items()
        )
    if "timestamps" in fields:
        fields["timestamps"] = tuple(dict.fromkeys(fields["timestamps"]))
    return {"model": "", **fields}


def text_said(text: object, name: str, *, may_be_empty: bool = False) -> str:
    """Return a text.

    Raises:
        TypeError: it is no text.
        InvalidRequest: it is empty, and must not be.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name}: must be a text")
    if not may_be_empty and not text.strip():
        raise InvalidRequest(f"{name}: must not be empty", param=name)
    return text


async def medium_of(given: object, name: str) -> Given:
    """Return a medium as the gateway takes it; a file is read.

    Raises:
        OSError: the file cannot be read.
        TypeError: it is nothing that holds a medium.
        InvalidRequest: it is empty, or a text that is no medium.
    """
    if isinstance(given, str):
        try:
            return read_medium(given)
        except ValueError as error:
            raise InvalidRequest(f"{name}: {error} (a file is given as a Path)", param=name) from None
    file: str | None = None
    if isinstance(given, os.PathLike):
        path = Path(given)
        data, file = await asyncio.to_thread(path.read_bytes), path.name
    elif isinstance(given, bytes | bytearray | memoryview):
        data = bytes(given)
    else:
        raise TypeError(f"{name}: must be bytes, a Path or a text, not {type(given).__name__}")
    if not data:
        raise InvalidRequest(f"{name}: must not be empty", param=name)
    return Medium(data=data, type=type_of(data) or UNKNOWN, name=file)


def image_said(options: ImageGenerationOptions) -> dict[str, Any]:
    """Return what the options of a picture say beside the prompt."""
    width, height = number_said(options.width), number_said(options.height)
    said = _shared(options)
    if width is not None or height is not None:
        # Whoever says one side means the documented other.
        said["size"] = f"{options.width}x{options.height}"
    return said


def edit_said(options: ImageEditOptions) -> dict[str, Any]:
    """Return what the options of an edit say beside the pictures and the prompt.

    Raises:
        InvalidRequest: there is a width without a height.
    """
    said = {**_shared(options), "operation": options.operation}
    if (options.width is None) != (options.height is None):
        raise InvalidRequest("width: needs a height, and the other way round", param="width")
    if options.width is not None:
        said["size"] = f"{options.width}x{options.height}"
    return said


def swap_said(options: FaceSwapOptions) -> dict[str, Any]:
    """Return what the options of a face swap say beside the pictures."""
    return {
        "model": options.model or "",
        "target_face_index": options.target_face_index,
        "target_gender": options.target_gender,
        "extra": options.extra,
    }


def video_said(options: VideoGenerationOptions) -> tuple[dict[str, Any], object]:
    """Return what the options of a film say beside the prompt and the sound, and the picture it begins with."""
    extra = dict(options.extra or {})
    image = extra.pop("image", None)
    said = {
        "model": options.model or "",
        "duration": number_said(options.duration),
        "resolution": word_said(options.resolution),
        "negative_prompt": options.negative_prompt,
        "seed": options.seed,
        # On is what vendors do where nobody says; not all of them can be told.
        "enable_prompt_expansion": None if options.enable_prompt_expansion else False,
        "extra": extra,
    }
    return said, image


def _shared(options: ImageGenerationOptions | ImageEditOptions) -> dict[str, Any]:
    return {
        "model": options.model or "",
        "negative_prompt": options.negative_prompt,
        "guidance_scale": options.guidance_scale,
        "steps": options.steps,
        "seed": options.seed,
        "extra": options.extra,
    }
