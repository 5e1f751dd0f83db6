"""Virtual keys: issued, rotated, revoked, listed. What an administrator grants never exceeds what he has himself."""

from collections.abc import Callable

from msgspec import Struct, structs

from llm_gate.domain.access import DEFAULT_TENANT, KeyScope, VirtualKey
from llm_gate.domain.administration import COMMAND_LINE, Act
from llm_gate.domain.errors import Conflict, InvalidRequest, NotAllowed
from llm_gate.domain.keys import RANDOM_BYTES, KeyHash, key_text, shown_part
from llm_gate.domain.plans import Limits
from llm_gate.domain.secret import Secret
from llm_gate.domain.stores import Administration

OVERLAP_S = 24 * 3600
"""How long a rotated key goes on working, in seconds, unless said otherwise."""

LONGEST_OVERLAP_S = 90 * 24 * 3600
_MOST_MS = 2**53


class Authority(Struct, frozen=True, kw_only=True):
    """On whose word something is changed: that of a key with the scope "admin", or of whoever runs commands."""

    key: VirtualKey | None = None

    @property
    def actor(self) -> str:
        """The name for the audit."""
        return COMMAND_LINE if self.key is None else self.key.id

    @property
    def tenant(self) -> str | None:
        """The tenant it is confined to, None for none."""
        return None if self.key is None or "operator" in self.key.scopes else self.key.tenant

    def check_tenant(self, tenant: str) -> None:
        """Check that something may be made in a tenant.

        Raises:
            NotAllowed: it is another one.
        """
        if self.tenant is not None and tenant != self.tenant:
            raise NotAllowed("this key administers its own tenant only")


OPERATOR = Authority()
"""Whoever runs commands on the gateway's machine."""


class KeyRequest(Struct, frozen=True, kw_only=True):
    """What a key shall be. `limits` are its own quotas, in counts or nano-dollars."""

    application: str
    tenant: str = DEFAULT_TENANT
    user: str | None = None
    name: str = ""
    scopes: frozenset[KeyScope] = frozenset({"inference", "usage:read"})
    allowed_models: tuple[str, ...] = ()
    limits: dict[str, int | None] = {}
    expires_at_ms: int | None = None


class IssuedKey(Struct, frozen=True, kw_only=True):
    """A new key: `text` is shown this once and kept nowhere."""

    text: Secret
    key: VirtualKey


