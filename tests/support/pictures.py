"""Media for tests, made on the spot: pictures, recordings, forms."""

import base64
import io
import struct
import uuid
import wave
from collections.abc import Mapping

from PIL import Image


def picture(width: int = 64, height: int = 48, kind: str = "PNG", colour: str = "red") -> bytes:
    """Return a picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, kind)
    return out.getvalue()


def recording(seconds: float = 1.0, rate: int = 8_000) -> bytes:
    """Return a WAV of silence."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(struct.pack("<h", 0) * round(seconds * rate))
    return out.getvalue()


def in_base64(data: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(data).decode()


def form(fields: Mapping[str, str | tuple[str, str, bytes]]) -> tuple[bytes, str]:
    """Return a form's body and content type; a file is (name, type, bytes)."""
    boundary = uuid.uuid4().hex
    pieces = []
    for name, value in fields.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        if isinstance(value, tuple):
            head += f'; filename="{value[0]}"\r\nContent-Type: {value[1]}'
        data = value[2] if isinstance(value, tuple) else value.encode()
        pieces.append(f"{head}\r\n\r\n".encode() + data + b"\r\n")
    return b"".join(pieces) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
