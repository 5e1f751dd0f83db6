"""What a model's entry in the catalog says of a request for media: what is missing is filled in, or it is refused.

Nothing that a caller asked for is left out in silence: it is carried out, carried out nearly (and said so), or refused.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from msgspec import Struct, structs

from llm_gate.domain.catalog import MediaSpec, Model
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import (
    ImageEditRequest,
    ImageRequest,
    MediaRequest,
    SpeechRequest,
    TranscriptionRequest,
    VideoRequest,
)
from llm_gate.domain.operations import parse_size
from llm_gate.domain.search import SearchRequest
from llm_gate.domain.search_rules import fit_search

R = TypeVar("R", bound=MediaRequest)

# The optional inputs of each kind of request, by their names in catalog and request.
_ASKED: dict[type, tuple[str, ...]] = {
    ImageRequest: (
        "aspect_ratio", "resolution", "quality", "style", "background", "format", "negative_prompt",
        "guidance_scale", "steps", "seed",
    ),
    VideoRequest: (
        "image", "audio", "duration_s", "resolution", "aspect_ratio", "negative_prompt", "seed", "guidance_scale",
        "steps", "prompt_expansion", "generate_audio",
    ),
    SpeechRequest: (
        "voice", "speakers", "format", "speed", "pitch", "volume", "emotion", "instructions", "language", "sample_rate",
    ),
    TranscriptionRequest: ("language", "prompt", "temperature", "timestamps"),
}  # fmt: skip
_ASKED[ImageEditRequest] = (*_ASKED[ImageRequest], "mask")
_FACE_SWAP = ("face_index", "gender", "format", "seed")
_BOUNDED: tuple[tuple[str, str], ...] = (
    ("aspect_ratio", "aspect_ratios"),
    ("resolution", "resolutions"),
    ("quality", "qualities"),
    ("duration_s", "durations_s"),
    ("format", "formats"),
    ("voice", "voices"),
    ("emotion", "emotions"),
    ("sample_rate", "sample_rates"),
)
# Filled in where nobody says, since price or vendor need it; what else is missing is left to the vendor.
_FILLED = frozenset({"resolution", "duration_s", "voice"})
_SHOWN = 12


class Fitted(Struct, frozen=True, kw_only=True):
    """A request as a model takes it, and in words what was done otherwise than asked."""

    request: Any
    notes: tuple[str, ...] = ()


def fit(request: MediaRequest, model: Model) -> Fitted:
    """Return a request as a model takes it; one of which the catalog knows nothing takes it as it is.

    Raises:
        InvalidRequest: the model cannot do what is asked.
    """
    if isinstance(request, SearchRequest):
        return Fitted(request=fit_search(request, model))
    spec = model.media
    if spec is None:
        return Fitted(request=request)
    request, notes = _sized(_without_auto(request, spec), model, spec)
    for name in _ASKED.get(type(request), _FACE_SWAP):
        if _is_said(getattr(request, name)) and name not in spec.takes:
            raise _refused(name, f"{model.provider}/{model.name} does not take it")
    changed: dict[str, Any] = {}
    for name, listed in _BOUNDED:
        allowed: Sequence[Any] = getattr(spec, listed)
        if not allowed or not hasattr(request, name):
            continue
        said = getattr(request, name)
        if said is None:
            is_sized = name == "resolution" and getattr(request, "width", None) is not None
            if name in _FILLED and not is_sized:
                changed[name] = allowed[0]
        elif (known := _among(said, allowed)) is None:
            raise _refused(name, f"{model.provider}/{model.name} takes {_listed(allowed)}, not {said!r}")
        else:
            changed[name] = known
    if changed:
        request = structs.replace(request, **changed)
    _check_amounts(request, model, spec)
    return Fitted(request=request, notes=notes)


def _without_auto(request: Any, spec: MediaSpec) -> Any:
    """Leave out words that only say that the model may choose."""
    words = {"quality": spec.qualities, "background": ()}
    chosen = [
        name
        for name, allowed in words.items()
        if getattr(request, name, None) == "auto" and "auto" not in allowed
    ]
    return structs.replace(request, **dict.fromkeys(chosen)) if chosen else request


def _is_said(value: object) -> bool:
    return value is not None and value != ()


def _among(said: Any, allowed: Sequence[Any]) -> Any:
    """Return the catalog's writing of a word; case does not matter."""
    if not isinstance(said, str):
        return said if said in allowed else None
    return next((word for word in allowed if word.casefold() == said.casefold()), None)


