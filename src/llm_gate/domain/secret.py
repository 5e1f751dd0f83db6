"""A value that must never be printed."""

import re

_HIDDEN = "[redacted]"
# Pieces of something shorter would be ordinary words.
_SHORTEST_WITH_PIECES = 12
_END_CHARS = 8
_MASK = re.compile(r"(?:\*{2,}|\.{3,}|[…•·#]+|[xX]{4,})[-*.…•·#]*")
_LEAST_HEAD, _LEAST_TAIL = 2, 3
_LONGEST_END = 64  # what shows more than this is found by its first or last characters alone


class Secret:
    """A credential: shows itself to nobody but `reveal`, and cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself; call this only where the value is put on the wire."""
        return self._value

    def redact(self, text: str) -> str:
        """Return `text` without the value, also where it is quoted half masked or only begun."""
        if not self._value:
            return text
        text = text.replace(self._value, _HIDDEN)
        if len(self._value) < _SHORTEST_WITH_PIECES:
            return text
        return self._without_ends(self._without_masked(text))

    def _without_masked(self, text: str) -> str:
        """Hide what stands for the value: its first characters, a mask, its last characters; either end will do."""
        kept: list[str] = []
        done = 0
        for mask in _MASK.finditer(text):
            before = text[max(done, mask.start() - _LONGEST_END) : mask.start()]
            after = text[mask.end() : mask.end() + _LONGEST_END]
            head = _overlap(before, self._value)
            # Turned around, the end of the value is its beginning.
            tail = _overlap(after[::-1], self._value[::-1])
            if head < _LEAST_HEAD and tail < _LEAST_TAIL:
                continue
            kept += [text[done : mask.start() - head], _HIDDEN]
            done = mask.end() + tail
        return "".join((*kept, text[done:]))

    def _without_ends(self, text: str) -> str:
        """Hide a run that begins or ends as the value does."""
        value = self._value
        for anchor, step in ((value[:_END_CHARS], 1), (value[-_END_CHARS:], -1)):
            whole = value[::step]
            turned, begin = text[::step], anchor[::step]
            pieces: list[str] = []
            at = 0
            while (found := turned.find(begin, at)) >= 0:
                size = _shared(turned[found : found + len(whole)], whole)
                pieces += [turned[at:found], _HIDDEN[::step]]
                at = found + size
            text = "".join((*pieces, turned[at:]))[::step]
        return text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not serialisable")


def _overlap(text: str, value: str) -> int:
    """Return how many characters at the end of a text are the first ones of the value."""
    longest = min(len(text), len(value))
    return next((size for size in range(longest, 0, -1) if text.endswith(value[:size])), 0)


def _shared(text: str, value: str) -> int:
    """Return how many first characters two texts share."""
    pairs = enumerate(zip(text, value, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(text), len(value)))
