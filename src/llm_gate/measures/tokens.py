"""Counts tokens of texts exactly, by the rank files that come with the package; nothing is ever downloaded.

Needs the extra `tokens`. An encoding is read when it is first asked for, and stays: o200k_base takes 85 MB and a third
of a second, cl100k_base half of either.
"""

import asyncio
import gzip
from base64 import b64decode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from msgspec import Struct

from llm_gate.domain.errors import GateFault

LARGEST_CHARS = 4_000_000
"""Texts that are longer together are not counted: it would take seconds."""

_AT_ONCE = 1
# A million blanks in one piece overflow the stack of the library's pattern, and end its thread.
_PIECE_CHARS = 50_000


class _Encoding(Struct, frozen=True, kw_only=True):
    """What tells an encoding from others: how texts are cut into words, and the sum of its file."""

    pattern: str
    digest: str


# https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py
_ENCODINGS: Mapping[str, _Encoding] = {
    "cl100k_base": _Encoding(
        pattern=(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
            r"|\s*[\r\n]|\s+(?!\S)|\s"
        ),
        digest="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": _Encoding(
        pattern=(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        digest="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
}


class ShippedTokenizers:
    """Counts in a thread, one request at a time, so that neither the event loop nor the processors are held up."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._loaded: dict[str, Any] = {}
        self.is_installed = find_spec("tiktoken") is not None

    async def count(self, encoding: str, texts: Sequence[str]) -> tuple[int, ...] | None:
        """Return how many tokens each text has; None without the extra, or where the texts are too long to be counted.

        Raises:
            GateFault: the encoding is unknown, or its file is not what it should be.
        """
        if not self.is_installed or sum(map(len, texts)) > LARGEST_CHARS:
            return None
        async with self._room:
            return await asyncio.to_thread(self.count_now, encoding, texts)

    def count_now(self, encoding: str, texts: Sequence[str]) -> tuple[int, ...]:
        """Count in this thread; raises what `count` raises."""
        found = self._loaded.get(encoding)
        if found is None:
            found = self._loaded[encoding] = _load(encoding)
        return tuple(_count(found, text) for text in texts)


def _count(encoding: Any, text: str) -> int:
    starts = range(0, len(text), _PIECE_CHARS)
    return sum(len(encoding.encode_ordinary(text[start : start + _PIECE_CHARS])) for start in starts)


def _load(name: str) -> Any:
    # An optional driver, as in storage/database.py.
    from tiktoken import Encoding  # noqa: PLC0415

    known = _ENCODINGS.get(name)
    if known is None:
        raise GateFault(f"there is no encoding {name!r} (there are {', '.join(sorted(_ENCODINGS))})")
    packed = files("llm_gate.measures").joinpath("ranks", f"{name}.tiktoken.gz").read_bytes()
    data = gzip.decompress(packed)
    if sha256(data).hexdigest() != known.digest:
        raise GateFault(f"the rank file of {name!r} is not the one that belongs to this version")
    ranks = {b64decode(token): int(rank) for token, rank in (line.split() for line in data.splitlines())}
    return Encoding(name, pat_str=known.pattern, mergeable_ranks=ranks, special_tokens={})