def _sized(request: Any, model: Model, spec: MediaSpec) -> tuple[Any, tuple[str, ...]]:
    """Return the request with its size as the model takes it."""
    width, height = getattr(request, "width", None), getattr(request, "height", None)
    if width is None or height is None:
        return request, ()
    written = f"{width}x{height}"
    name = f"{model.provider}/{model.name}"
    if spec.max_side is not None and max(width, height) > spec.max_side:
        raise _refused("size", f"{name} makes at most {spec.max_side} pixels a side, not {written}")
    if "size" in spec.takes:
        if spec.sizes and written not in spec.sizes:
            raise _refused("size", f"{name} takes {_listed(spec.sizes)}, not {written}")
        return request, ()
    steps = {parse_size(pixels): step for step, pixels in spec.pixels.items()}
    known, turned = steps.get((width, height)), steps.get((height, width))
    if known is not None or (turned is not None and "9:16" in spec.aspect_ratios):
        step = known or turned
        if request.resolution not in {None, step}:
            raise _refused("size", f"{written} is not {request.resolution}")
        ratio = request.aspect_ratio
        if known is None and ratio not in {None, "9:16"}:
            raise _refused("size", f"{written} is not {ratio}")
        ratio = ratio if known is not None else "9:16"
        return structs.replace(request, resolution=step, aspect_ratio=ratio, width=None, height=None), ()
    if spec.nearest_ratio and spec.aspect_ratios and request.aspect_ratio is None:
        ratio = nearest_ratio(width, height, spec.aspect_ratios)
        note = f"size {written}: {name} takes ratios only, so it was asked for {ratio}"
        return structs.replace(request, aspect_ratio=ratio, width=None, height=None), (note,)
    raise _refused("size", f"{name} takes no size")


def nearest_ratio(width: int, height: int, ratios: Sequence[str]) -> str:
    """Return the ratio ("16:9") that is nearest to a size."""

    def distance(ratio: str) -> float:
        across, _, down = ratio.partition(":")
        wanted = int(across) / int(down)
        actual = width / height
        return max(wanted, actual) / min(wanted, actual)

    return min(ratios, key=distance)


def _check_amounts(request: Any, model: Model, spec: MediaSpec) -> None:
    name = f"{model.provider}/{model.name}"
    if request.n > spec.most_pictures:
        raise _refused("n", f"{name} makes at most {spec.most_pictures} at once, not {request.n}")
    text = request.text if isinstance(request, SpeechRequest) else getattr(request, "prompt", None) or ""
    if spec.most_characters is not None and len(text) > spec.most_characters:
        where = "input" if isinstance(request, SpeechRequest) else "prompt"
        raise _refused(where, f"{name} takes at most {spec.most_characters} characters, not {len(text)}")
    if isinstance(request, ImageEditRequest):
        if len(request.images) > spec.most_inputs:
            raise _refused(
                "image", f"{name} takes at most {spec.most_inputs} pictures, not {len(request.images)}"
            )
        if spec.tasks and request.task not in spec.tasks:
            raise _refused("operation", f"{name} does {_listed(spec.tasks)}, not {request.task!r}")
    if isinstance(request, VideoRequest) and "image" in spec.needs and request.image is None:
        raise _refused("image", f"{name} needs a picture to begin with")
    if isinstance(request, TranscriptionRequest):
        lasts_s, most_s = request.duration_s, spec.most_seconds
        if most_s is not None and lasts_s is not None and lasts_s > most_s:
            raise _refused("file", f"{name} takes at most {most_s} s, not {lasts_s:.0f}")


def _listed(values: Sequence[object]) -> str:
    shown = ", ".join(str(value) for value in values[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown}, ..."


def _refused(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}", param=field, code="unsupported_input")
