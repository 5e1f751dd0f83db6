"""How a kept answer lies in a store: where by (digests of whose it is and what was asked), and sealed in two parts.

Theory of operation: the head holds what an answer is found by (its key, group, times, vector), the body the answer, so
that vectors can be read without the answers. Each part is sealed for its place, which is a digest of tenant, part and
key: what is moved to another place, or another tenant, does not open there. A body opens only behind its own head.
"""

import os
import struct
from collections.abc import Sequence
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from llm_gate.domain.cache import CacheEntry, Shelf

MOST_DIMENSIONS = 4_096
"""An answer whose vector is longer is kept without it."""

_PLACE, _NEIGHBOURHOOD = b"llm-gate cache place 1", b"llm-gate cache neighbourhood 1"
_HEAD, _BODY = b"llm-gate cache head 1", b"llm-gate cache body 1"
_LENGTH = struct.Struct(">I")
_NONCE_BYTES, _TAG_BYTES = 12, 16
_NUMBER_BYTES, _HEAD_REST_BYTES = 4, 512
_MOST_OF_ONE = 2.0  # no number of a vector of length one is larger than one, rounding apart


class Head(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What an answer is found by. `vector` is packed: 32 bits each, the least significant byte first."""

    key: bytes
    group: bytes | None
    made_ms: int
    expires_ms: int
    saved_nanos: int | None
    vector: bytes | None

    def neighbourhood(self, shelf: Shelf) -> bytes | None:
        """Return the neighbourhood it belongs to; None where it can be compared with nothing."""
        if self.group is None or self.vector is None:
            return None
        return neighbourhood_of(shelf, self.group, len(self.vector) // _NUMBER_BYTES)


def place_of(shelf: Shelf, key: bytes) -> bytes:
    """Return where the answer of a key lies: another place for every tenant, part and key."""
    return sha256(_joined(_PLACE, shelf.tenant.encode(), shelf.part.encode(), key)).digest()


def neighbourhood_of(shelf: Shelf, group: bytes, dimensions: int) -> bytes:
    """Return what answers have in common that may be compared: another for every tenant, part, group and size."""
    size = _LENGTH.pack(dimensions)
    return sha256(_joined(_NEIGHBOURHOOD, shelf.tenant.encode(), shelf.part.encode(), group, size)).digest()


class Seal:
    """Seals answers with a key of 16, 24 or 32 bytes, and opens them."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def close(self, shelf: Shelf, place: bytes, entry: CacheEntry) -> bytes:
        """Seal an answer for its place."""
        head = Head(
            key=entry.key,
            group=entry.group,
            made_ms=entry.made_ms,
            expires_ms=entry.expires_ms,
            saved_nanos=entry.saved_nanos,
            vector=packed(entry.vector),
        )
        front = self._sealed(msgspec.msgpack.encode(head), _joined(_HEAD, *_whose(shelf), place))
        body = self._sealed(entry.body, _joined(_BODY, *_whose(shelf), place, front[-_TAG_BYTES:]))
        return _LENGTH.pack(len(front)) + front + body

    def head(self, shelf: Shelf, place: bytes, sealed: bytes) -> Head | None:
        """Return the head of what lies at a place, by its first bytes; None where it was not sealed for it."""
        opened = self._front(shelf, place, sealed)
        return None if opened is None else opened[0]

    def open(self, shelf: Shelf, place: bytes, sealed: bytes) -> CacheEntry | None:
        """Return what lies at a place, without its vector; None where it was not sealed for it."""
        opened = self._front(shelf, place, sealed)
        if opened is None:
            return None
        head, end, tag = opened
        body = self._opened(sealed[end:], _joined(_BODY, *_whose(shelf), place, tag))
        if body is None:
            return None
        return CacheEntry(
            key=head.key,
            body=body,
            made_ms=head.made_ms,
            expires_ms=head.expires_ms,
            saved_nanos=head.saved_nanos,
            group=head.group,
        )

    def _front(self, shelf: Shelf, place: bytes, sealed: bytes) -> tuple[Head, int, bytes] | None:
        """Return the head, where it ends, and its tag."""
        if len(sealed) < _LENGTH.size:
            return None
        end = head_bytes_of(sealed)
        if end > len(sealed):
            return None
        front = sealed[_LENGTH.size : end]
        data = self._opened(front, _joined(_HEAD, *_whose(shelf), place))
        if data is None:
            return None
        try:
            head = msgspec.msgpack.decode(data, type=Head)
        except msgspec.DecodeError:
            return None  # another version may have written it otherwise
        return (head, end, front[-_TAG_BYTES:]) if place_of(shelf, head.key) == place else None

    def _sealed(self, data: bytes, bound_to: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, bound_to)

    def _opened(self, sealed: bytes, bound_to: bytes) -> bytes | None:
        if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
            return None
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)
        except InvalidTag:
            return None


def head_bytes_of(sealed: bytes) -> int:
    """Return how many of the first bytes of what was sealed hold its head."""
    return _LENGTH.size + int(_LENGTH.unpack_from(sealed)[0])


def head_room_bytes(dimensions: int) -> int:
    """Return how many of the first bytes hold the head of any answer with a vector of so many numbers."""
    return _NUMBER_BYTES * dimensions + _HEAD_REST_BYTES


def packed(vector: Sequence[float] | None) -> bytes | None:
    """Return a vector in four bytes a number; None where there is none that could be compared."""
    if not vector or len(vector) > MOST_DIMENSIONS or not any(vector):
        return None
    if not all(-_MOST_OF_ONE <= each <= _MOST_OF_ONE for each in vector):
        return None
    return struct.pack(f"<{len(vector)}f", *vector)


def _whose(shelf: Shelf) -> tuple[bytes, bytes]:
    return shelf.tenant.encode(), shelf.part.encode()


def _joined(*parts: bytes) -> bytes:
    """Join parts so that no two lists of parts come to the same."""
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)
