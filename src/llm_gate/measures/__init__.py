"""Measures media by their bytes: what a picture is, how long a recording lasts. Bounded in memory, time and number."""

import asyncio
import io
import struct

from PIL import Image, UnidentifiedImageError
from tinytag import TinyTag
from tinytag.tinytag import TinyTagException

from llm_gate.domain.ports import PictureFacts

MAX_PIXELS = 40_000_000
"""More than 8K film has: what unfolds beyond this is taken for a bomb. A pixel has up to four bytes."""

_AT_ONCE = 2
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_MS = 1000
# What Pillow raises of torn bytes; its warnings are errors to some.
_UNREADABLE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    struct.error,
    OverflowError,
    MemoryError,
    Warning,
)


class BytesMeasures:
    """Measures in threads, a few at a time, so that the event loop is never held up."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def picture(self, data: bytes) -> PictureFacts | None:
        """Return what a picture is; None where it is none, is cut off, or would unfold beyond all measure."""
        async with self._room:
            return await asyncio.to_thread(measure_picture, data)

    async def sound(self, data: bytes) -> float | None:
        """Return how long a recording lasts, in seconds; None where the bytes do not tell."""
        async with self._room:
            return await asyncio.to_thread(measure_sound, data)


def measure_picture(data: bytes) -> PictureFacts | None:
    """Read a picture's head, check its size before anything is unfolded, then unfold it to see if it is whole."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                return None
            picture.load()
            duration_s = _lasts_s(picture)
            kind = picture.get_format_mimetype()
    except _UNREADABLE:
        return None
    return PictureFacts(
        type=kind or "application/octet-stream", width=width, height=height, duration_s=duration_s
    )


def _lasts_s(picture: Image.Image) -> float:
    """Return an animation's length; 0 for one whose frames together would unfold beyond all measure."""
    frames = int(getattr(picture, "n_frames", 1))
    if frames == 1 or frames * picture.width * picture.height > MAX_PIXELS:
        return 0.0
    lasts_ms = 0
    for frame in range(frames):
        picture.seek(frame)
        picture.load()
        lasts_ms += int(picture.info.get("duration", 0))
    return lasts_ms / _MS


def measure_sound(data: bytes) -> float | None:
    """Read a recording's length from its head."""
    try:
        tag = TinyTag.get(file_obj=io.BytesIO(data), tags=False)
    except (
        TinyTagException,
        OSError,
        ValueError,
        struct.error,
        IndexError,
        EOFError,
        OverflowError,
        KeyError,
    ):
        return None
    lasts_s = tag.duration
    return float(lasts_s) if lasts_s is not None and 0 < lasts_s < float("inf") else None
