"""What the engine needs of the stores, as Protocols. Every method may raise StoreUnavailable."""

from collections.abc import Awaitable, Iterable, Mapping
from typing import Protocol

from msgspec import Struct

from llm_gate.domain.access import VirtualKey
from llm_gate.domain.ledger import Result, Step
from llm_gate.domain.limits import Bucket
from llm_gate.domain.plans import Limits, Plan, Quota, Subscription


class BalanceNow(Struct, frozen=True, kw_only=True):
    """What is used and held on an account in a window now."""

    used: int = 0
    held: int = 0


class Ledger(Protocol):
    """The one owner of reservations. Any number of processes may work on the same one."""

    def submit(self, step: Step) -> Awaitable[Result]:
        """Hand a step in. It is queued at once and is applied whether or not anyone waits for the result.

        When the result is there, it is on disk. A step is never lost while the process lives: a settlement waits for
        a store that is away, for as long as that takes; a reservation is given up (and undone) after a few seconds.

        Raises:
            StoreUnavailable: when awaited, the store could not be reached in time.
        """

    async def balances(self, quotas: Iterable[tuple[Quota, int]]) -> Mapping[tuple[str, int], BalanceNow]:
        """Read the balances of quotas, each in the window that begins at an instant (ms), all at one moment.

        A balance nobody has touched yet is what a reservation would find there.
        """

    async def start(self) -> None:
        """Begin to work: take the lease that keeps this process's reservations alive, look for those of the dead."""

    async def close(self) -> None:
        """Write what is queued, give the lease back and stop."""


class TenantEntry(Struct, frozen=True, kw_only=True):
    """One who pays. `plan` and `limits` bind everything that happens in it; `anchor_ms` begins its periods."""

    id: str
    label: str = ""
    plan: str | None = None
    limits: Limits = Limits()
    anchor_ms: int = 0
    is_active: bool = True
    created_at_ms: int = 0


class ApplicationEntry(Struct, frozen=True, kw_only=True):
    """One `client_id` of a tenant, where the operator has said something about it."""

    tenant: str
    id: str
    label: str = ""
    limits: Limits = Limits()
    allowed_models: tuple[str, ...] = ()
    anchor_ms: int = 0
    is_active: bool = True
    created_at_ms: int = 0


class Directives(Protocol):
    """What the operator decided about callers, as admission reads it. Results may be kept until `revision` changes."""

    async def revision(self) -> int:
        """Return a number that grows with every change of keys, plans, subscriptions, tenants or credentials."""

    async def has_keys(self) -> bool:
        """Tell whether a virtual key was ever issued, so that callers must present one."""

    async def key_of(self, digest: bytes) -> VirtualKey | None:
        """Return the key with a digest, valid or not."""

    async def plan(self, name: str) -> Plan | None:
        """Return a plan by its name."""

    async def plans(self) -> tuple[Plan, ...]:
        """Return all plans, the cheapest first."""

    async def subscription(self, tenant: str, user: str) -> Subscription | None:
        """Return the subscription a user holds now."""

    async def tenant(self, tenant: str) -> TenantEntry | None:
        """Return a tenant; None for one nobody has made."""

    async def application(self, tenant: str, application: str) -> ApplicationEntry | None:
        """Return an application; None where nothing was said about it."""


class ShortWindows(Protocol):
    """Counts minutes and hours between processes, faster than the ledger. It may refuse early, but never admits."""

    async def take(self, wanted: Mapping[str, tuple[int, int, int]]) -> str | None:
        """Add amounts to counters that end with their window: name → (amount, cap, end in ms since 1970).

        Returns the name of the first counter without room, in which case nothing is added; None when all is added,
        or when the counters cannot be reached.
        """

    async def give_back(self, taken: Mapping[str, int]) -> None:
        """Take amounts off again."""


class BucketUsage(Struct, frozen=True, kw_only=True):
    """Sums over some calls: `requests` are calls with a dispatched attempt."""

    bucket: Bucket
    provider: str
    requests: int = 0
    attempts: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int = 0
