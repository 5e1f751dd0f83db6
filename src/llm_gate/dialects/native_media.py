"""Media in the native wire format: requests read from callers, answers written to them."""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from llm_gate.dialects.native import model_name, name_faults
from llm_gate.dialects.native_faults import read_whole, refusal
from llm_gate.dialects.native_media_wire import (
    EditParameter,
    EditPrompt,
    FaceSwapBody,
    FaceSwapParameter,
    ImageEditBody,
    ImageParameter,
    ImagesBody,
    MediaReply,
    MediumReply,
    MoneyReply,
    SegmentReply,
    SpeechBody,
    SpeechParameter,
    TranscriptionBody,
    TranscriptionParameter,
    TranscriptionReply,
    VideoParameter,
    VideosBody,
)
from llm_gate.dialects.native_wire import ModelName, ProviderName
from llm_gate.domain.errors import Fault
from llm_gate.domain.media import (
    FaceSwapRequest,
    Given,
    ImageEditRequest,
    ImageRequest,
    ImageResult,
    Segment,
    Speaker,
    SpeechRequest,
    SpeechResult,
    TranscriptionRequest,
    TranscriptionResult,
    VideoRequest,
)
from llm_gate.domain.media_types import read_medium
from llm_gate.domain.money import format_usd
from llm_gate.domain.operations import parse_size
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import Target

_images = msgspec.json.Decoder(ImagesBody)
_edits = msgspec.json.Decoder(ImageEditBody)
_swaps = msgspec.json.Decoder(FaceSwapBody)
_videos = msgspec.json.Decoder(VideosBody)
_speech = msgspec.json.Decoder(SpeechBody)
_transcriptions = msgspec.json.Decoder(TranscriptionBody)


class MadeMedium(Struct, frozen=True, kw_only=True):
    """Where a medium that was made can be fetched, and until when (ISO 8601)."""

    url: str
    expires_at: str


def decode_image_request(body: bytes) -> tuple[ImageRequest, str]:
    """Read a request for pictures, and whether they are wanted as "url" or "b64_json".

    Raises:
        InvalidRequest: it is malformed; `faults` holds everything that is wrong.
    """
    parsed = read_whole(body, _images, ImagesBody)
    said = parsed.prompt.parameter or ImageParameter()
    _refuse(name_faults(parsed.provider))
    request = ImageRequest(prompt=parsed.prompt.message, **_selected(parsed), **_image_fields(said))
    return request, said.response_format


def decode_image_edit(body: bytes) -> tuple[ImageEditRequest, str]:
    """Read a request to change pictures; raises and returns what `decode_image_request` does."""
    parsed = read_whole(body, _edits, ImageEditBody)
    prompt = parsed.prompt or EditPrompt()
    said = prompt.parameter or EditParameter()
    faults = name_faults(parsed.provider)
    images = tuple(_read(text, f"images[{index}]", faults) for index, text in enumerate(parsed.images))
    mask = None if parsed.mask is None else _read(parsed.mask, "mask", faults)
    _refuse(faults)
    request = ImageEditRequest(
        prompt=prompt.message,
        images=tuple(filter(None, images)),
        mask=mask,
        task=said.operation,
        **_selected(parsed),
        **_image_fields(said),
    )
    return request, said.response_format


def decode_face_swap(body: bytes) -> tuple[FaceSwapRequest, str]:
    """Read a request to swap a face; raises and returns what `decode_image_request` does."""
    parsed = read_whole(body, _swaps, FaceSwapBody)
    said = parsed.parameter or FaceSwapParameter()
    faults = name_faults(parsed.provider)
    image = _read(parsed.base_image, "baseImage", faults)
    face = _read(parsed.face_image, "faceImage", faults)
    if image is None or face is None or faults:
        raise refusal(faults)
    request = FaceSwapRequest(
        image=image,
        face=face,
        face_index=said.target_face_index,
        gender=said.target_gender,
        format=said.format,
        seed=said.seed,
        extra=said.extra or {},
        **_selected(parsed),
    )
    return request, said.response_format


def decode_video_request(body: bytes) -> tuple[VideoRequest, str | None]:
    """Read a request for a film, and the address that is told of its end; raises as `decode_image_request` does."""
    parsed = read_whole(body, _videos, VideosBody)
    said = parsed.prompt.parameter or VideoParameter()
    faults = name_faults(parsed.provider)
    image = None if said.image is None else _read(said.image, "prompt.parameter.image", faults)
    audio = None if said.audio is None else _read(said.audio, "prompt.parameter.audio", faults)
    _refuse(faults)
    width, height = _size(said.size)
    request = VideoRequest(
        prompt=parsed.prompt.message,
        image=image,
        audio=audio,
        duration_s=said.duration,
        resolution=said.resolution,
        aspect_ratio=said.aspect_ratio,
        width=width,
        height=height,
        negative_prompt=said.negative_prompt,
        seed=said.seed,
        guidance_scale=said.guidance_scale,
        steps=said.steps,
        prompt_expansion=said.enable_prompt_expansion,
        generate_audio=said.generate_audio,
        extra=said.extra or {},
        **_selected(parsed),
    )
    return request, parsed.webhook


