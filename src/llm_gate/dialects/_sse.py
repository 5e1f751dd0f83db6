"""Server-sent events from bytes: any portions, any line end, split characters, comments, bounded size.

Theory of operation: bytes are brought to LF line ends as they come (a CR at the end of a portion counts at once,
an LF right after it is swallowed), collected until a blank line, and only then looked at. What is no event at all
but starts like JSON is handed out as `bare`: some vendors report a failure that way.
"""

from typing import NamedTuple

MAX_EVENT_BYTES = 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_TOO_LARGE = f"an event is larger than {MAX_EVENT_BYTES} bytes"


class SseEvent(NamedTuple):
    """One event: its bytes with the closing blank line, its type (b"" if unnamed), its data; or bare JSON."""

    raw: bytes
    event: bytes
    data: bytes
    bare: bool = False


class EventTooLargeError(ValueError):
    """An event grew beyond MAX_EVENT_BYTES."""


class SseParser:
    """Cuts a byte stream into events."""

    __slots__ = ("_at_start", "_head", "_pieces", "_size_bytes", "_swallow_lf")

    def __init__(self) -> None:
        self._head = b""
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._swallow_lf = False
        self._at_start = True

    def feed(self, data: bytes) -> list[SseEvent]:
        """Take the next bytes and return the events they complete; comments yield events without data.

        Raises:
            EventTooLargeError: an event is larger than MAX_EVENT_BYTES.
        """
        if self._at_start:
            data = self._skip_bom(data)
        if self._swallow_lf and data:
            self._swallow_lf = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._swallow_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not data:
            return []
        if (
            self._pieces
            and b"\n\n" not in data
            and not (data[:1] == b"\n" and self._pieces[-1][-1:] == b"\n")
        ):
            # A large event arrives in many portions: joining them only at its end keeps the work linear.
            self._keep(data)
            return []
        *blocks, rest = b"".join((*self._pieces, data)).split(b"\n\n")
        self._pieces.clear()
        self._size_bytes = 0
        if any(len(block) > MAX_EVENT_BYTES for block in blocks):
            raise EventTooLargeError(_TOO_LARGE)
        self._keep(rest)
        return [_read_block(block) for block in blocks if block.strip(b"\n")]

    def _keep(self, data: bytes) -> None:
        self._size_bytes += len(data)
        if self._size_bytes > MAX_EVENT_BYTES:
            self._pieces.clear()
            raise EventTooLargeError(_TOO_LARGE)
        if data:
            self._pieces.append(data)

    def flush(self) -> list[SseEvent]:
        """Return what stood after the last blank line, as some vendors leave the last one out."""
        rest = (self._head + b"".join(self._pieces)).strip(b"\n")
        self._head = b""
        self._pieces.clear()
        self._size_bytes = 0
        return [_read_block(rest)] if rest else []

    def _skip_bom(self, data: bytes) -> bytes:
        self._head += data
        data, self._head = self._head, b""
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._head = data
            return b""
        self._at_start = False
        return data.removeprefix(_BOM)


def _read_block(block: bytes) -> SseEvent:
    raw = block + b"\n\n"
    if block.startswith(b"data:") and b"\n" not in block:
        return SseEvent(raw, b"", block[5:].strip(b" "))
    block = block.lstrip(b"\n")
    if block[:1] in {b"{", b"["}:
        return SseEvent(raw, b"", block, bare=True)
    event, data = b"", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            event = value.strip()
    return SseEvent(raw, event, b"\n".join(data).strip(b" "))
