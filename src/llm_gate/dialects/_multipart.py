"""Forms as bytes (multipart/form-data, RFC 7578), for vendors that take files or that take nothing else."""

from collections.abc import Iterable

from msgspec import Struct

from llm_gate.domain.media import Medium
from llm_gate.domain.provider import HttpRequest

_QUOTED = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})
_ENDINGS = {
    "image/jpeg": "jpg",
    "image/svg+xml": "svg",
    "audio/mpeg": "mp3",
    "audio/x-wav": "wav",
    "audio/wav": "wav",
    "audio/mp4": "m4a",
    "audio/x-m4a": "m4a",
    "video/quicktime": "mov",
}


class Field(Struct, frozen=True, kw_only=True):
    """One field of a form: text, or a file."""

    name: str
    value: str | Medium


def form_request(url: str, fields: Iterable[Field], *, boundary: str, headers: dict[str, str]) -> HttpRequest:
    """Build the POST of a form. `boundary` must not occur in any value: the word of the codec's Facts does not."""
    return HttpRequest(
        method="POST",
        url=url,
        headers={**headers, "content-type": f"multipart/form-data; boundary={boundary}"},
        body=encode_form(fields, boundary=boundary),
    )


def encode_form(fields: Iterable[Field], *, boundary: str) -> bytes:
    """Write a form's body."""
    pieces: list[bytes] = []
    for field in fields:
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{field.name.translate(_QUOTED)}"'
        value = field.value
        if isinstance(value, Medium):
            head += f'; filename="{file_name(value).translate(_QUOTED)}"\r\ncontent-type: {value.type}'
            data = value.data
        else:
            data = value.encode()
        pieces += [head.encode(), b"\r\n\r\n", data, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces)


def file_name(medium: Medium) -> str:
    """Return a medium's file name: its own, or one whose ending says what it is."""
    return medium.name or f"file.{ending_of(medium.type)}"


def ending_of(type_: str) -> str:
    """Return the usual ending of a media type's files."""
    plain = type_.partition(";")[0].strip().lower()
    return _ENDINGS.get(plain) or plain.partition("/")[2].removeprefix("x-") or "bin"