def decode_speech_request(body: bytes) -> tuple[SpeechRequest, str]:
    """Read a request for a voice, and its form ("url", "b64_json", "binary"); raises as `decode_image_request`."""
    parsed = read_whole(body, _speech, SpeechBody)
    said = parsed.prompt.parameter or SpeechParameter()
    _refuse(name_faults(parsed.provider))
    request = SpeechRequest(
        text=parsed.prompt.message,
        voice=said.voice,
        speakers=tuple(Speaker(name=each.name, voice=each.voice) for each in said.speakers or ()),
        format=said.format,
        speed=said.speed,
        pitch=said.pitch,
        volume=said.volume,
        emotion=said.emotion,
        instructions=said.instructions,
        language=said.language,
        sample_rate=said.sample_rate,
        extra=said.extra or {},
        **_selected(parsed),
    )
    return request, said.response_format


def decode_transcription(body: bytes) -> TranscriptionRequest:
    """Read a request for a transcript; raises as `decode_image_request` does."""
    parsed = read_whole(body, _transcriptions, TranscriptionBody)
    said = parsed.parameter or TranscriptionParameter()
    faults = name_faults(parsed.provider)
    audio = _read(parsed.audio, "audio", faults)
    if audio is None or faults:
        raise refusal(faults)
    return TranscriptionRequest(
        audio=audio,
        language=said.language,
        prompt=said.prompt,
        temperature=said.temperature,
        timestamps=tuple(dict.fromkeys(said.timestamps or ())),
        extra=said.extra or {},
        **_selected(parsed),
    )


def _selected(parsed: Any) -> dict[str, Any]:
    return {"model": model_name(parsed.provider), "fallbacks": tuple(parsed.fallbacks or ())}


def _image_fields(said: ImageParameter) -> dict[str, Any]:
    width, height = _size(said.size)
    return {
        "n": said.n,
        "width": width,
        "height": height,
        "aspect_ratio": said.aspect_ratio,
        "resolution": said.resolution,
        "quality": said.quality,
        "style": said.style,
        "background": said.background,
        "format": said.format,
        "negative_prompt": said.negative_prompt,
        "guidance_scale": said.guidance_scale,
        "steps": said.steps,
        "seed": said.seed,
        "extra": said.extra or {},
    }


def _size(text: str | None) -> tuple[int | None, int | None]:
    return (None if text is None else parse_size(text)) or (None, None)


def _read(text: str, path: str, faults: list[Fault]) -> Given | None:
    try:
        return read_medium(text)
    except ValueError as error:
        faults.append(Fault(path, str(error)))
        return None


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise refusal(faults)


def encode_images(
    result: ImageResult, target: Target, cost: Cost | None, made: Sequence[MadeMedium] | None
) -> bytes:
    """Write pictures: as links to what is kept of them (`made`), or as their bytes."""
    return msgspec.json.encode(
        MediaReply(
            data=[
                MediumReply(
                    **_where(picture.medium.data, made[index] if made is not None else None),
                    type=picture.medium.type,
                    width=picture.width or UNSET,
                    height=picture.height or UNSET,
                    seed=UNSET if picture.seed is None else picture.seed,
                    revised_prompt=picture.revised_prompt or UNSET,
                )
                for index, picture in enumerate(result.pictures)
            ],
            **_told(result.notes, target, cost),
        )
    )


def encode_speech(result: SpeechResult, target: Target, cost: Cost | None, made: MadeMedium | None) -> bytes:
    """Write a voice: as a link to what is kept of it (`made`), or as its bytes."""
    return msgspec.json.encode(
        MediaReply(
            data=[
                MediumReply(
                    **_where(result.audio.data, made),
                    type=result.audio.type,
                    duration=UNSET if result.duration_s is None else round(result.duration_s, 3),
                )
            ],
            **_told(result.notes, target, cost),
        )
    )


def encode_transcription(result: TranscriptionResult, target: Target, cost: Cost | None) -> bytes:
    """Write a transcript."""
    return msgspec.json.encode(
        TranscriptionReply(
            text=result.text,
            language=result.language or UNSET,
            duration=UNSET if result.duration_s is None else result.duration_s,
            segments=_segments(result.segments),
            words=_segments(result.words),
            **_told(result.notes, target, cost),
        )
    )


def _where(data: bytes, made: MadeMedium | None) -> dict[str, Any]:
    if made is None:
        return {"b64_json": base64.b64encode(data).decode()}
    return {"url": made.url, "expires_at": made.expires_at}


def _told(notes: Sequence[str], target: Target, cost: Cost | None) -> dict[str, Any]:
    return {
        "provider": ProviderName(name=target.provider, model=ModelName(name=target.model.name)),
        "cost": money(None if cost is None else cost.nanos),
        "notes": list(notes) or UNSET,
        "synthetic": target.deployment.spec.synthetic or UNSET,
    }


def money(nanos: int | None) -> MoneyReply | UnsetType:
    """Write an amount of nano-dollars; left out where it is not known."""
    return UNSET if nanos is None else MoneyReply(total=Raw(format_usd(nanos).encode()))


def _segments(segments: Sequence[Segment]) -> list[SegmentReply] | UnsetType:
    if not segments:
        return UNSET
    return [
        SegmentReply(start=each.start_s, end=each.end_s, text=each.text, speaker=each.speaker or UNSET)
        for each in segments
    ]