class Keys:
    """The use-cases of keys. `new_id` gives ids that grow with time, `randomness` that many random bytes."""

    def __init__(
        self,
        *,
        administration: Administration,
        key_hash: KeyHash,
        now_ms: Callable[[], int],
        new_id: Callable[[], str],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._administration = administration
        self._key_hash = key_hash
        self._now_ms = now_ms
        self._new_id = new_id
        self._randomness = randomness

    async def issue(self, request: KeyRequest, authority: Authority = OPERATOR) -> IssuedKey:
        """Make a key.

        Raises:
            InvalidRequest: the request makes no sense.
            NotAllowed: it asks for more than the authority has itself.
            StoreUnavailable: the store cannot be reached.
        """
        now_ms = self._now_ms()
        _check_sense(request, now_ms)
        if authority.key is not None:
            request = _within(request, authority)
        text, key = self._make(request, now_ms)
        await self._administration.add_key(key, self._act(authority, "key.create"))
        return IssuedKey(text=text, key=key)

    async def rotate(
        self, key_id: str, authority: Authority = OPERATOR, *, overlap_s: int = OVERLAP_S
    ) -> IssuedKey:
        """Make a key that takes the place of another, which goes on working for a while (0: not at all).

        Raises:
            NotFound: there is no such key.
            Conflict: it has been replaced already, or does not work any more.
            NotAllowed: the key may do more than the authority.
            InvalidRequest: the time is too long.
            StoreUnavailable: the store cannot be reached.
        """
        if not 0 <= overlap_s <= LONGEST_OVERLAP_S:
            raise InvalidRequest("the overlap is at most 90 days", param="overlap")
        now_ms = self._now_ms()
        made: list[tuple[Secret, VirtualKey]] = []

        def change(old: VirtualKey) -> tuple[VirtualKey, VirtualKey]:
            if old.replaced_by is not None:
                raise Conflict(f"the key {old.id} was replaced by {old.replaced_by}")
            if not old.is_valid(now_ms):
                raise Conflict(f"the key {old.id} does not work any more: create a new one")
            request = _request_of(old)
            if authority.key is not None:
                request = _within(request, authority)
            text, key = self._make(request, now_ms)
            key = structs.replace(key, limits=old.limits)
            made[:] = [(text, key)]
            retired = structs.replace(old, retires_at_ms=now_ms + overlap_s * 1000, replaced_by=key.id)
            return retired, key

        act = self._act(authority, "key.rotate")
        await self._administration.change_key(authority.tenant, key_id, change, act)
        text, key = made[0]
        return IssuedKey(text=text, key=key)

    async def revoke(self, key_id: str, authority: Authority = OPERATOR) -> VirtualKey:
        """End a key at once. One that was revoked before stays as it is.

        Raises:
            NotFound: there is no such key.
            NotAllowed: the key acts in every tenant, and the authority does not.
            StoreUnavailable: the store cannot be reached.
        """
        now_ms = self._now_ms()

        def change(key: VirtualKey) -> tuple[VirtualKey]:
            if "operator" in key.scopes and authority.tenant is not None:
                raise NotAllowed("an operator's key is not revoked by one that administers a tenant")
            return (key if key.revoked_at_ms is not None else structs.replace(key, revoked_at_ms=now_ms),)

        act = self._act(authority, "key.revoke")
        (key,) = await self._administration.change_key(authority.tenant, key_id, change, act)
        return key

    async def list(
        self, authority: Authority = OPERATOR, *, tenant: str | None = None, after: str = "", limit: int = 100
    ) -> tuple[VirtualKey, ...]:
        """Return keys, the oldest first, from behind an id; of one tenant, or of all that may be seen.

        Raises:
            NotAllowed: the tenant is another one than the authority's.
            StoreUnavailable: the store cannot be reached.
        """
        if tenant is not None:
            authority.check_tenant(tenant)
        return await self._administration.keys(tenant or authority.tenant, after=after, limit=limit)

    def _make(self, request: KeyRequest, now_ms: int) -> tuple[Secret, VirtualKey]:
        text = key_text(self._randomness(RANDOM_BYTES), is_admin="admin" in request.scopes)
        return Secret(text), VirtualKey(
            id=f"key_{self._new_id()}",
            digest=self._key_hash.digest(text),
            prefix=shown_part(text),
            name=request.name,
            tenant=request.tenant,
            application=request.application,
            user=request.user,
            scopes=request.scopes,
            allowed_models=request.allowed_models,
            limits=Limits().changed(request.limits, now_ms),
            created_at_ms=now_ms,
            expires_at_ms=request.expires_at_ms,
        )

    def _act(self, authority: Authority, action: str) -> Act:
        return Act(actor=authority.actor, action=action, at_ms=self._now_ms())


def _request_of(key: VirtualKey) -> KeyRequest:
    return KeyRequest(
        application=key.application,
        tenant=key.tenant,
        user=key.user,
        name=key.name,
        scopes=key.scopes,
        allowed_models=key.allowed_models,
        limits=dict(key.limits.values),
        expires_at_ms=key.expires_at_ms,
    )


def _check_sense(request: KeyRequest, now_ms: int) -> None:
    if not request.application:
        raise InvalidRequest("a key belongs to an application: name its client id", param="client")
    if not request.scopes:
        raise InvalidRequest("a key needs at least one scope", param="scopes")
    if "operator" in request.scopes and "admin" not in request.scopes:
        raise InvalidRequest("the scope `operator` goes with `admin`", param="scopes")
    if request.expires_at_ms is not None and not now_ms < request.expires_at_ms <= _MOST_MS:
        raise InvalidRequest("a key must expire in the future", param="expires_at")


def _within(request: KeyRequest, authority: Authority) -> KeyRequest:
    """Return the request confined to what the authority's key has itself.

    Raises:
        NotAllowed: it asks for more.
    """
    parent = authority.key
    if parent is None:
        return request
    authority.check_tenant(request.tenant)
    more = request.scopes - parent.scopes
    if more:
        raise NotAllowed(f"this key cannot grant what it lacks itself: {', '.join(sorted(more))}")
    if parent.user is not None and request.user != parent.user:
        raise NotAllowed("this key acts for one user, and can make keys for that user only")
    if parent.allowed_models:
        outside = [name for name in request.allowed_models if not _covers(parent.allowed_models, name)]
        if outside or not request.allowed_models:
            raise NotAllowed(f"the key must be confined to {', '.join(parent.allowed_models)}")
    for name, most in parent.limits.values.items():
        asked = request.limits.get(name)
        if most is not None and (asked is None or asked > most):
            raise NotAllowed(f"the key needs a limit {name} that is no larger than this key's own")
    ends_ms = parent.expires_at_ms
    if ends_ms is not None:
        wanted_ms = request.expires_at_ms
        return structs.replace(
            request, expires_at_ms=ends_ms if wanted_ms is None else min(wanted_ms, ends_ms)
        )
    return request


def _covers(patterns: tuple[str, ...], name: str) -> bool:
    """Tell whether every model that a name or pattern means is meant by one of the patterns, too."""
    return any(
        name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])) for pattern in patterns
    )
