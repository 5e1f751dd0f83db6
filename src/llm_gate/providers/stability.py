"""Stability AI: pictures and edits, each a form (also without a file) answered with base64 inside JSON.

What takes its time is accepted with a number and asked for until it is there.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from llm_gate.dialects._failures import VendorFailure, bad_response, plain_text, retry_after_s, typed_error
from llm_gate.dialects._multipart import Field, form_request
from llm_gate.domain.errors import ContentFiltered, InvalidRequest, ProviderError, ProviderTimeout
from llm_gate.domain.media import ImageEditRequest, ImageRequest, ImageResult, Medium, Picture
from llm_gate.domain.media_types import type_of
from llm_gate.domain.provider import Exchanges, Facts, HttpReply, HttpRequest, Provider, Send, Target, Wait

_ROOT = "/v2beta/stable-image"
_FIRST_FAILURE_STATUS = 300
_LOOK_EVERY_S, _LOOKS = 2.0, 60
# Still at work; asked too often; out of order for a moment. What was paid is not given up for any of them.
_NOT_YET = frozenset({202, 429, 500, 502, 503, 504})
_FILTERED = "CONTENT_FILTERED"
# How much of the picture gives way to the prompt where nobody says; the vendor insists on a number.
_STRENGTH = 0.7
_FAMILY = "sd3"
_NUMBER = re.compile(r"[A-Za-z0-9_-]{1,200}")
_EDITS: Mapping[str, str] = {
    "inpaint": "edit/inpaint",
    "erase": "edit/erase",
    "outpaint": "edit/outpaint",
    "search_and_replace": "edit/search-and-replace",
    "search_and_recolor": "edit/search-and-recolor",
    "remove_background": "edit/remove-background",
    "replace_background": "edit/replace-background-and-relight",
}
_RELIGHT = _EDITS["replace_background"]
_WITHOUT_PROMPT = frozenset({_EDITS["erase"], _EDITS["remove_background"]})
_NO_PROMPT = "prompt: this edit knows no words, so it was left out"
_SIDES = ("left", "right", "up", "down")


class _Answer(Struct, frozen=True, kw_only=True):
    """What comes of a form: a picture in base64 under either of two names, or the number under which it is made."""

    id: Any = None
    image: Any = None
    result: Any = None
    finish_reason: Any = None
    seed: Any = None


class _Failure(Struct, frozen=True, kw_only=True):
    """An error body."""

    name: Any = None
    errors: Any = None
    message: Any = None


def decode_error(reply: HttpReply, target: Target) -> ProviderError:
    """Turn a reply that is not a success into the typed error."""
    try:
        failure = msgspec.json.decode(reply.body, type=_Failure)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        failure = _Failure()
    codes = (failure.name,) if isinstance(failure.name, str) and failure.name else ()
    if "content_moderation" in codes:
        codes = (*codes, "content_filter")
    said = failure.errors if isinstance(failure.errors, list) else [failure.message]
    return typed_error(
        VendorFailure(
            status=reply.status,
            message="; ".join(part for part in said if isinstance(part, str)) or plain_text(reply),
            codes=codes,
            retry_after_s=retry_after_s(reply.headers),
        ),
        target,
    )


class StabilityPictures:
    """Makes one picture from words, or from words and a picture."""

    def run(
        self, request: ImageRequest | ImageEditRequest, target: Target, facts: Facts
    ) -> Exchanges[ImageResult]:
        """Make it.

        Raises:
            InvalidRequest: it asks for what this vendor does not do.
            ProviderError: the answer is not what the contract says, or tells of a failure.
        """
        if request.n > 1:
            raise InvalidRequest(f"n: {target.name} makes one picture at once", param="n")
        path = _path_of(request, target)
        reply = yield Send(
            request=form_request(
                f"{target.deployment.base_url}{_ROOT}/{path}",
                _fields(request, path, target),
                boundary=facts.token,
                headers={"accept": "application/json"},
            ),
            is_paid=True,
        )
        answer = _read(reply, target)
        if answer.image is None and answer.result is None and answer.id is not None:
            answer = yield from _awaited(answer.id, target)
        notes = (_NO_PROMPT,) if path in _WITHOUT_PROMPT and request.prompt else ()
        return ImageResult(pictures=(_picture(answer, target),), notes=notes)


def _path_of(request: ImageRequest | ImageEditRequest, target: Target) -> str:
    """Return the path below the root: as the catalog says for the task, else after the task or the model's name."""
    spec = target.model.media
    paths = spec.paths if spec is not None else {}
    if isinstance(request, ImageEditRequest):
        path = paths.get(request.task) or _EDITS.get(request.task)
        if path is not None:
            return path
    name = target.wire_model.removeprefix("stable-image-")
    return f"generate/{_FAMILY if name.startswith(_FAMILY) else quote(name, safe='')}"


