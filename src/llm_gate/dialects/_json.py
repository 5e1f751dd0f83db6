"""Reading JSON that strangers sent: one guard before any parser, and one way to report what is wrong."""

import re
from array import array
from itertools import accumulate
from typing import TypeVar

import msgspec
from msgspec import Raw

from llm_gate.domain.errors import InvalidRequest

MAX_DEPTH = 64

# msgspec fills a field with raw JSON only where the field's type is Raw alone, so absence needs a value.
ABSENT = Raw()

_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{}:"))
# Brackets as steps of a signed byte: one level up, one level down, none.
_STEPS = bytes.maketrans(b"[{]}:", b"\x01\x01\xff\xff\x00")
_ESCAPED_BACKSLASH, _NO_ESCAPE = b"\\\\", b"--"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")

# JSON lets them in as escapes alone. What terminals write (bell, backspace, escape) and all white space may pass.
_CONTROL = re.compile(rb"\\u(00(?:0[0-6eEfF]|1[0-9acdefACDEF]))")

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

    Refused are: invalid UTF-8, lone surrogates, control characters that no text has a use for, nesting deeper than
    MAX_DEPTH, anything but one object, and top-level keys that occur twice (two parsers would disagree about them).

    Raises:
        InvalidRequest: the body is one of these.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not valid UTF-8 (byte {error.start})") from None
    plain = body.replace(_ESCAPED_BACKSLASH, _NO_ESCAPE) if b"\\" in body else body
    if _SURROGATE.search(plain) and _SURROGATE.search(_SURROGATE_PAIR.sub(b"", plain)):
        raise InvalidRequest("the body holds an escaped surrogate without its partner")
    if b"\\u00" in plain and (control := _CONTROL.search(plain)):
        raise InvalidRequest(f"the body holds the control character U+{control[1].decode().upper()}")
    members = _count_members(plain)
    try:
        fields = _object_decoder.decode(body)
    except msgspec.ValidationError:
        raise InvalidRequest("the body must be a JSON object") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if members != len(fields):
        raise InvalidRequest("the body names the same key twice")
    return fields


def _count_members(plain: bytes) -> int:
    """Count the members of the outermost object; refuse nesting deeper than MAX_DEPTH.

    `plain` is the body without escaped backslashes, so that a backslash before a quote always escapes it.
    Every step is one pass of compiled code over what the one before left; nothing grows with the depth. What
    is no JSON may be counted wrongly: the parser refuses it afterwards.
    """
    unquoted = plain.replace(b'\\"', b"") if b"\\" in plain else plain
    skeleton = b"".join(unquoted.split(b'"')[::2]).translate(None, _NOT_STRUCTURE)
    try:
        depths = bytes(accumulate(array("b", skeleton.translate(_STEPS))))
    except ValueError:
        depths = b"\xff"
    if max(depths, default=0) > MAX_DEPTH:
        raise InvalidRequest(
            f"the body is nested deeper than {MAX_DEPTH} levels, or its brackets do not match"
        )
    # At depth 1 stand the opening bracket, the colons that count, and brackets that close depth 2.
    return depths.count(b"\x01") - 1 - depths.count(b"\x02\x01")


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
