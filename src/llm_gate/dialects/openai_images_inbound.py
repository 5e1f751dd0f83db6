"""Pictures in the OpenAI wire format, inbound: requests read from callers, answers written to them."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._json import is_given, read_as, read_object
from llm_gate.dialects.openai_usage import vendor_cost
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import Given, ImageEditRequest, ImageRequest, ImageResult, Medium, Picture
from llm_gate.domain.media_types import read_medium, type_of
from llm_gate.domain.operations import parse_size
from llm_gate.domain.usage import Usage

MOST_INPUTS = 16
"""So many pictures may be given to be changed."""

Word = Annotated[str, Meta(min_length=1)]
_FILES = ("image", "image[]", "mask")
_AUTO = "auto"
# The words for formats that an answer may hold.
_FORMATS: Mapping[str, str] = {f"image/{word}": word for word in ("png", "jpeg", "webp", "gif")}


class ImageBody(Struct, frozen=True, kw_only=True):
    """The body of a request for pictures; further fields of the vendor's may be sent along.

    `size` is "1024x1024" or "auto". Pictures are not streamed: `stream` may only be false, `partial_images` only 0.
    The wishes from `aspect_ratio` to `guidance_scale` are for models that know them.
    """

    model: Word
    prompt: Word
    n: Annotated[int, Meta(ge=1, le=10)] | None = None
    size: str | None = None
    quality: Word | None = None
    style: Word | None = None
    background: Word | None = None
    output_format: Word | None = None
    response_format: Literal["url", "b64_json"] | None = None
    aspect_ratio: Word | None = None
    resolution: Word | None = None
    negative_prompt: str | None = None
    seed: Annotated[int, Meta(ge=-1, le=2**53)] | None = None
    steps: Annotated[int, Meta(ge=1, le=1000)] | None = None
    guidance_scale: Annotated[float, Meta(ge=0, le=1000)] | None = None
    user: str | None = None
    stream: bool | None = None
    partial_images: int | None = None


class ImageReference(Struct, frozen=True, kw_only=True):
    """Where a picture is: a link or a data URL, under either of two names. Files by id are not kept here."""

    image_url: Word | None = None
    url: Word | None = None
    file_id: str | None = None


class ImageEditBody(ImageBody, frozen=True, kw_only=True):
    """The body of a request to change pictures: those of `images`, or the one of `image`; `mask` marks where."""

    images: Annotated[list[ImageReference], Meta(max_length=MOST_INPUTS)] | None = None
    image: ImageReference | None = None
    mask: ImageReference | None = None


class ImageShape(Struct, frozen=True, kw_only=True):
    """One picture: a link to it, or its bytes in base64."""

    url: str | None = None
    b64_json: str | None = None
    revised_prompt: str | None = None


class ImageInputTokens(Struct, frozen=True, kw_only=True):
    """The tokens that went in, by what they stand for."""

    text_tokens: int
    image_tokens: int


class ImageOutputTokens(Struct, frozen=True, kw_only=True):
    """The tokens that came out, by what they stand for."""

    text_tokens: int
    image_tokens: int


class ImageUsageShape(Struct, frozen=True, kw_only=True):
    """Token counts; `cost` is in dollars, null when unknown."""

    input_tokens: int
    input_tokens_details: ImageInputTokens
    output_tokens: int
    output_tokens_details: ImageOutputTokens
    total_tokens: int
    cost: float | None = None


class ImagesReplyShape(Struct, frozen=True, kw_only=True):
    """The pictures; `created` in seconds since 1970, `size` in pixels where all are alike.

    `notes` say in words what was done otherwise than asked.
    """

    created: int
    data: list[ImageShape]
    usage: ImageUsageShape | None = None
    size: str | None = None
    quality: str | None = None
    background: str | None = None
    output_format: str | None = None
    notes: list[str] | None = None


class _Shared(TypedDict):
    """The fields that both kinds of request bear."""

    model: str
    prompt: str
    n: int
    width: int | None
    height: int | None
    aspect_ratio: str | None
    resolution: str | None
    quality: str | None
    style: str | None
    background: str | None
    format: str | None
    negative_prompt: str | None
    guidance_scale: float | None
    steps: int | None
    seed: int | None
    user: str | None
    extra: Mapping[str, Any]


_body_decoder = msgspec.json.Decoder(ImageBody)
# The fields of a form are all texts.
_form_decoder = msgspec.json.Decoder(ImageBody, strict=False)
_edit_decoder = msgspec.json.Decoder(ImageEditBody)
_modelled = frozenset(field.encode_name for field in msgspec.structs.fields(ImageBody))
_modelled_edit = frozenset(field.encode_name for field in msgspec.structs.fields(ImageEditBody))


def decode_image_request(body: bytes) -> tuple[ImageRequest, str]:
    """Read a request for pictures, and the form they are wanted in: "url", "b64_json", or "" where nobody says.

    Fields that the format does not name are handed on as the vendor's own.

    Raises:
        InvalidRequest: it is malformed, or wants a stream.
    """
    fields = read_object(body)
    parsed = read_as(_body_decoder, body)
    return ImageRequest(**_shared(parsed, _others(fields, _modelled))), parsed.response_format or ""


def read_json_edit(body: bytes) -> tuple[ImageEditRequest, str]:
    """Read a request to change pictures from JSON, which names them by links or data URLs; 16 at most.

    Returns what `decode_image_edit` does.

    Raises:
        InvalidRequest: it is malformed, or wants a stream.
    """
    fields = read_object(body)
    parsed = read_as(_edit_decoder, body)
    if parsed.images is not None and parsed.image is not None:
        raise _refused("image", "must not stand beside images")
    named = [(f"images[{index}]", each) for index, each in enumerate(parsed.images or ())]
    if parsed.image is not None:
        named = [("image", parsed.image)]
    if not named:
        raise _refused("images", "must hold a picture")
    request = ImageEditRequest(
        images=tuple(_referred(each, name) for name, each in named),
        mask=None if parsed.mask is None else _referred(parsed.mask, "mask"),
        **_shared(parsed, _others(fields, _modelled_edit)),
    )
    return request, parsed.response_format or ""


def _others(fields: Mapping[str, Raw], modelled: frozenset[str]) -> dict[str, Any]:
    """Return the fields that the format does not name."""
    return {
        name: msgspec.json.decode(raw)
        for name, raw in fields.items()
        if name not in modelled and is_given(raw)
    }


def _referred(reference: ImageReference, name: str) -> Given:
    """Return a picture that was named: its bytes, or a link to be fetched."""
    text = reference.image_url or reference.url
    if reference.file_id is not None or text is None:
        raise _refused(name, "must hold image_url, and no file_id: files are not kept here")
    where = f"{name}.{'image_url' if reference.image_url else 'url'}"
    try:
        given = read_medium(text)
    except ValueError as error:
        raise _refused(where, str(error)) from None
    return _checked(given, where) if isinstance(given, Medium) else given


def decode_image_edit(
    fields: Mapping[str, list[str]], files: Mapping[str, list[Medium]]
) -> tuple[ImageEditRequest, str]:
    """Read a parsed form that wants pictures changed, and the form they are wanted in, as `decode_image_request` does.

    The pictures are files named `image` or `image[]`, 16 at most; `mask` is one more. Fields that the format does not
    name are handed on as the vendor's own, lists without the brackets of their names.

    Raises:
        InvalidRequest: it is malformed, or wants a stream.
    """
    unknown = next((name for name in files if name not in _FILES), None)
    if unknown is not None:
        raise _refused(unknown, "is no file that is taken")
    misplaced = next((name for name in _FILES if name in fields), None)
    if misplaced is not None:
        raise _refused(misplaced.removesuffix("[]"), "must be a file")
    images = [*files.get("image", []), *files.get("image[]", [])]
    if not images:
        raise _refused("image", "required field is missing")
    if len(images) > MOST_INPUTS:
        raise _refused("image", f"must be at most {MOST_INPUTS} files, not {len(images)}")
    masks = files.get("mask", [])
    if len(masks) > 1:
        raise _refused("mask", "must be given once")
    said, extra = _sorted_fields(fields)
    parsed = read_as(_form_decoder, msgspec.json.encode(said))
    request = ImageEditRequest(
        images=tuple(_checked(image, "image") for image in images),
        mask=_checked(masks[0], "mask") if masks else None,
        **_shared(parsed, extra),
    )
    return request, parsed.response_format or ""


def _sorted_fields(fields: Mapping[str, list[str]]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the fields that the format names, without empty ones, and the vendor's own."""
    said: dict[str, str] = {}
    extra: dict[str, Any] = {}
    for written, values in fields.items():
        name = written.removesuffix("[]")
        if name not in _modelled:
            extra[name] = list(values) if name != written or len(values) > 1 else values[0]
        elif name != written or len(values) != 1:
            raise _refused(name, "must be given once")
        elif values[0]:
            said[name] = values[0]
    return said, extra