def _fields(request: ImageRequest | ImageEditRequest, path: str, target: Target) -> list[Field]:
    """Return the fields of the form; what the codec sets comes before a caller's own of the same name."""
    said: dict[str, Any] = {
        "prompt": request.prompt or None,
        "negative_prompt": request.negative_prompt,
        "aspect_ratio": request.aspect_ratio,
        "seed": request.seed,
        "style_preset": request.style,
        "output_format": request.format,
        "cfg_scale": request.guidance_scale,
    }
    if path == f"generate/{_FAMILY}":
        said["model"] = target.wire_model
    if isinstance(request, ImageEditRequest):
        said |= _edit_fields(request, path, target)
    spec = target.model.media
    said |= {
        name: value
        for name, value in (spec.fields if spec is not None else {}).items()
        if said.get(name) is None
    }
    said |= {name: value for name, value in request.extra.items() if said.get(name) is None}
    return list(_written(said))


def _edit_fields(request: ImageEditRequest, path: str, target: Target) -> dict[str, Any]:
    """Return what an edit says beside or instead of what every form says."""
    image = request.images[0]
    if path == _RELIGHT:
        return {"subject_image": image, "prompt": None, "background_prompt": request.prompt or None}
    if path in _WITHOUT_PROMPT:
        return {"image": image, "mask": request.mask, "prompt": None}
    if path.startswith("generate/"):
        if request.aspect_ratio is not None:
            raise InvalidRequest(
                f"size: {target.name} keeps the size of the picture that it begins with", param="size"
            )
        mode = "image-to-image" if path.endswith(f"/{_FAMILY}") else None
        return {"image": image, "mode": mode, "strength": request.extra.get("strength", _STRENGTH)}
    if path == _EDITS["outpaint"] and not any(request.extra.get(side) for side in _SIDES):
        raise InvalidRequest(
            "left: outpainting needs left, right, up or down, in pixels", param="left", code="missing_field"
        )
    for task, field in (("search_and_replace", "search_prompt"), ("search_and_recolor", "select_prompt")):
        if path == _EDITS[task] and not request.extra.get(field):
            raise InvalidRequest(
                f"{field}: it says what is to be found in the picture", param=field, code="missing_field"
            )
    return {"image": image, "mask": request.mask}


def _written(said: Mapping[str, Any]) -> Iterator[Field]:
    for name, value in said.items():
        if value is None:
            continue
        if isinstance(value, str | Medium):
            yield Field(name=name, value=value)
        else:
            yield Field(name=name, value=msgspec.json.encode(value).decode())


def _awaited(number: object, target: Target) -> Exchanges[_Answer]:
    """Ask for accepted work until it is there, for two minutes at most."""
    if not isinstance(number, str) or not _NUMBER.fullmatch(number):
        raise bad_response(target, "holds no number of the work")
    request = HttpRequest(
        method="GET",
        url=f"{target.deployment.base_url}/v2beta/results/{number}",
        body=b"",
        headers={"accept": "application/json"},
    )
    for _ in range(_LOOKS):
        yield Wait(seconds=_LOOK_EVERY_S)
        reply = yield Send(request=request, reads_failures=True)
        if reply is None or reply.status in _NOT_YET:
            continue
        if reply.status >= _FIRST_FAILURE_STATUS:
            error = decode_error(reply, target)
            error.may_repeat = False
            raise error
        return _read(reply, target)
    late = ProviderTimeout(
        f"provider {target.provider!r} was not done within {_LOOKS * _LOOK_EVERY_S:.0f} s",
        provider=target.provider,
        model=target.wire_model,
    )
    late.may_repeat = False
    raise late


def _read(reply: HttpReply | None, target: Target) -> _Answer:
    if reply is None:
        raise bad_response(target, "holds no picture")
    try:
        return msgspec.json.decode(reply.body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_response(target, "holds no picture", status=reply.status) from None


def _picture(answer: _Answer, target: Target) -> Picture:
    """Take the picture out of an answer."""
    if answer.finish_reason == _FILTERED:
        raise ContentFiltered(
            f"provider {target.provider!r} filtered what it made",
            provider=target.provider,
            model=target.wire_model,
            vendor_code=_FILTERED,
        )
    try:
        data = msgspec.convert(answer.image or answer.result, bytes)
    except msgspec.ValidationError:
        raise bad_response(target, "holds no picture") from None
    type_ = type_of(data) or ""
    if not type_.startswith("image/"):
        raise bad_response(target, "holds no picture")
    is_number = isinstance(answer.seed, int) and not isinstance(answer.seed, bool)
    return Picture(medium=Medium(data=data, type=type_), seed=answer.seed if is_number else None)


provider = Provider(
    dialect="stability",
    decode_error=decode_error,
    media={"image": StabilityPictures(), "image_edit": StabilityPictures()},
)
