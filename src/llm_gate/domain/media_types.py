"""What kind of medium some bytes are, by how they begin."""

import base64
import binascii

from llm_gate.domain.media import Given, Link, Medium

UNKNOWN = "application/octet-stream"
_HEADS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"\xff\xf2", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"\xff\xf1", "audio/aac"),
    (0, b"\xff\xf9", "audio/aac"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftypqt", "video/quicktime"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftyphei", "image/heic"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"FORM", "audio/aiff"),
    (0, b"BM", "image/bmp"),
)


def type_of(data: bytes) -> str | None:
    """Return the media type of bytes; None where they begin like nothing that is known here."""
    return next((kind for start, head, kind in _HEADS if data.startswith(head, start)), None)


def read_medium(text: str) -> Given:
    """Read a medium as callers write it in JSON: an http(s) link, a data URL, or base64.

    Raises:
        ValueError: it is none of these; the message completes "the field ...".
    """
    if text.startswith(("http://", "https://")):
        return Link(url=text)
    said = ""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ValueError("must be a data URL in base64")
        said = head.removeprefix("data:").partition(";")[0].strip().lower()
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be an http(s) link, a data URL or base64") from None
    if not data:
        raise ValueError("must not be empty")
    return Medium(data=data, type=type_of(data) or said or UNKNOWN)