def _checked(given: Medium, name: str) -> Medium:
    """Return a picture with the type that its bytes tell, else the one it came with."""
    if not given.data:
        raise _refused(name, "must be a file that is not empty")
    found = type_of(given.data)
    kind = next((each for each in (found, given.type) if each and each.lower().startswith("image/")), None)
    if kind is None:
        raise _refused(name, "must be a picture")
    return msgspec.structs.replace(given, type=kind)


def _shared(parsed: ImageBody, extra: Mapping[str, Any]) -> _Shared:
    """Return the fields that both kinds of request bear.

    Raises:
        InvalidRequest: the prompt says nothing, the size is none, or a stream is wanted.
    """
    if parsed.stream:
        raise _refused("stream", "pictures are not streamed", code="unsupported_parameter")
    if parsed.partial_images:
        raise _refused("partial_images", "pictures are not streamed", code="unsupported_parameter")
    if not parsed.prompt.strip():
        raise _refused("prompt", "must not be empty")
    width, height = _size(parsed.size)
    return _Shared(
        model=parsed.model,
        prompt=parsed.prompt,
        n=parsed.n or 1,
        width=width,
        height=height,
        aspect_ratio=parsed.aspect_ratio,
        resolution=parsed.resolution,
        quality=parsed.quality,
        style=parsed.style,
        background=parsed.background,
        format=parsed.output_format,
        negative_prompt=parsed.negative_prompt,
        guidance_scale=parsed.guidance_scale,
        steps=parsed.steps,
        seed=parsed.seed,
        user=parsed.user,
        extra=extra,
    )


