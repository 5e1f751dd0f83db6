"""Answers that are kept so that the same question need not be paid twice: keys, entries, and where they are kept.

Theory of operation: an entry belongs to a `Shelf`: a tenant, and within it the namespace that a plan or an alias gives.
There is no way to ask without naming the shelf, so that no tenant can ever reach another's. The key of an entry is the
full SHA-256 of everything that can change the answer: the request in neutral form, the models that may answer, their
prices. Bodies are sealed by the store; a store that is away is a miss, never an error.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct, structs

CacheWord = Literal["hit", "miss", "bypass", "semantic"]
"""What became of a call at the cache, as `x-llm-gate-cache` says it."""


class CacheRule(Struct, frozen=True, kw_only=True):
    """What holds for one call: what is looked for, how long an answer is good, and how near a question must be.

    `namespace` keeps answers apart from those of another.
    """

    exact: bool = False
    semantic: bool = False
    ttl_ms: int = 3_600_000
    threshold: float = 0.95
    namespace: str = ""

    @property
    def is_on(self) -> bool:
        """Whether anything is kept at all."""
        return self.exact or self.semantic


class CacheRules(Struct, frozen=True, kw_only=True):
    """What the operator says of kept answers: `usual`, and otherwise by plan and alias.

    `per_user` keeps each user's answers for that user alone. `model` compares questions; requests whose temperature is
    above `max_temperature` are not compared. Of `plans` and `aliases`, each gives what it says in the place of the
    rule before it; the alias goes last.
    """

    usual: CacheRule = CacheRule()
    per_user: bool = False
    model: str = ""
    max_temperature: float = 0.5
    plans: Mapping[str, Mapping[str, object]] = {}
    aliases: Mapping[str, Mapping[str, object]] = {}

    def of(self, plan: str, name: str) -> CacheRule:
        """Return what holds for a call under a plan by the name that was asked for."""
        said = {**self.plans.get(plan, {}), **self.aliases.get(name, {})}
        return structs.replace(self.usual, **said) if said else self.usual


class Shelf(Struct, frozen=True, kw_only=True):
    """Whose answers: `tenant` in any case; `part` is the namespace, and the user where answers are not shared."""

    tenant: str
    part: str = ""


class CacheEntry(Struct, frozen=True, kw_only=True):
    """One kept answer. `key` is 32 bytes; `body` is the answer, written by the engine and sealed by the store.

    `group` (32 bytes) is the digest of everything but the last words of the question: only entries of one group are
    ever compared by their vectors. `vector` is the question's, of length one. `saved_nanos` is what a hit saves.
    Instants are ms since 1970.
    """

    key: bytes
    body: bytes
    made_ms: int
    expires_ms: int
    saved_nanos: int | None = None
    group: bytes | None = None
    vector: tuple[float, ...] | None = None


class Neighbour(Struct, frozen=True, kw_only=True):
    """The nearest entry of a group, and how near it is: the cosine of the two vectors, from -1 to 1."""

    entry: CacheEntry
    similarity: float


class CacheStats(Struct, frozen=True, kw_only=True):
    """What is kept now: `entries` in all, how many of them with a vector, their bytes, and when the oldest was made."""

    entries: int = 0
    with_vectors: int = 0
    bytes: int = 0
    oldest_ms: int | None = None


class CacheStore(Protocol):
    """Where answers are kept, for every process of the gateway. No method raises because the store is away.

    It is bounded: what is oldest makes room.
    """

    async def find(self, shelf: Shelf, key: bytes, *, at_ms: int) -> CacheEntry | None:
        """Return the entry of a key that has not expired; without its vector."""

    async def nearest(
        self, shelf: Shelf, group: bytes, vector: Sequence[float], *, at_ms: int
    ) -> Neighbour | None:
        """Return the entry of a group whose vector is nearest, of those that have not expired."""

    async def keep(self, shelf: Shelf, entry: CacheEntry) -> None:
        """Keep an entry, in place of any other of its key."""

    async def generation(self) -> int:
        """Return a number that grows with every `clear`: whoever keeps copies of entries drops them then."""

    async def stats(self, tenant: str | None) -> CacheStats:
        """Return what is kept for a tenant, or for all.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """

    async def clear(self, tenant: str | None) -> int:
        """Remove what is kept for a tenant, or for all, and tell how much that was.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """

    async def sweep(self, at_ms: int) -> int:
        """Remove some of what has expired, and of what is more than there is room for."""

    async def close(self) -> None:
        """Close every connection."""
