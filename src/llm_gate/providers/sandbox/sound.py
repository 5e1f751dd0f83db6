"""Speech that is none: soft tones in a WAV whose head holds the text, so that it can be read back.

16 bits, one channel, 24,000 samples a second. The same words give the same bytes.
"""

import hashlib
import math
import struct
from collections.abc import Iterator
from itertools import islice

SAMPLE_RATE = 24_000
TITLE = "Synthetic speech by the LLM Gate sandbox"
LONGEST_S = 60.0
CHARACTER_S = 0.06
"""How long the tone of one character lasts at a speed of 1, in seconds."""

_LOUDEST = 0.12 * 32_767
_FADE_SHARE = 0.25
# Tones of a pentatonic scale, in halftones above the lowest: any order of them sounds calm.
_STEPS = (0, 2, 4, 7, 9, 12, 14, 16, 19, 21)
_LOWEST_HZ, _RANGE_HZ = 150.0, 110.0
_HEAD_BYTES = 12
_CHUNK_HEAD = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
_PCM = 1


def make_speech(text: str, *, voice: str = "", speed: float = 1.0) -> bytes:
    """Return a WAV with one tone per character, at most 60 s of them, and the whole text in its head.

    Another voice is another pitch. `speed` 2 is twice as fast.
    """
    samples = _tones(text, voice, round(SAMPLE_RATE * CHARACTER_S / speed))
    told = b"INFO" + _chunk(b"INAM", _ended(TITLE)) + _chunk(b"ICMT", _ended(text))
    form = _FORMAT.pack(_PCM, 1, SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16)
    # The text stands before the tones: whoever reads the beginning alone learns what it is.
    body = b"WAVE" + _chunk(b"fmt ", form) + _chunk(b"LIST", told) + _chunk(b"data", samples)
    return _CHUNK_HEAD.pack(b"RIFF", len(body)) + body


def read_speech(data: bytes) -> str | None:
    """Return the text of a WAV that the sandbox made; None for any other recording."""
    for name, told in _chunks(data):
        if name != b"LIST" or told[:4] != b"INFO":
            continue
        said = dict(_parts(told, 4))
        if said.get(b"INAM") == _ended(TITLE) and b"ICMT" in said:
            return said[b"ICMT"].removesuffix(b"\0").decode(errors="replace")
    return None


def read_wav_duration(data: bytes) -> float | None:
    """Return how long a WAV lasts, in seconds; None for anything else, and where its head makes no sense."""
    bytes_per_s = 0
    for name, body in _chunks(data):
        if name == b"fmt " and len(body) >= _FORMAT.size:
            bytes_per_s = _FORMAT.unpack_from(body)[3]
        elif name == b"data":
            return len(body) / bytes_per_s if bytes_per_s > 0 else None
    return None


def _tones(text: str, voice: str, length: int) -> bytes:
    """Return the samples; `length` is how many of them each character gets."""
    if not text:
        return bytes(2 * length)
    base_hz = _LOWEST_HZ + hashlib.sha256(voice.encode(errors="replace")).digest()[0] / 255 * _RANGE_HZ
    silence = bytes(2 * length)
    made = [_tone(base_hz * 2 ** (step / 12), length) for step in _STEPS]
    most = int(SAMPLE_RATE * LONGEST_S) // length
    return b"".join(
        silence if letter.isspace() else made[ord(letter) % len(made)] for letter in islice(text, most)
    )


def _tone(hertz: float, length: int) -> bytes:
    """Return one tone, faded in and out so that it does not click."""
    fade = max(1, round(length * _FADE_SHARE))
    turn = 2 * math.pi * hertz / SAMPLE_RATE
    samples: list[int] = []
    for place in range(length):
        loud = min(1.0, place / fade, (length - 1 - place) / fade)
        wave = math.sin(turn * place) + 0.2 * math.sin(2 * turn * place)
        samples.append(round(_LOUDEST * loud * wave))
    return struct.pack(f"<{length}h", *samples)


def _ended(text: str) -> bytes:
    return text.encode(errors="replace") + b"\0"


def _chunk(name: bytes, body: bytes) -> bytes:
    return _CHUNK_HEAD.pack(name, len(body)) + body + b"\0" * (len(body) % 2)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Return the parts of a WAV; none where it is no WAV."""
    if data[:4] == b"RIFF" and data[8:_HEAD_BYTES] == b"WAVE":
        yield from _parts(data, _HEAD_BYTES)


def _parts(data: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    """Return names and bodies one by one; a body that is cut off is returned as far as it goes."""
    while start + _CHUNK_HEAD.size <= len(data):
        name, length = _CHUNK_HEAD.unpack_from(data, start)
        start += _CHUNK_HEAD.size
        yield name, data[start : start + length]
        start += length + length % 2
