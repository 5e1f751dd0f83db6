"""Newline-delimited JSON from bytes: any portions, any line end, split characters, bounded size.

Theory of operation: JSON never holds a raw line end inside a value, so LF, CR and CRLF all end a line and what is
blank between two of them is no line at all. A byte is never decoded here, so characters may be split anywhere.
"""

from collections.abc import Sequence

MAX_LINE_BYTES = 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class LineTooLargeError(ValueError):
    """A line grew beyond MAX_LINE_BYTES; `lines` are the complete ones that came before it."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        super().__init__(f"a line is larger than {MAX_LINE_BYTES} bytes")
        self.lines = tuple(lines)


class NdjsonParser:
    """Cuts a byte stream into lines that are not blank."""

    __slots__ = ("_at_start", "_pieces", "_size_bytes")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._at_start = True

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the lines they complete.

        Raises:
            LineTooLargeError: a line is larger than MAX_LINE_BYTES.
        """
        first, *others = data.replace(b"\r", b"\n").split(b"\n")
        lines: list[bytes] = []
        self._keep(first, lines)
        for piece in others:
            lines += self.flush()
            self._keep(piece, lines)
        return lines

    def flush(self) -> list[bytes]:
        """Return what stands after the last line end: the last line may have none."""
        line = b"".join(self._pieces)
        self._pieces.clear()
        self._size_bytes = 0
        if self._at_start and line:
            self._at_start = False
            line = line.removeprefix(_BOM)
        return [stripped] if (stripped := line.strip(b" \t")) else []

    def _keep(self, piece: bytes, lines: Sequence[bytes]) -> None:
        # A long line arrives in many portions: joining them only at its end keeps the work linear.
        self._size_bytes += len(piece)
        if self._size_bytes > MAX_LINE_BYTES:
            self._pieces.clear()
            raise LineTooLargeError(lines)
        if piece:
            self._pieces.append(piece)
