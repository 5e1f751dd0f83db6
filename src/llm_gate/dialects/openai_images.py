"""Pictures in the OpenAI wire format, outbound: from words, and from other pictures."""

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._json import ABSENT, is_given
from llm_gate.dialects._multipart import Field, ending_of, form_request
from llm_gate.dialects.openai_errors import error_in_success
from llm_gate.dialects.openai_speech import content_type, made_bytes
from llm_gate.domain.errors import ContentFiltered, InvalidRequest
from llm_gate.domain.media import Given, ImageEditRequest, ImageRequest, ImageResult, Link, Medium, Picture
from llm_gate.domain.media_types import read_medium, type_of
from llm_gate.domain.money import read_nanos
from llm_gate.domain.provider import Exchanges, Facts, Fetch, HttpReply, HttpRequest, Send, Target
from llm_gate.domain.usage import Usage, believed

# What this codec reads in the catalog's fields and never sends: "json" wants edits as JSON instead of a form.
_EDIT_FORM = "edit_form"
# A stream would be paid for and could not be read.
_STREAMING = ("stream", "partial_images")
_INPUTS = ("image", "image[]", "images", "mask")
# Wishes by their names in the request, and on the wire.
_NAMES = (
    ("quality", "quality"),
    ("style", "style"),
    ("background", "background"),
    ("format", "output_format"),
    ("aspect_ratio", "aspect_ratio"),
    ("resolution", "resolution"),
    ("negative_prompt", "negative_prompt"),
    ("steps", "steps"),
    ("guidance_scale", "guidance_scale"),
    ("seed", "seed"),
    ("user", "user"),
)
_TASKS = ("general_edit", "inpaint")
# Bytes of these types give themselves away, so that a vendor's word alone is not believed.
_TELLING = frozenset(f"image/{kind}" for kind in ("png", "jpeg", "jpg", "gif", "webp", "bmp"))
_FILTERED = "content_filter"


