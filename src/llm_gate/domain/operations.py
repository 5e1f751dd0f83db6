"""What is about to be done, described well enough to be priced before it runs."""

import re

from msgspec import Struct

from llm_gate.domain.catalog import Operation
from llm_gate.domain.limits import BUCKET_OF, Bucket

_SIZE = re.compile(r"([1-9][0-9]{0,5})[xX*\u00d7]([1-9][0-9]{0,5})")


class Count(Struct, frozen=True, kw_only=True):
    """How many of something there will be: the likely number, and one that is never exceeded.

    Raises:
        ValueError: the expected number is negative or exceeds the most.
    """

    expected: int
    most: int

    def __post_init__(self) -> None:
        if not 0 <= self.expected <= self.most:
            raise ValueError(f"expected {self.expected} is not between 0 and {self.most}")

    @property
    def is_exact(self) -> bool:
        """Whether the number is known."""
        return self.expected == self.most


class Draft(Struct, frozen=True, kw_only=True):
    """An operation before it runs; None is what nobody said, "auto" included.

    Token counts are those of the whole call: `input_tokens` with everything that goes in, `output_tokens` with text
    and audio that come out, `image_output_tokens` the pictures apart. `count` is how many pictures, videos, searches
    or runs there are; `width`, `height` (pixels), `duration_s`, `characters` and `pages` are those of one of them.
    `resolution` is the vendor's own step, such as "720p" or "2K".

    Raises:
        ValueError: `count` is below 1, another number is negative, or there is a width without a height.
    """

    operation: Operation
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    image_output_tokens: Count | None = None
    count: int = 1
    width: int | None = None
    height: int | None = None
    quality: str | None = None
    resolution: str | None = None
    duration_s: Count | None = None
    characters: int | None = None
    pages: int | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a count of {self.count} is no operation")
        if any(number is not None and number < 0 for number in (self.characters, self.pages)):
            raise ValueError("characters and pages are never negative")
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height need each other")
        if self.width is not None and self.height is not None and min(self.width, self.height) < 1:
            raise ValueError("a picture has a width and a height of at least one pixel")

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height, in pixels."""
        return None if self.width is None or self.height is None else (self.width, self.height)


def exactly(number: int) -> Count:
    """Return a count that is known."""
    return Count(expected=number, most=number)


def bucket_of(operation: Operation) -> Bucket:
    """Return what an operation counts against."""
    return BUCKET_OF[operation]


def parse_size(text: str) -> tuple[int, int] | None:
    """Read "1024x1024" or "832*480" as width and height; None for anything else, such as "auto"."""
    match = _SIZE.fullmatch(text)
    return None if match is None else (int(match[1]), int(match[2]))
