"""What is said to the maker of a request for media, by its usual names."""

import base64
from collections.abc import Mapping
from typing import Any

from llm_gate.domain.media import ImageEditRequest, ImageRequest, VideoRequest
from llm_gate.domain.provider import Target


def _payload(said: Mapping[str, Any], extra: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """Join what the codec says with the catalog's fields and the caller's own, which overwrite nothing."""
    spec = target.model.media
    payload: dict[str, Any] = {}
    for part in (said, spec.fields if spec is not None else {}, extra):
        payload |= {name: value for name, value in part.items() if value is not None and name not in payload}
    return payload


def _shared(request: ImageRequest | ImageEditRequest | VideoRequest) -> dict[str, Any]:
    is_sized = request.width is not None and request.height is not None
    return {
        "prompt": request.prompt,
        "image_size": {"width": request.width, "height": request.height} if is_sized else None,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "aspect_ratio": request.aspect_ratio,
        "resolution": request.resolution,
    }


def picture_payload(request: ImageRequest | ImageEditRequest, target: Target) -> dict[str, Any]:
    """Return the payload of a request for pictures, or for their change."""
    said = _shared(request) | {
        "num_images": request.n if request.n > 1 else None,
        "output_format": request.format,
        "quality": request.quality,
        "style": request.style,
        "background": request.background,
    }
    if isinstance(request, ImageEditRequest):
        urls = [_inline(image) for image in request.images]
        # Some of the maker's models take one picture, others a list; each leaves the other's field alone.
        said |= {"image_url": urls[0], "image_urls": urls}
        said["mask_url"] = None if request.mask is None else _inline(request.mask)
    return _payload(said, request.extra, target)


def film_payload(request: VideoRequest, target: Target) -> dict[str, Any]:
    """Return the payload of a request for a film."""
    said = _shared(request) | {
        "duration": request.duration_s,
        "image_url": None if request.image is None else _inline(request.image),
        "audio_url": None if request.audio is None else _inline(request.audio),
        "enable_prompt_expansion": request.prompt_expansion,
        "generate_audio": request.generate_audio,
    }
    return _payload(said, request.extra, target)


def _inline(given: Any) -> str:
    """Write a medium as an address that holds it."""
    return f"data:{given.type};base64,{base64.b64encode(given.data).decode()}"
