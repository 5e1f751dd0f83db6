"""Reading JSON that strangers sent: one guard before any parser, and one way to report what is wrong."""

import re
from typing import TypeVar

import msgspec
from msgspec import Raw

from llm_gate.domain.errors import InvalidRequest

MAX_DEPTH = 64

# msgspec fills a field with raw JSON only where the field's type is Raw alone, so absence needs a value.
ABSENT = Raw()

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{}:"))
_INNERMOST = re.compile(rb"\{:*\}|\[:*\]")
_LONE_SURROGATE = re.compile(
    rb"(?<!\\)(?:\\\\)*(?:"
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)

T = TypeVar("T")
_object_decoder = msgspec.json.Decoder(dict[str, Raw])


def is_given(raw: Raw) -> bool:
    """Tell whether a raw field is there and not null."""
    return bytes(raw) not in {b"", b"null"}


def given_or_none(raw: Raw) -> Raw | None:
    """Return a raw field, or None where it is absent or null."""
    return raw if is_given(raw) else None


def read_object(body: bytes) -> dict[str, Raw]:
    """Check a request body and split it into its top-level fields, each still raw JSON.

    Refused are: invalid UTF-8, lone surrogates, nesting deeper than MAX_DEPTH, anything but one object, and
    top-level keys that occur twice (two parsers would disagree about them).

    Raises:
        InvalidRequest: the body is one of these.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not valid UTF-8 (byte {error.start})") from None
    if b"\\u" in body and _LONE_SURROGATE.search(body):
        raise InvalidRequest("the body holds an escaped surrogate without its partner")
    members = _count_members(body)
    try:
        fields = _object_decoder.decode(body)
    except msgspec.ValidationError:
        raise InvalidRequest("the body must be a JSON object") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if members != len(fields):
        raise InvalidRequest("the body names the same key twice")
    return fields


def _count_members(body: bytes) -> int:
    """Count the members of the outermost object; refuse nesting deeper than MAX_DEPTH.

    Strings are taken out, only brackets and colons kept, and the innermost pairs removed round by round: what
    is left are the colons of the top level. Each round is one pass of compiled code.
    """
    skeleton = _STRING.sub(b"", body).translate(None, _NOT_STRUCTURE)
    if not (skeleton.startswith(b"{") and skeleton.endswith(b"}")):
        return 0 if skeleton else -1
    inner = skeleton[1:-1]
    for _ in range(MAX_DEPTH - 1):
        if b"[" not in inner and b"{" not in inner:
            return inner.count(b":")
        inner = _INNERMOST.sub(b"", inner)
    if b"[" in inner or b"{" in inner:
        raise InvalidRequest(
            f"the body is nested deeper than {MAX_DEPTH} levels, or its brackets do not match"
        )
    return inner.count(b":")


def read_as(decoder: msgspec.json.Decoder[T], body: bytes | Raw, *, where: str = "") -> T:
    """Decode JSON into a record; `where` is the path of `body` inside the request.

    Raises:
        InvalidRequest: with the wire path of the offending field as `param`.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, path = split_location(str(error))
        param = ".".join(filter(None, (where, path))).replace(".[", "[")
        raise InvalidRequest(f"{param}: {message}" if param else message, param=param or None) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None


def split_location(message: str) -> tuple[str, str]:
    """Split msgspec's text into what is wrong and where ("" for the top)."""
    text, _, path = message.partition(" - at `$")
    missing = re.fullmatch(r"Object missing required field `(\w+)`", text)
    path = path.rstrip("`").removeprefix(".")
    if missing:
        return "required field is missing", f"{path}.{missing[1]}" if path else missing[1]
    return text[:1].lower() + text[1:], path
