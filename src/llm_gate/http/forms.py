"""Forms with files (multipart/form-data), read from a body that is in memory already and bounded."""

import io
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import FormParser, parse_options_header

from llm_gate.domain.errors import InvalidRequest, UnsupportedMedia
from llm_gate.domain.media import Medium
from llm_gate.domain.media_types import UNKNOWN, type_of
from llm_gate.http.exchange import Exchange

MAX_FIELDS = 200
_FORM = "multipart/form-data"


class Form(Struct, frozen=True, kw_only=True):
    """A form's texts and files, by field name, in their order."""

    fields: Mapping[str, list[str]]
    files: Mapping[str, list[Medium]]


def require_form(exchange: Exchange) -> None:
    """Refuse a body that does not say it is a form with files.

    Raises:
        UnsupportedMedia: the content type is another one.
    """
    given = exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != _FORM:
        raise UnsupportedMedia(f"the content type must be {_FORM}, not {given or 'absent'!r}")


async def read_form(exchange: Exchange) -> Form:
    """Read the body of a request as a form.

    Raises:
        UnsupportedMedia: it does not say that it is one.
        InvalidRequest: it is malformed, cut off, or has far too many fields.
    """
    require_form(exchange)
    _, options = parse_options_header(exchange.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidRequest("the form names no boundary", param="content-type")
    return parse_form(await exchange.body(), boundary)


def parse_form(body: bytes, boundary: bytes) -> Form:
    """Read a form; raises what `read_form` raises of its content."""
    texts: dict[str, list[str]] = {}
    media: dict[str, list[Medium]] = {}
    has_ended = False
    pieces = 0

    def count() -> None:
        nonlocal pieces
        pieces += 1
        if pieces > MAX_FIELDS:
            raise InvalidRequest(f"the form has more than {MAX_FIELDS} fields")

    def on_field(field: Any) -> None:
        count()
        texts.setdefault(_text(field.field_name), []).append(_text(field.value or b""))

    def on_file(file: Any) -> None:
        count()
        file.file_object.seek(0)
        data = file.file_object.read()
        said = getattr(file, "content_type", None) or ""
        medium = Medium(
            data=data, type=type_of(data) or said or UNKNOWN, name=_text(file.file_name or b"") or None
        )
        media.setdefault(_text(file.field_name), []).append(medium)

    def on_end() -> None:
        nonlocal has_ended
        has_ended = True

    parser: FormParser | None = None
    try:
        parser = FormParser(
            _FORM, on_field, on_file, on_end, boundary=boundary, config={"MAX_MEMORY_FILE_SIZE": float("inf")}
        )
        stream = io.BytesIO(body)
        while piece := stream.read(65_536):
            parser.write(piece)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise InvalidRequest(f"the form is malformed: {error}") from None
    finally:
        if parser is not None:
            parser.close()
    if not has_ended:
        raise InvalidRequest("the form is cut off")
    return Form(fields=texts, files=media)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the form is not UTF-8") from None
