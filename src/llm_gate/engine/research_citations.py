"""Sees to it that every number in an answer points at a source: what points at nothing is taken out.

Theory of operation: a citation is `[3]`, or several in one pair of brackets, `[1, 4]` or `[2-5]`. What a model puts
behind it to make it a link of its own (`[3](address)`, or `[3]: address` at the beginning of a line) would send readers
elsewhere, so that it goes too. Code, between backticks, is left alone. Text comes in pieces, and may be cut anywhere:
what could be the beginning of a citation waits for what follows. Nor does what is taken out let its neighbours join.
"""

import re
from collections.abc import Iterator

_LONGEST_CHARS = 128
"""What is longer than this between brackets is no citation."""

_LONGEST_LINK_CHARS = 1_024
"""How much is waited for to see whether an address follows a citation."""

_OPEN = re.compile(r"\[[\d\s,;\-\u2013^]*\Z")
_CITED = re.compile(r"\[\^?\s*(\d{1,9}(?:\s*[,;\-\u2013]\s*\^?\d{1,9})*)\s*\]")
_NUMBERS = re.compile(r"(\d+)(?:\s*[-\u2013]\s*\^?(\d+))?")
_LINKED = re.compile(r"\([^()\n]*\)|\[[^\[\]\n]*\]")
_ADDRESS = re.compile(r"\(\s*(?:<|[a-zA-Z][a-zA-Z0-9+.\-]*:|//|/|#|\?|[\w\-]+\.\w)")
_MARK = re.compile(r"[\[`\n(:]")
_FENCE = 3
_MOST_RANGE = 100


class CitationFilter:
    """Passes one answer on without numbers that point at nothing.

    `sources` is how many there are. `cited` are the numbers that stand in the answer, in the order in which they
    first came; `removed` those that were taken out, and `links` counts links of the model's own that were.
    """

    def __init__(self, sources: int) -> None:
        self.cited: list[int] = []
        self.removed: list[int] = []
        self.links = 0
        self._sources = sources
        self._held = ""
        self._fence = 0
        self._at_line_start = True
        # Of what was passed on last: its end, whether that is a citation, and whether one at the start of a line.
        self._tail = ""
        self._is_behind = False
        self._is_first = False

    def feed(self, text: str) -> str:
        """Take the next piece, and return what can be passed on."""
        return "".join(self._passed(self._held + text, is_end=False))

    def close(self) -> str:
        """Return what was still waiting, at the end of the answer."""
        return "".join(self._passed(self._held, is_end=True))

    def _passed(self, text: str, *, is_end: bool) -> Iterator[str]:
        at = 0
        while at < len(text):
            mark = _MARK.search(text, at)
            end = len(text) if mark is None else max(mark.start(), at + 1)
            piece, is_cited = text[at:end], False
            if text[at] == "`":
                taken = self._code(text, at)
                if taken is None and not is_end:
                    break
                end, piece = taken or (end, piece)
            elif text[at] == "[" and not self._fence:
                found = _CITED.match(text, at)
                read = self._open(text, at) if found is None else self._cite(text, found, is_end=is_end)
                if read is None and not is_end:
                    break
                end, piece = read or (end, piece)
                is_cited = found is not None
            elif text.startswith("\n\n", at) and self._fence < _FENCE:
                # Code within a line ends with its paragraph, whether or not somebody closed it.
                self._fence = 0
            elif text[at] == "\n" and at + 1 == len(text) and self._fence and not is_end:
                break
            if piece:
                yield self._apart(piece, is_cited=is_cited)
            at = end
        self._held = text[at:]

    def _apart(self, piece: str, *, is_cited: bool) -> str:
        """Return a piece so that it makes no link of a citation before it."""
        if self._is_behind and not is_cited and piece[0] in ("([:" if self._is_first else "(["):
            piece = f" {piece}"
        is_citation = is_cited and piece[-1] == "]"
        if is_citation and not self._is_behind:
            self._is_first = self._at_line_start
        self._is_behind = is_citation
        self._at_line_start = piece == "\n" or (self._at_line_start and piece.isspace())
        self._tail = (self._tail + piece)[-_LONGEST_CHARS:]
        return piece

    def _code(self, text: str, at: int) -> tuple[int, str] | None:
        """Read backticks, which open code or end it; None where more of them may follow."""
        end = at
        while end < len(text) and text[end] == "`":
            end += 1
        if end == len(text):
            return None
        ticks = end - at
        if not self._fence:
            self._fence = ticks
        elif ticks == self._fence or (self._fence >= _FENCE and ticks > self._fence):
            self._fence = 0
        return end, text[at:end]

    def _open(self, text: str, at: int) -> tuple[int, str] | None:
        """Read a bracket that is no citation, or not yet (None)."""
        rest = text[at : at + _LONGEST_CHARS]
        may_become = len(rest) < _LONGEST_CHARS and _OPEN.match(rest) is not None
        return None if may_become else (at + 1, "[")

    def _cite(self, text: str, found: "re.Match[str]", *, is_end: bool) -> tuple[int, str] | None:
        """Read a citation and the links behind it; None where what follows decides."""
        end, links = found.end(), 0
        while True:
            if end == len(text) and not is_end:
                return None
            if text[end : end + 1] not in {"(", "["} or _CITED.match(text, end) is not None:
                break
            link = _LINKED.match(text, end)
            may_become = "\n" not in text[end:] and len(text) - end < _LONGEST_LINK_CHARS
            if link is None and not is_end and may_become:
                return None
            if link is None or (link[0][0] == "(" and not _ADDRESS.match(link[0])):
                break
            links, end = links + 1, link.end()
        if text[end : end + 1] == ":" and self._at_line_start:
            # It would make a link of every citation with this number.
            links, end = links + 1, end + 1
        self.links += links
        return end, self._kept(found)

    def _kept(self, found: "re.Match[str]") -> str:
        numbers = list(_numbers(found[1]))
        good = [number for number in numbers if 1 <= number <= self._sources]
        self.cited += [number for number in dict.fromkeys(good) if number not in self.cited]
        bad = [number for number in numbers if number not in good]
        self.removed += [number for number in dict.fromkeys(bad) if number not in self.removed]
        if not bad and "^" not in found[0]:
            return found[0]
        if not good and _OPEN.search(self._tail):
            # Without something in its place, what stands around it would make a citation of its own.
            return "?"
        return "".join(f"[{number}]" for number in dict.fromkeys(good))


def _numbers(text: str) -> Iterator[int]:
    for first, last in _NUMBERS.findall(text):
        start, end = int(first), int(last or first)
        if start <= end < start + _MOST_RANGE:
            yield from range(start, end + 1)
        else:
            yield from (start, end)
