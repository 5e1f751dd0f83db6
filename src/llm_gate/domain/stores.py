"""What the engine needs of the stores, as Protocols. Every method may raise StoreUnavailable."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from llm_gate.domain.access import VirtualKey
from llm_gate.domain.administration import Act, AuditEntry, Change, CredentialEntry, Renewal
from llm_gate.domain.answers import Begun, Claim, Closed, KeptAnswer
from llm_gate.domain.ledger import Reservation, Result, Step
from llm_gate.domain.limits import Bucket
from llm_gate.domain.plans import Limits, Plan, Quota, Subscription
from llm_gate.domain.secret import Secret


class BalanceNow(Struct, frozen=True, kw_only=True):
    """What is used and held on an account in a window now."""

    used: int = 0
    held: int = 0


class Ledger(Protocol):
    """The one owner of reservations. Any number of processes may work on the same one."""

    @property
    def is_away(self) -> bool:
        """Whether the store does not answer now, so that nobody can be let in."""

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


class Administration(Protocol):
    """How the operator's decisions are changed. Every change is one transaction with its line in the audit.

    A change is a function from what there is to what shall be; it runs in the store's transaction, must do nothing
    but compute, and may raise, in which case nothing happens. Nothing is written where it changes nothing.
    A tenant of None means any. Lists are pages in the order of their ids, beginning behind `after`.
    """

    async def add_key(self, key: VirtualKey, act: Act) -> None:
        """Store a new key."""

    async def change_key(
        self, tenant: str | None, key_id: str, change: Callable[[VirtualKey], Sequence[VirtualKey]], act: Act
    ) -> tuple[VirtualKey, ...]:
        """Store what a key becomes, and the keys that come of it.

        Raises:
            NotFound: there is no such key in the tenant.
        """

    async def key(self, tenant: str | None, key_id: str) -> VirtualKey | None:
        """Return a key by its id."""

    async def keys(self, tenant: str | None, *, after: str = "", limit: int = 100) -> tuple[VirtualKey, ...]:
        """Return keys, the oldest first."""

    async def change_plan(self, name: str, change: Callable[[Plan | None], Plan], act: Act) -> Plan:
        """Store what a plan becomes."""

    async def change_tenant(
        self, tenant: str, change: Callable[[TenantEntry | None], TenantEntry], act: Act
    ) -> TenantEntry:
        """Store what a tenant becomes."""

    async def tenants(self, *, after: str = "", limit: int = 100) -> tuple[TenantEntry, ...]:
        """Return the tenants that were made."""

    async def change_application(
        self,
        tenant: str,
        application: str,
        change: Callable[[ApplicationEntry | None], ApplicationEntry],
        act: Act,
    ) -> ApplicationEntry:
        """Store what an application becomes."""

    async def applications(
        self, tenant: str, *, after: str = "", limit: int = 100
    ) -> tuple[ApplicationEntry, ...]:
        """Return the applications about which something was said."""

    async def change_subscription(
        self,
        tenant: str,
        user: str,
        change: Callable[[Subscription | None, Renewal | None], Change],
        act: Act,
    ) -> Change:
        """Store what a user's subscription becomes, given the one held and the last line of the history.

        A subscription with another id ends the one held.
        """

    async def subscriptions(
        self, tenant: str, *, after: str = "", limit: int = 100
    ) -> tuple[Subscription, ...]:
        """Return the subscriptions that are held."""

    async def renewals(
        self, tenant: str, user: str, *, limit: int = 50, offset: int = 0
    ) -> tuple[tuple[Renewal, ...], int]:
        """Return a user's history, the newest first, and how many lines it has in all."""

    async def audit(
        self, tenant: str | None, *, before: int | None = None, limit: int = 100
    ) -> tuple[AuditEntry, ...]:
        """Return the audit, the newest first, from before a number."""


class Credentials(Protocol):
    """Vendors' credentials, stored so that only the gateway can use them."""

    async def put(self, tenant: str, provider: str, secret: Secret, act: Act) -> None:
        """Store a credential in place of any other."""

    async def remove(self, tenant: str, provider: str, act: Act) -> bool:
        """Remove a credential; tells whether there was one."""

    async def entries(self, tenant: str | None) -> tuple[CredentialEntry, ...]:
        """Return which credentials are stored."""

    async def load_all(self) -> Mapping[tuple[str, str], Secret]:
        """Return every credential by tenant and provider, to call providers with; altered ones are left out."""


class Quotes(Protocol):
    """Reads what quotes hold. Every method may raise StoreUnavailable."""

    async def quote(self, id: str) -> Reservation | None:  # noqa: A002 - it is one
        """Return an open quote as it is stored, past its end or not; None for anything else."""


class ShortWindows(Protocol):
    """Counts minutes and hours between processes, faster than the ledger. It may refuse early, but never admits."""

    async def take(self, wanted: Mapping[str, tuple[int, int, int]]) -> str | None:
        """Add amounts to counters that end with their window: name → (amount, cap, end in ms since 1970).

        Returns the name of the first counter without room, in which case nothing is added; None when all is added,
        or when the counters cannot be reached.
        """

    async def give_back(self, taken: Mapping[str, int]) -> None:
        """Take amounts off again."""

    async def close(self) -> None:
        """Close what is open."""


class Answers(Protocol):
    """Keeps answers for requests that are sent again with the same idempotency key."""

    async def begin(self, claim: Claim) -> Begun:
        """Claim a key, or tell what is known of it. Of any number of equal claims exactly one is fresh."""

    async def keep(self, claim: Claim, answer: KeptAnswer) -> None:
        """Keep the answer to a fresh claim."""

    async def forget(self, claim: Claim) -> None:
        """Give a fresh claim up, so that the next one with its key is fresh."""

    async def close(self, claim: Claim, why: Closed) -> None:
        """End a fresh claim without an answer; nobody may repeat the request."""

    async def purge(self, at_ms: int) -> int:
        """Delete what is to be forgotten by an instant, some of it at a time; returns how much was deleted."""


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
