"""Answers kept for requests that are sent again with the same idempotency key: the values of that port.

Theory of operation: who is first with a key holds a claim on it until the answer is there. A complete successful answer
is kept; an error frees the key; what was perhaps charged but is not there to be shown closes it. A claim whose process
is gone is closed too, since nobody knows how far it came.
"""

import hashlib
from typing import Literal

from msgspec import Struct

KEPT_MS = 24 * 3_600_000
"""How long a key is remembered, and with it the answer."""

MAX_KEPT_BYTES = 1_048_576
"""The largest body that is kept."""

Closed = Literal["unknown", "too_large"]
"""Why an answer is not to be had: nobody knows how the first request ended, or it was too large to keep."""


class Claim(Struct, frozen=True, kw_only=True):
    """One request that carries a key. `subject` is whose it is, `owner` the process that works on it."""

    subject: str
    key: str
    fingerprint: str
    owner: str
    made_ms: int

    @property
    def place(self) -> tuple[str, str]:
        """What may be claimed once."""
        return (self.subject, self.key)

    @property
    def expires_ms(self) -> int:
        """When the key is forgotten."""
        return self.made_ms + KEPT_MS


class KeptAnswer(Struct, frozen=True, kw_only=True):
    """A complete answer as it was sent, without the headers that belong to one exchange alone."""

    status: int
    content_type: str
    headers: dict[str, str]
    body: bytes


class Fresh(Struct, frozen=True, kw_only=True):
    """Nobody had the key: it is this claim's now."""


class Running(Struct, frozen=True, kw_only=True):
    """The same request is under way, here or in another process."""


class Stored(Struct, frozen=True, kw_only=True):
    """The same request was answered."""

    answer: KeptAnswer


class Lost(Struct, frozen=True, kw_only=True):
    """The same request was made, and its answer is not to be had."""

    why: Closed


class Mismatch(Struct, frozen=True, kw_only=True):
    """The key was used for another request."""


Begun = Fresh | Running | Stored | Lost | Mismatch


def fingerprint_of(*parts: bytes) -> str:
    """Return what tells requests apart: SHA-256 over the parts, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()
