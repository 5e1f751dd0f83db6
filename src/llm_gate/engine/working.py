"""One state of the configuration at work: what calls need of it, counted so that it closes after the last of them."""

import asyncio
from collections.abc import Callable, Mapping

from llm_gate.domain.access import DEFAULT_TENANT
from llm_gate.domain.fine_tuning import TunedModel
from llm_gate.domain.policy import GATEWAY, AttemptPolicy, Deadlines
from llm_gate.domain.ports import Transport
from llm_gate.domain.secret import Secret
from llm_gate.engine.estimate import Rates
from llm_gate.engine.guards import Guards
from llm_gate.engine.resolve import Directory, Tuned


class TenantDirectories:
    """What each tenant can reach: with credentials of its own, and with the tuned models that are its own.

    Made when a tenant first needs it. Tenants that have neither share one directory, from which they reach no tuned
    model; the operator's own tenant reaches those of the operator's accounts that nobody has here.
    """

    def __init__(self, make: Callable[[Mapping[str, Secret]], Directory]) -> None:
        self._make = make
        self._credentials: Mapping[str, Mapping[str, Secret]] = {}
        self._tuned: Mapping[str, tuple[TunedModel, ...]] = {}
        self._all: frozenset[tuple[str, str]] = frozenset()
        self._usual: Directory | None = None
        self._made: dict[str, Directory] = {}

    def use(self, credentials: Mapping[str, Mapping[str, Secret]]) -> None:
        """Use other credentials, by tenant and provider."""
        self._credentials = credentials
        self._made.clear()

    def use_tuned(self, models: Mapping[str, tuple[TunedModel, ...]]) -> None:
        """Use other tuned models, by tenant."""
        self._tuned = models
        self._all = frozenset((each.provider, each.name) for own in models.values() for each in own)
        self._made.clear()

    def of(self, tenant: str, usual: Directory) -> Directory:
        """Return what a tenant can reach, where `usual` is what everybody can."""
        if usual is not self._usual:
            self._usual = usual
            self._made.clear()
        is_own = tenant in self._credentials or tenant in self._tuned or tenant == DEFAULT_TENANT
        name = tenant if is_own else ""
        if name not in self._made:
            self._made[name] = self._seen_by(name, usual)
        return self._made[name]

    def _seen_by(self, tenant: str, usual: Directory) -> Directory:
        credentials = self._credentials.get(tenant)
        reached = usual if credentials is None else self._make(credentials)
        return reached.with_tuned(
            Tuned(
                own=self._tuned.get(tenant, ()),
                all=self._all,
                passes=None if tenant == DEFAULT_TENANT else frozenset(credentials or ()),
            )
        )


class Working:
    """A directory, the transport its targets are called through, and the deadlines.

    Theory of operation: the gate points at one of these. A call takes it (`enter`) at its start and gives it back
    (`leave`) at its end, so that it sees one state throughout. A reload points the gate at a new one and retires
    the old, which closes its connections when the last call has left.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        transport: Transport,
        deadlines: Deadlines,
        tenants: TenantDirectories,
        policy: AttemptPolicy = GATEWAY,
        guards: Guards | None = None,
    ) -> None:
        self.directory = directory
        self.tenants = tenants
        self.transport = transport
        self.deadlines = deadlines
        self.policy = policy
        self.guards = guards
        self.rates = Rates()
        self._calls = 0
        self._is_retired = False
        self._closing: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask in the background which providers are there; in the event loop that calls are made in."""
        asking = self.directory.presence.keep_asking(self.transport)
        self._asking = asyncio.get_running_loop().create_task(asking)

    def directory_of(self, tenant: str) -> Directory:
        """Return what a tenant can name and reach: with its own credentials first, then the operator's."""
        return self.tenants.of(tenant, self.directory)

    def _stop(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    async def ask_once(self) -> None:
        """Ask which providers are there, and close; for a command that only tells what can be used."""
        try:
            await self.directory.presence.ask(self.transport)
        finally:
            await self.close()

    def enter(self) -> "Working":
        """Count a call in."""
        self._calls += 1
        return self

    def leave(self) -> None:
        """Count a call out; the last one out of a retired state closes it."""
        self._calls -= 1
        if self._is_retired and self._calls == 0:
            self._close()

    def retire(self) -> None:
        """Take no more calls; close now, or after the last that is under way."""
        self._is_retired = True
        self._stop()
        if self._calls == 0:
            self._close()

    def _close(self) -> None:
        self._closing = asyncio.get_running_loop().create_task(self.transport.close())

    async def close(self) -> None:
        """Close at once, at the end of the process."""
        self._stop()
        await self.transport.close()