class _Item(Struct, frozen=True):
    """One picture of an answer, as bytes in base64 or as an address; what is only told of it is checked by itself."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: Any = None
    mime_type: Any = None
    content_filter_results: Any = None


class _Reply(Struct, frozen=True):
    data: list[_Item | None] | None = None
    output_format: Any = None
    model: Any = None
    usage: Raw = ABSENT
    error: Raw = ABSENT


class _Details(Struct, frozen=True):
    text_tokens: int | None = None
    image_tokens: int | None = None
    cached_tokens: int | None = None


class _Counts(Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    cost: Raw = ABSENT


_reply_decoder = msgspec.json.Decoder(_Reply)
_counts_decoder = msgspec.json.Decoder(_Counts)


class OpenAIImages:
    """Pictures from words, of every provider that speaks this dialect.

    The catalog's `response_format` among a model's fields is sent as it is; a model without it is sent none, since
    some know only one form and refuse the field. Either form of answer is read.
    """

    def __init__(self, address: Callable[[Target, str], str]) -> None:
        self._address = address

    def run(self, request: ImageRequest, target: Target, facts: Facts) -> Exchanges[ImageResult]:
        """Make pictures.

        Raises:
            InvalidRequest: it asks for what this format has no word for.
            ProviderError: the answer holds no picture, or tells of a failure.
        """
        del facts
        url = self._address(target, "images/generations")
        reply = yield Send(request=_json_request(url, _payload(request, target)), is_paid=True)
        return (yield from _result(reply, request, target))


class OpenAIImageEdits:
    """Pictures from pictures, of every provider that speaks this dialect.

    They go out as a form, or as JSON with data URLs where the catalog's fields say `edit_form` "json".
    """

    def __init__(self, address: Callable[[Target, str], str]) -> None:
        self._address = address

    def run(self, request: ImageEditRequest, target: Target, facts: Facts) -> Exchanges[ImageResult]:
        """Change pictures.

        Raises:
            InvalidRequest: it asks for what this format has no word for.
            ProviderError: the answer holds no picture, or tells of a failure.
        """
        _check_edit(request, target)
        url, payload = self._address(target, "images/edits"), _payload(request, target)
        spec = target.model.media
        if spec is not None and spec.fields.get(_EDIT_FORM) == "json":
            wanted = _json_request(url, payload | _linked_inputs(request, target))
        else:
            fields = [field for name, value in payload.items() for field in _written(name, value)]
            fields += _attached_inputs(request, target)
            wanted = form_request(url, fields, boundary=facts.token, headers={})
        reply = yield Send(request=wanted, is_paid=True)
        return (yield from _result(reply, request, target))


def _check_edit(request: ImageEditRequest, target: Target) -> None:
    """Refuse an edit that the format has no word for.

    Raises:
        InvalidRequest: it is one.
    """
    if request.task not in _TASKS:
        raise _refused("operation", f"{target.name} knows {' and '.join(_TASKS)}, not {request.task!r}")
    if request.task == "inpaint" and request.mask is None:
        raise _refused("mask", f"{target.name} needs one to know where to paint")
    if not request.images:
        raise _refused("image", "must hold a picture")
    if not request.prompt:
        raise _refused("prompt", f"{target.name} needs words that say what to change")
    taken = next((name for name in _INPUTS if name in request.extra), None)
    if taken is not None:
        raise _refused(taken, "pictures are not taken among further fields")


def _payload(request: ImageRequest | ImageEditRequest, target: Target) -> dict[str, Any]:
    """Return the fields; what the codec sets wins over the catalog's, and these over a caller's own."""
    for name in _STREAMING:
        if request.extra.get(name):
            raise _refused(name, "pictures are not streamed")
    spec = target.model.media
    fixed = {} if spec is None else {name: value for name, value in spec.fields.items() if name != _EDIT_FORM}
    # The number always stands there: nothing else may decide how many pictures are paid for.
    said: dict[str, Any] = {"model": target.wire_model, "prompt": request.prompt, "n": request.n}
    if request.width is not None and request.height is not None:
        said["size"] = f"{request.width}x{request.height}"
    for own, wire in _NAMES:
        value = getattr(request, own)
        if value is not None:
            said[wire] = value
    extra = {name: value for name, value in request.extra.items() if name != _EDIT_FORM}
    return {**extra, **fixed, **said}


def _json_request(url: str, payload: dict[str, Any]) -> HttpRequest:
    return HttpRequest(
        method="POST",
        url=url,
        headers={"content-type": "application/json"},
        body=msgspec.json.encode(payload),
    )


def _linked_inputs(request: ImageEditRequest, target: Target) -> dict[str, Any]:
    """Return the pictures as objects with data URLs: `image` for one, `images` for several."""
    linked = [_data_url(each, "image", target) for each in request.images]
    inputs: dict[str, Any] = {"image": linked[0]} if len(linked) == 1 else {"images": linked}
    if request.mask is not None:
        inputs["mask"] = _data_url(request.mask, "mask", target)
    return inputs


def _data_url(given: Given, name: str, target: Target) -> dict[str, str]:
    medium = _bytes_of(given, name, target)
    data = base64.b64encode(medium.data).decode()
    return {"type": "image_url", "url": f"data:{medium.type};base64,{data}"}


def _attached_inputs(request: ImageEditRequest, target: Target) -> Iterator[Field]:
    """Give the pictures as files: `image` for one, `image[]` for several."""
    name = "image" if len(request.images) == 1 else "image[]"
    for each in request.images:
        yield Field(name=name, value=_named(_bytes_of(each, "image", target)))
    if request.mask is not None:
        yield Field(name="mask", value=_named(_bytes_of(request.mask, "mask", target)))


def _bytes_of(given: Given, name: str, target: Target) -> Medium:
    if isinstance(given, Medium):
        return given
    raise _refused(name, f"{target.name} takes the bytes of pictures, not links")


def _named(medium: Medium) -> Medium:
    """Return a picture under a name with an ending: some vendors look at nothing else."""
    if medium.name is None or "." in medium.name:
        return medium
    return structs.replace(medium, name=f"{medium.name}.{ending_of(medium.type)}")


def _written(name: str, value: Any) -> Iterator[Field]:
    """Write one value as the fields of a form: a list as one field for each of its items."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _written(f"{name}[]", item)
    elif isinstance(value, str):
        yield Field(name=name, value=value)
    elif value is not None:
        yield Field(name=name, value=msgspec.json.encode(value).decode())


