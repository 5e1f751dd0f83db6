"""Who calls and what binds them: keys and standings, kept until the operator changes something.

Theory of operation: what the operator decides lives in the store and carries one revision. A task asks for it twice a
second; when it has grown, everything kept here is forgotten. So a key that is revoked anywhere stops working
everywhere within a second, and a request costs no question to the store.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, tzinfo
from hashlib import sha256
from typing import TypeVar

from msgspec import Struct

from llm_gate.domain.access import ANYONE, Caller, Identity, VirtualKey
from llm_gate.domain.errors import NotAllowed, NotAuthenticated, TooManyFailures
from llm_gate.domain.plans import UNLIMITED, Plan, Quota, Standing, quotas_of, standing_of
from llm_gate.domain.stores import Directives
from llm_gate.engine.holds import Holds

K = TypeVar("K")
V = TypeVar("V")

LOOK_EVERY_S = 0.4
MAX_KEPT = 50_000
"""How many keys, callers and places of failure are remembered, of each kind."""

MAX_FAILURES = 20
"""Keys from one place that may be refused within a minute. After that the place is shut out: only good keys pass."""

MAX_PROBES = 20
"""Keys not seen before that are looked up within a second for all places that are shut out."""

_SECOND_MS = 1_000
_MINUTE_MS = 60_000
_OPERATORS = Identity(scopes=frozenset({"inference", "usage:read", "metrics:read"}))
_UNLIMITED_PLAN = Plan(name=UNLIMITED, label="Unlimited")

_logger = logging.getLogger("llm_gate.access")


class AccessRules(Struct, frozen=True, kw_only=True):
    """What the configuration says of callers. `operator_digest` is the SHA-256 of the one key it may hold.

    `needs_key` asks for a key even where none was ever issued: the listener can be reached from elsewhere.
    """

    default_plan: str = UNLIMITED
    operator_digest: bytes | None = None
    needs_key: bool = False
    zone: tzinfo = UTC


class _Kept(Struct, frozen=True, kw_only=True):
    holds: Holds
    until_ms: int | None


class Access:
    """Answers who a credential belongs to, and what binds a caller.

    `on_change` are called whenever the operator has changed something, and first at the start.
    `digest` gives the keyed hash of a key, None for what cannot be a key by its form and checksum.
    """

    def __init__(
        self,
        *,
        directives: Directives,
        digest: Callable[[str], bytes | None],
        rules: AccessRules,
        now_ms: Callable[[], int],
    ) -> None:
        self.rules = rules
        self.plans: tuple[Plan, ...] = ()
        self.on_change: list[Callable[[], Awaitable[None]]] = []
        self._directives = directives
        self._digest = digest
        self._now_ms = now_ms
        self._revision = -1
        self._has_keys = True
        self._keys: dict[bytes, VirtualKey | None] = {}
        # Not forgotten with a change: whoever shares a place with one that is shut out must still get in.
        self._issued: dict[bytes, None] = {}
        self._standings: dict[tuple[str, str, str, str | None], _Kept] = {}
        self._failures: dict[str, tuple[int, int]] = {}
        self._probes = (0, 0)
        self._task: asyncio.Task[None] | None = None

    @property
    def needs_key(self) -> bool:
        """Whether callers must present a key now."""
        return self.rules.needs_key or self.rules.operator_digest is not None or self._has_keys

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many of each kind are remembered; at most MAX_KEPT of any."""
        return {
            "keys": len(self._keys),
            "issued_keys": len(self._issued),
            "standings": len(self._standings),
            "failed_places": len(self._failures),
        }

    async def start(self) -> None:
        """Read what is needed at once, and begin to follow changes."""
        await self._look()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()

    async def authenticate(self, credential: str | None, place: str) -> Identity:
        """Return who presents a credential; `place` is where the request comes from.

        Raises:
            NotAuthenticated: there is none, or it is not accepted.
            TooManyFailures: too many from this place were not.
            StoreUnavailable: the store, which knows it, cannot be reached.
        """
        if not self.needs_key:
            return ANYONE
        if not credential:
            raise NotAuthenticated("no API key: send it as `Authorization: Bearer …`")
        operators = self.rules.operator_digest
        if operators is not None and hmac.compare_digest(sha256(credential.encode()).digest(), operators):
            return _OPERATORS
        key = await self._key(credential, place)
        if key is None and self._is_shut_out(place):
            raise _shut_out()
        if key is None or not key.is_valid(self._now_ms()):
            self._note_failure(place)
            raise NotAuthenticated("the API key is not accepted")
        return Identity(
            tenant=key.tenant, application=key.application, user=key.user, key=key, scopes=key.scopes
        )

    async def _key(self, credential: str, place: str) -> VirtualKey | None:
        digest = self._digest(credential)
        if digest is None:
            return None
        if digest in self._keys:
            return self._keys[digest]
        if digest not in self._issued and self._is_shut_out(place) and not self._may_probe():
            raise _shut_out()
        revision = self._revision
        key = await self._directives.key_of(digest)
        if key is not None:
            _keep(self._issued, digest, None)
        if revision == self._revision:
            _keep(self._keys, digest, key)
        return key

    def _is_shut_out(self, place: str) -> bool:
        since_ms, count = self._failures.get(place, (0, 0))
        return count >= MAX_FAILURES and self._now_ms() - since_ms < _MINUTE_MS

    def _may_probe(self) -> bool:
        """Tell whether a key from a place that is shut out may still be looked up; many callers share some places."""
        second = self._now_ms() // _SECOND_MS
        last, count = self._probes
        self._probes = (second, count + 1 if second == last else 1)
        return self._probes[1] <= MAX_PROBES

    def _note_failure(self, place: str) -> None:
        now_ms = self._now_ms()
        since_ms, count = self._failures.get(place, (now_ms, 0))
        if now_ms - since_ms >= _MINUTE_MS:
            since_ms, count = now_ms, 0
        _keep(self._failures, place, (since_ms, count + 1))

    async def standing(self, caller: Caller) -> Standing:
        """Return what binds a caller now; raises what `holds` raises."""
        return (await self.holds(caller)).standing

    async def holds(self, caller: Caller) -> Holds:
        """Return what turns a caller's calls into holds on the quotas that bind it now.

        Raises:
            NotAllowed: the tenant or application is switched off, or the plan is gone.
            StoreUnavailable: the store, which knows it, cannot be reached.
        """
        name = (caller.tenant, caller.application, caller.user, caller.key_id)
        kept = self._standings.get(name)
        if kept is not None and (kept.until_ms is None or self._now_ms() < kept.until_ms):
            return kept.holds
        revision = self._revision
        kept = await self._load(caller)
        if revision == self._revision:
            _keep(self._standings, name, kept)
        return kept.holds

    async def _load(self, caller: Caller) -> _Kept:
        tenant = await self._directives.tenant(caller.tenant)
        application = await self._directives.application(caller.tenant, caller.application)
        if (tenant is not None and not tenant.is_active) or (
            application is not None and not application.is_active
        ):
            raise NotAllowed("this account is switched off", code="account_inactive")
        quotas: list[Quota] = []
        models: list[tuple[str, ...]] = []
        if tenant is not None:
            if tenant.plan is not None:
                plan = await self._plan(tenant.plan)
                quotas += quotas_of("tenant", tenant.id, tenant.id, plan.limits, tenant.anchor_ms)
                models.append(plan.allowed_models)
            quotas += quotas_of("tenant", tenant.id, tenant.id, tenant.limits, tenant.anchor_ms)
        if application is not None:
            quotas += quotas_of(
                "application", application.tenant, application.id, application.limits, application.anchor_ms
            )
            models.append(application.allowed_models)
        subscription = await self._directives.subscription(caller.tenant, caller.user)
        plan = await self._plan(self.rules.default_plan if subscription is None else subscription.plan)
        anchor_ms = 0 if subscription is None else subscription.start_ms
        quotas += quotas_of("user", caller.tenant, caller.user, plan.limits, anchor_ms)
        if caller.key is not None:
            quotas += quotas_of("key", caller.tenant, caller.key.id, caller.key.limits, 0)
            models.append(caller.key.allowed_models)
        now_ms = self._now_ms()
        ends_ms = None if subscription is None or subscription.auto_renew else subscription.term_end_ms
        has_lapsed = subscription is not None and subscription.has_lapsed(now_ms)
        standing = standing_of(
            plan,
            tuple(quotas),
            anchor_ms=anchor_ms,
            allowed_models=tuple(models),
            lapsed_at_ms=ends_ms if has_lapsed else None,
            zone=self.rules.zone,
        )
        return _Kept(holds=Holds(standing), until_ms=None if has_lapsed else ends_ms)

    async def _plan(self, name: str) -> Plan:
        plan = await self._directives.plan(name)
        if plan is not None:
            return plan
        if name == UNLIMITED:
            return _UNLIMITED_PLAN
        raise NotAllowed(f"the plan {name!r} does not exist any more", code="plan_missing")

    async def _follow(self) -> None:
        was_away = False
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - a worker loop: revoked keys must never go unnoticed
                if not was_away:
                    _logger.warning("keys and plans cannot be followed", extra={"error": str(error)})
                was_away = True
            else:
                was_away = False

    async def _look(self) -> None:
        revision = await self._directives.revision()
        if revision == self._revision:
            return
        for hear in self.on_change:
            await hear()
        self._has_keys = await self._directives.has_keys()
        self.plans = await self._directives.plans()
        # Last, so that whoever loaded something meanwhile does not keep it.
        self._revision = revision
        self._keys.clear()
        self._standings.clear()


def _shut_out() -> TooManyFailures:
    return TooManyFailures("too many API keys from here were not accepted: wait a minute")


def _keep(kept: dict[K, V], name: K, value: V) -> None:
    """Remember something, and forget the oldest where there is too much."""
    kept[name] = value
    if len(kept) > MAX_KEPT:
        del kept[next(iter(kept))]
