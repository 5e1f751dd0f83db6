"""A guess at how many tokens texts have, by the classes of their characters; docs/counting.md says how far off it is.

What a token is depends on the tokenizer, but all of them have words of small letters as one or two tokens, and cut up
signs, digits and capitals. So each class of characters has a weight, fitted to recorded usage and to tokenizers whose
ranks are public. Counting takes a few passes in native code, and of a long text only samples are looked at.
"""

from collections.abc import Iterable

BYTES_PER_TOKEN = 4
"""What a token of output has, where only the size of what was delivered is known."""

TOKENS_PER_MEDIA = 1_600
"""What one picture or document counts, whatever its size."""

HUNDRED = 100
"""The weights are hundredths of a token."""

SAMPLED_BYTES = 16_384
"""A text that is longer is judged by samples of it."""

_SAMPLES, _SAMPLE_BYTES = 16, 1_024
_LIGHT = b"abcdefghijklmnopqrstuvwxyz \n\t\r"
_LIGHT_WEIGHT, _HEAVY_WEIGHT = 19, 59
_ASCII = bytes(range(0x80))
# By the first byte of a character in UTF-8; what is in none of these is Latin with marks, at 120 a character.
_WIDE_CLASSES = (
    (bytes(range(0x80, 0xC0)), 0),  # the other bytes of a character
    (bytes(range(0xCC, 0xE0)), 40),  # Greek, Cyrillic, Hebrew, Arabic
    (b"\xe0", 45),  # Indic scripts, Thai
    (b"\xe1\xe2", 100),  # Latin with two marks, signs
    (bytes((*range(0xE3, 0xEA), 0xEF)), 95),  # Chinese, Japanese
    (bytes(range(0xEA, 0xEF)), 85),  # Korean
    (bytes(range(0xF0, 0xF8)), 220),  # emoji
)
_LATIN_WEIGHT = 120
# In JSON, what is written as \u is one character and not six; those with few digits are of alphabets.
_UNICODE_ESCAPE_WEIGHT, _ALPHABET_ESCAPE_WEIGHT = 124, 90


def estimate_tokens(texts: Iterable[str | bytes], *, media: int = 0) -> int:
    """Return what all texts likely have together, and a constant for each picture or document."""
    weight = sum(weigh(text.encode(errors="replace") if isinstance(text, str) else text) for text in texts)
    return in_tokens(weight) + media * TOKENS_PER_MEDIA


def in_tokens(weight: int) -> int:
    """Return a weight in tokens, rounded up."""
    return -(-weight // HUNDRED)


def weigh(data: bytes) -> int:
    """Return what a text in UTF-8 likely has, in hundredths of a token."""
    sample = sample_of(data)
    return _weigh(sample) if sample is data else _weigh(sample) * len(data) // len(sample)


def weigh_json(data: bytes) -> int:
    """Return what a JSON value likely has, as it is read: an escape in it is the one character that it stands for."""
    sample = sample_of(data)
    return _weigh_json(sample) if sample is data else _weigh_json(sample) * len(data) // len(sample)


def sample_of(data: bytes) -> bytes:
    """Return a text itself, or pieces from all over it where it is too long to be looked at whole."""
    size = len(data)
    if size <= SAMPLED_BYTES:
        return data
    step = size // _SAMPLES
    return b"".join(data[start : start + _SAMPLE_BYTES] for start in range(0, step * _SAMPLES, step))


def _weigh_json(data: bytes) -> int:
    weight = _weigh(data)
    if b"\\" in data:
        weight -= data.count(b"\\") * (_HEAVY_WEIGHT - _LIGHT_WEIGHT)
        weight -= data.count(b"\\u") * _UNICODE_ESCAPE_WEIGHT
        weight -= data.count(b"\\u0") * _ALPHABET_ESCAPE_WEIGHT
    return max(weight, 0)


def _weigh(data: bytes) -> int:
    rest = data.translate(None, _LIGHT)
    # Runs of blanks, as code is indented with, are one token.
    light = len(data) - len(rest) - 2 * data.count(b"  ")
    weight = light * _LIGHT_WEIGHT
    if rest.isascii():
        return weight + len(rest) * _HEAVY_WEIGHT
    wide = rest.translate(None, _ASCII)
    weight += (len(rest) - len(wide)) * _HEAVY_WEIGHT
    for first_bytes, each in _WIDE_CLASSES:
        remaining = wide.translate(None, first_bytes)
        weight += (len(wide) - len(remaining)) * each
        if not remaining:
            return weight
        wide = remaining
    return weight + len(wide) * _LATIN_WEIGHT
