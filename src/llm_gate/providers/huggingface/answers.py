"""What is made behind the router: read from an answer, checked, and downloaded."""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from llm_gate.dialects._failures import bad_response
from llm_gate.domain.errors import ContentFiltered
from llm_gate.domain.media import ImageResult, Medium, Picture
from llm_gate.domain.media_types import type_of
from llm_gate.domain.provider import Exchanges, Fetch, HttpReply, Target

T = TypeVar("T")


class File(Struct, frozen=True, kw_only=True):
    """Something that was made."""

    url: str
    content_type: str | None = None


class Made(Struct, frozen=True, kw_only=True):
    """An answer with what was made."""

    images: list[File] | None = None
    video: File | None = None
    seed: Any = None
    has_nsfw_concepts: Any = None


def pictures_of(made: Made, target: Target) -> Exchanges[ImageResult]:
    """Download the pictures; those that the maker blackened are left out, and said to be.

    Raises:
        ContentFiltered: that is all of them.
    """
    if not made.images:
        raise bad_response(target, "holds no picture")
    marks = made.has_nsfw_concepts if isinstance(made.has_nsfw_concepts, list) else []
    kept = [file for index, file in enumerate(made.images) if index >= len(marks) or marks[index] is not True]
    if not kept:
        raise ContentFiltered(
            f"provider {target.provider!r} filtered what it made",
            provider=target.provider,
            model=target.wire_model,
            vendor_code="has_nsfw_concepts",
        )
    seed = made.seed if isinstance(made.seed, int) and not isinstance(made.seed, bool) else None
    pictures: list[Picture] = []
    for file in kept:
        medium = yield from fetched(file, "image", target)
        pictures.append(Picture(medium=medium, seed=seed))
    lost = len(made.images) - len(kept)
    notes = (f"{lost} of {len(made.images)} pictures were filtered by the provider",) if lost else ()
    return ImageResult(pictures=tuple(pictures), notes=notes)


def fetched(file: File, kind: str, target: Target) -> Exchanges[Medium]:
    """Download what was made; `kind` is "image" or "video".

    Raises:
        BadProviderResponse: it is something else.
    """
    reply = yield Fetch(url=file.url)
    body = b"" if reply is None else reply.body
    header = "" if reply is None else reply.headers.get("content-type", "")
    seen = type_of(body)
    types = (
        [seen]
        if seen
        else [said.partition(";")[0].strip().lower() for said in (file.content_type or "", header)]
    )
    type_ = next((type_ for type_ in types if type_.startswith(f"{kind}/")), None)
    if type_ is None or not body or body.lstrip()[:1] in {b"<", b"{"}:
        raise bad_response(target, f"led to no {kind}")
    return Medium(data=body, type=type_)


def read(reply: HttpReply | None, type_: type[T], target: Target, fault: str) -> T:
    """Read an answer; `fault` says what it lacks where it is something else.

    Raises:
        BadProviderResponse: it is.
    """
    try:
        return msgspec.json.decode(b"" if reply is None else reply.body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_response(target, fault, status=None if reply is None else reply.status) from None