def _result(
    reply: HttpReply | None, request: ImageRequest | ImageEditRequest, target: Target
) -> Exchanges[ImageResult]:
    """Read the answer, and fetch the pictures that it only names."""
    status = None if reply is None else reply.status
    try:
        parsed = _reply_decoder.decode(b"" if reply is None else reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_response(target, "holds no picture", status=status) from None
    if is_given(parsed.error):
        error = error_in_success(parsed.error, target)
        error.is_unbilled = True
        raise error
    items = [item for item in parsed.data or () if item is not None]
    shown = [item for item in items if item.b64_json or item.url]
    if not shown:
        if any(_is_filtered(item.content_filter_results) for item in items):
            raise ContentFiltered(
                f"provider {target.provider!r} filtered what it made",
                provider=target.provider,
                model=target.wire_model,
                vendor_code=_FILTERED,
            )
        raise bad_response(target, "holds no picture", status=status)
    told = _type_word(parsed.output_format)
    pictures = yield from _pictures(shown, told, target)
    made = len(pictures)
    return ImageResult(
        pictures=pictures,
        usage=_usage(parsed.usage),
        model=parsed.model if isinstance(parsed.model, str) else None,
        notes=() if made >= request.n else (f"n: {target.name} made {made} of {request.n}",),
    )


def _is_filtered(results: Any) -> bool:
    """Tell whether a filter's report names a category for which the picture is held back."""
    categories = results.values() if isinstance(results, dict) else ()
    return any(isinstance(each, dict) and each.get("filtered") is True for each in categories)


def _type_word(word: Any) -> str:
    """Return the media type that a vendor's word for a format stands for; "" where it says nothing."""
    return f"image/{word.strip().lower()}" if isinstance(word, str) and word.strip() else ""


def _pictures(items: Sequence[_Item], told: str, target: Target) -> Exchanges[tuple[Picture, ...]]:
    """Return the pictures in their order, one after the other where they have to be fetched."""
    made: tuple[Picture, ...] = ()
    for item in items:
        made = (*made, (yield from _picture(item, told, target)))
    return made


def _picture(item: _Item, told: str, target: Target) -> Exchanges[Picture]:
    """Return one picture; `told` is the media type that the answer tells of all of them."""
    told = item.mime_type.strip().lower() if isinstance(item.mime_type, str) else told
    given = _given(item, target)
    if isinstance(given, Link):
        reply = yield Fetch(url=given.url)
        data, words = made_bytes(reply, target, "picture"), (content_type(reply), told)
    else:
        data, words = given.data, (given.type, told)
    kind = _kind(data, words)
    if kind is None:
        raise bad_response(target, "holds no picture")
    prompt = item.revised_prompt
    return Picture(
        medium=Medium(data=data, type=kind),
        revised_prompt=prompt if isinstance(prompt, str) and prompt else None,
    )


def _given(item: _Item, target: Target) -> Given:
    """Return the picture's bytes, or where they are; base64 may come as a data URL under either name."""
    try:
        if item.b64_json:
            return read_medium(item.b64_json)
        if item.url and item.url.startswith(("https://", "http://", "data:")):
            return read_medium(item.url)
    except ValueError:
        pass
    raise bad_response(target, "holds no picture")


def _kind(data: bytes, words: Iterable[str]) -> str | None:
    """Tell a picture's media type by its bytes, else by the vendor's words; None where it is no picture."""
    found = type_of(data)
    if found is not None and found.startswith("image/"):
        return found
    return next((word for word in words if word.startswith("image/") and word not in _TELLING), None)


def _usage(raw: Raw) -> Usage | None:
    """Bring counts to the neutral form; None when they are absent, malformed, absurd or nothing but zeros."""
    if not is_given(raw):
        return None
    try:
        counts = _counts_decoder.decode(raw)
    except msgspec.DecodeError:
        return None
    given, made = counts.input_tokens or 0, counts.output_tokens or 0
    if not given and not made:
        return None
    sent, got = counts.input_tokens_details or _Details(), counts.output_tokens_details or _Details()
    # What a picture model gives out is pictures, but for what it says is text.
    pictured = made - (got.text_tokens or 0) if got.image_tokens is None else got.image_tokens
    return believed(
        Usage(
            input_tokens=given,
            cached_input_tokens=min(sent.cached_tokens or 0, given),
            image_input_tokens=min(sent.image_tokens or 0, given),
            output_tokens=made,
            image_output_tokens=min(pictured, made),
            vendor_cost_nanos=read_nanos(bytes(counts.cost).decode(errors="replace"))
            if counts.cost
            else None,
        )
    )


def _refused(name: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: {message}", param=name, code="unsupported_parameter")
