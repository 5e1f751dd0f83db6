"""The form of virtual keys: what they look like, how a typo is noticed, how they are hashed. Randomness is passed in.

A key is `lgk_` (or `lga_`, for administration), 33 letters and digits that carry 192 random bits, and 6 more that
check the rest. So scanners of leaked credentials can find one, and what was mistyped needs no look-up.
"""

import hmac
import re
from hashlib import sha256
from zlib import crc32

KEY_PREFIX = "lgk_"
ADMIN_PREFIX = "lga_"
RANDOM_BYTES = 24
SHOWN_CHARS = 12
"""How much of a key is kept to tell it from others: its prefix and 8 of its random characters."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY_CHARS, _CHECK_CHARS = 33, 6
_FORM = re.compile(f"lg[ka]_[0-9A-Za-z]{{{_BODY_CHARS + _CHECK_CHARS}}}")


class KeyHash:
    """Hashes keys with a secret that is not in the store, so that its rows alone give none away. Never shows itself."""

    __slots__ = ("_prepared",)

    def __init__(self, secret: bytes) -> None:
        self._prepared = hmac.new(secret, digestmod=sha256)

    def digest(self, key: str) -> bytes:
        """Return the digest (32 bytes) under which a key is kept."""
        # A copy of what is prepared, since hashing at one go lets other threads run, at every request.
        hasher = self._prepared.copy()
        hasher.update(key.encode())
        return hasher.digest()

    def __call__(self, text: str) -> bytes | None:
        """Return the digest of what a caller presents; None for what cannot be a key by its form and checksum."""
        return self.digest(text) if check_form(text) else None

    def __repr__(self) -> str:
        return "KeyHash(***)"

    def __reduce__(self) -> str:
        raise TypeError("a KeyHash is not serialisable")


def key_text(randomness: bytes, *, is_admin: bool = False) -> str:
    """Return the key made from `RANDOM_BYTES` random bytes."""
    body = _written(int.from_bytes(randomness), _BODY_CHARS)
    start = f"{ADMIN_PREFIX if is_admin else KEY_PREFIX}{body}"
    return f"{start}{_check(start)}"


def check_form(text: str) -> bool:
    """Tell whether a text can be one of our keys: its form and its checksum are right."""
    return _FORM.fullmatch(text) is not None and _check(text[:-_CHECK_CHARS]) == text[-_CHECK_CHARS:]


def shown_part(key: str) -> str:
    """Return what of a key may be kept and shown."""
    return key[:SHOWN_CHARS]


def _check(start: str) -> str:
    return _written(crc32(start.encode()), _CHECK_CHARS)


def _written(number: int, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
