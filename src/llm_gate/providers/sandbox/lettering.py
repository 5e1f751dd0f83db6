"""Text on pictures: breaking it into lines, and choosing letters so large that it fits. Sizes are in pixels.

The font is the one inside Pillow; what it has no shape for becomes a box.
"""

import math
import unicodedata

from msgspec import Struct
from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]

SMALLEST_FONT = 8
LINE_HEIGHT = 1.32
"""From line to line, as a multiple of the font's size."""

_LARGEST_FONT = 88
# What a letter takes of its font's size, roughly: enough to choose a size that fits.
_LETTER_WIDTH = 0.55
# Letters smaller than this share of the picture cannot be read, and take long to draw.
_SMALLEST_SHARE = 40
_LONGEST_TEXT = 5_000
_UNSEEN = frozenset({"Cf", "Cs", "Mn", "Me"})
_DOTS = "..."
# What texts in Latin letters are full of and the font does not have.
_SPELT = str.maketrans(
    {
        "\u201e": '"',
        "\u201a": "'",
        "\u2013": "-",
        "\u2014": "-",
        "\u2022": "*",
        "\u00d7": "x",
        "€": "EUR",
        "ß": "ss",
        "æ": "ae",
        "ø": "o",
        "ł": "l",
    }
)


class Box(Struct, frozen=True, kw_only=True):
    """A part of a picture."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """From left to right."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """From top to bottom."""
        return self.bottom - self.top


class Lines(Struct, frozen=True, kw_only=True):
    """A text in lines. `is_cut` tells that some of it found no room; then the last line ends in three dots."""

    lines: tuple[str, ...]
    is_cut: bool


def clamped(value: int, least: int, most: int) -> int:
    """Return the number from `least` to `most` that is nearest to a value."""
    return max(least, min(value, most))


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Return the font in a size.

    Raises:
        TypeError: Pillow was built without FreeType.
    """
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType")
    # One layout everywhere: the same picture whichever libraries are there.
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


def write_into(draw: ImageDraw.ImageDraw, text: str, box: Box, fill: Colour) -> None:
    """Write a text into a box, as large as it fits; what does not fit at all ends in three dots."""
    letters = clamped(len(text), 12, _LONGEST_TEXT)
    fitting = math.sqrt(max(1, box.width * box.height) / (letters * _LETTER_WIDTH * LINE_HEIGHT))
    side = min(box.width, box.height)
    least = clamped(side // _SMALLEST_SHARE, SMALLEST_FONT, _LARGEST_FONT)
    size = clamped(int(fitting * 0.92), least, max(least, min(side // 8, _LARGEST_FONT)))
    while True:
        font = font_of(size)
        step = round(size * LINE_HEIGHT)
        written = wrapped(text, font, box.width, most=max(1, box.height // step))
        if not written.is_cut or size <= least:
            break
        size = max(least, size * 4 // 5)
    for number, line in enumerate(written.lines):
        draw.text((box.left, box.top + number * step), line, font=font, fill=fill)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, *, most: int) -> Lines:
    """Break a text into at most `most` lines of a width: between words, or inside one that is too long.

    Characters without a shape of their own are left out.
    """
    lengths: dict[str, float] = {}
    lines: list[str] = []
    paragraphs = text[:_LONGEST_TEXT].splitlines() or [""]
    for row, paragraph in enumerate(paragraphs):
        rest = _visible(paragraph)
        while True:
            line, rest = _one_line(rest, font, width, lengths)
            lines.append(line)
            has_more = bool(rest) or row < len(paragraphs) - 1 or len(text) > _LONGEST_TEXT
            if len(lines) == most and has_more:
                lines[-1] = _with_dots(line, font, width)
                return Lines(lines=tuple(lines), is_cut=True)
            if not rest:
                break
    if len(text) > _LONGEST_TEXT:
        lines[-1] = _with_dots(lines[-1], font, width)
    return Lines(lines=tuple(lines), is_cut=False)


def _one_line(
    text: str, font: ImageFont.FreeTypeFont, width: int, lengths: dict[str, float]
) -> tuple[str, str]:
    """Split off what fits in one line, at least one character."""
    used, last_blank = 0.0, 0
    for place, letter in enumerate(text):
        length = lengths.get(letter)
        if length is None:
            length = lengths[letter] = font.getlength(letter)
        used += length
        if letter == " ":
            last_blank = place
        elif used > width and place > 0:
            end = last_blank or place
            return text[:end].rstrip(), text[end:].lstrip()
    return text, ""


def _with_dots(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    while line and font.getlength(line + _DOTS) > width:
        line = line[:-1]
    return line + _DOTS


def _visible(text: str) -> str:
    """Leave out what has no shape of its own, accents included: the font has none. Every blank becomes a plain one."""
    parts = unicodedata.normalize("NFD", text.translate(_SPELT))
    kinds = ((letter, unicodedata.category(letter)) for letter in parts)
    return "".join(
        " " if letter.isspace() or kind == "Cc" else letter for letter, kind in kinds if kind not in _UNSEEN
    ).strip()