def _size(text: str | None) -> tuple[int, int] | tuple[None, None]:
    """Read a size in pixels; none where the model may choose."""
    if text is None or text == _AUTO:
        return None, None
    size = parse_size(text)
    if size is None:
        raise _refused("size", 'must be like "1024x1024", or "auto"')
    return size


def _refused(name: str, message: str, *, code: str | None = None) -> InvalidRequest:
    return InvalidRequest(f"{name}: {message}", param=name, code=code)


def encode_image_result(
    result: ImageResult,
    *,
    urls: Sequence[str] | None,
    created_s: int,
    cost_usd: str | None,
    quality: str | None = None,
    background: str | None = None,
) -> bytes:
    """Write pictures: as the links in `urls`, one for each, or as their bytes where there are none.

    `created_s` is the time in seconds since 1970. The cost in dollars (a decimal number) stands inside `usage`, where
    there is one; null is unknown. `quality` and `background` are shown as they are given, since no bytes tell them.

    Raises:
        ValueError: there are not as many links as pictures.
    """
    places = [None] * len(result.pictures) if urls is None else urls
    body: dict[str, Any] = {
        "created": created_s,
        "data": [_item(picture, url) for picture, url in zip(result.pictures, places, strict=True)],
    }
    told: dict[str, Any] = {
        "background": background,
        "output_format": _alike(_FORMATS.get(picture.medium.type) for picture in result.pictures),
        "quality": quality,
        "size": _alike(
            f"{picture.width}x{picture.height}" if picture.width and picture.height else None
            for picture in result.pictures
        ),
        "usage": None if result.usage is None else _written_usage(result.usage, cost_usd),
        "notes": list(result.notes) or None,
    }
    return msgspec.json.encode(body | {name: value for name, value in told.items() if value is not None})


def _item(picture: Picture, url: str | None) -> dict[str, str]:
    item = {"b64_json": base64.b64encode(picture.medium.data).decode()} if url is None else {"url": url}
    return item if picture.revised_prompt is None else item | {"revised_prompt": picture.revised_prompt}


def _alike(values: Iterable[str | None]) -> str | None:
    """Return what is the same of all pictures; None where it differs or is not known."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _written_usage(usage: Usage, cost_usd: str | None) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "text_tokens": max(0, usage.input_tokens - usage.image_input_tokens),
            "image_tokens": usage.image_input_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {
            "text_tokens": max(0, usage.output_tokens - usage.image_output_tokens),
            "image_tokens": usage.image_output_tokens,
        },
        "total_tokens": usage.total_tokens,
        "cost": None if cost_usd is None else Raw(cost_usd.encode()),
        **vendor_cost(usage),
    }
