"""Pictures, edits and face swaps."""

from collections.abc import Mapping
from typing import Any

from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import FaceSwapRequest, ImageEditRequest, ImageRequest, ImageResult, Picture
from llm_gate.domain.provider import Exchanges, Facts, Target
from llm_gate.providers.wavespeed.tasks import LAYOUT, SYNC, data_uri, fetched, merged, run_task

IMAGE_WITHIN_S, EDIT_WITHIN_S = 240.0, 180.0
"""How long a picture and a changed picture are waited for, in seconds."""

# The wire names of what requests call otherwise; the rest go by their own.
_WIRE: Mapping[str, str] = {"format": "output_format", "steps": "num_inference_steps"}
_ASKED = (
    "aspect_ratio", "resolution", "quality", "style", "background", "format", "negative_prompt", "guidance_scale",
    "steps", "seed",
)  # fmt: skip
_LEAST_GUIDANCE, _MOST_GUIDANCE = 1, 20
_CUT_OUT = "Remove the background."


class ImageCodec:
    """Makes pictures from words."""

    def run(self, request: ImageRequest, target: Target, _facts: Facts) -> Exchanges[ImageResult]:
        """Make them; see MediaCodec."""
        if not request.prompt.strip():
            raise InvalidRequest("the prompt is empty", param="prompt")
        payload = {"prompt": request.prompt, **_wishes(request, target), **SYNC}
        outputs = yield from run_task(
            target.wire_model, merged(payload, request, target), target, within_s=IMAGE_WITHIN_S
        )
        return (yield from _result(outputs, target, request.seed))


class ImageEditCodec:
    """Changes pictures as the prompt says. A mask is one more picture to the vendor."""

    def run(self, request: ImageEditRequest, target: Target, _facts: Facts) -> Exchanges[ImageResult]:
        """Change them; see MediaCodec."""
        payload = {
            "prompt": _prompt(request),
            **_inputs(request, target),
            **_wishes(request, target),
            **SYNC,
        }
        spec = target.model.media
        paths: Mapping[str, str] = {} if spec is None else spec.paths
        path = paths.get(request.task) or paths.get("image") or target.wire_model
        outputs = yield from run_task(path, merged(payload, request, target), target, within_s=EDIT_WITHIN_S)
        return (yield from _result(outputs, target, request.seed))


class FaceSwapCodec:
    """Puts a face into a picture."""

    def run(self, request: FaceSwapRequest, target: Target, _facts: Facts) -> Exchanges[ImageResult]:
        """Do it; see MediaCodec."""
        payload = {
            **_faces(data_uri(request.image), data_uri(request.face), target),
            "target_index": request.face_index,
            "target_gender": request.gender,
            "seed": request.seed,
            "output_format": _format(request, target),
            **SYNC,
        }
        outputs = yield from run_task(
            target.wire_model, merged(payload, request, target), target, within_s=EDIT_WITHIN_S
        )
        return (yield from _result(outputs, target, request.seed))


def _layout(target: Target) -> str | None:
    spec = target.model.media
    found = None if spec is None else spec.fields.get(LAYOUT)
    return found if isinstance(found, str) else None


def _faces(image: str, face: str, target: Target) -> dict[str, Any]:
    """Return the two pictures under the names that the model has for them."""
    match _layout(target):
        case "target_image":
            return {"target_image": image, "source_image": face}
        case "face_lists":
            # Whose face is replaced is shown by a picture as well: the one that is changed.
            return {"image": image, "source_image": [face], "target_image": [image]}
        case _:
            return {"image": image, "face_image": face}


def _inputs(request: ImageEditRequest, target: Target) -> dict[str, Any]:
    if not request.images:
        raise InvalidRequest("image: there is none", param="image")
    given = [*request.images, *([] if request.mask is None else [request.mask])]
    spec = target.model.media
    if spec is not None and len(given) > spec.most_inputs:
        raise InvalidRequest(
            f"mask: it counts as a picture, and {target.name} takes at most {spec.most_inputs}", param="mask"
        )
    pictures = [data_uri(medium) for medium in given]
    layout = _layout(target) or ("image" if len(pictures) == 1 else "images")
    return {"image": pictures[0]} if layout == "image" else {"images": pictures}


def _prompt(request: ImageEditRequest) -> str:
    prompt = request.prompt.strip()
    if request.task == "remove_background":
        return f"{_CUT_OUT} {prompt}".strip()
    if not prompt:
        raise InvalidRequest("the prompt is empty", param="prompt")
    return request.prompt


def _wishes(request: ImageRequest | ImageEditRequest, target: Target) -> dict[str, Any]:
    guidance = request.guidance_scale
    if guidance is not None and not _LEAST_GUIDANCE <= guidance <= _MOST_GUIDANCE:
        raise InvalidRequest(
            f"guidance_scale: expected {_LEAST_GUIDANCE} to {_MOST_GUIDANCE}, not {guidance}",
            param="guidance_scale",
        )
    has_size = request.width is not None and request.height is not None
    return {
        "size": f"{request.width}*{request.height}" if has_size else None,
        **{_WIRE.get(name, name): getattr(request, name) for name in _ASKED},
        "output_format": _format(request, target),
    }


def _format(request: ImageRequest | ImageEditRequest | FaceSwapRequest, target: Target) -> str | None:
    """Return the format that is asked for, else the model's usual one."""
    spec = target.model.media
    usual = spec.formats[0] if spec is not None and spec.formats else None
    return request.format or usual


def _result(outputs: tuple[str, ...], target: Target, seed: int | None) -> Exchanges[ImageResult]:
    pictures = []
    for url in outputs:
        medium = yield from fetched(url, target, kind="image", usual="image/jpeg")
        pictures.append(Picture(medium=medium, seed=seed))
    return ImageResult(pictures=tuple(pictures), model=target.wire_model)
