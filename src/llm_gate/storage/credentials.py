"""Vendors' credentials, sealed with AES-GCM: the port `Credentials` over a database."""

import logging
import secrets
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, select

from llm_gate.domain.administration import Act, CredentialEntry
from llm_gate.domain.secret import Secret
from llm_gate.storage.changes import Changes, change_store
from llm_gate.storage.database import Database
from llm_gate.storage.schema import credential

_logger = logging.getLogger("llm_gate.credentials")

_NONCE_BYTES = 12
_SET = {"stored": "a credential"}


class StoredCredentials:
    """The port `Credentials`. `key` (32 bytes) seals and opens them."""

    def __init__(self, database: Database, key: bytes) -> None:
        self._database = database
        self._cipher = AESGCM(key)

    async def put(self, tenant: str, provider: str, secret: Secret, act: Act) -> None:
        """Store a credential in place of any other."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, secret.reveal().encode(), _owner(tenant, provider))
        values = {"tenant": tenant, "provider": provider, "sealed": sealed, "created_ms": act.at_ms}

        def work(changes: Changes) -> None:
            changes.put(credential, values)
            changes.note(tenant=tenant, target=provider, before=None, after=_SET)

        await change_store(self._database, act, work)

    async def remove(self, tenant: str, provider: str, act: Act) -> bool:
        """Remove a credential; tells whether there was one."""
        statement = delete(credential).where(credential.c.tenant == tenant, credential.c.provider == provider)

        def work(changes: Changes) -> bool:
            was_there = changes.connection.execute(statement).rowcount > 0
            if was_there:
                changes.note(tenant=tenant, target=provider, before=_SET, after=None)
            return was_there

        return await change_store(self._database, act, work)

    async def entries(self, tenant: str | None) -> tuple[CredentialEntry, ...]:
        """Return which credentials are stored."""
        query = select(credential.c.tenant, credential.c.provider, credential.c.created_ms)
        query = query.order_by(credential.c.tenant, credential.c.provider)
        if tenant is not None:
            query = query.where(credential.c.tenant == tenant)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return tuple(
            CredentialEntry(tenant=row.tenant, provider=row.provider, created_at_ms=row.created_ms)
            for row in rows
        )

    async def load_all(self) -> Mapping[tuple[str, str], Secret]:
        """Return every credential by tenant and provider; one that was altered is left out, and logged."""
        rows = await self._database.read(lambda connection: connection.execute(select(credential)).all())
        found: dict[tuple[str, str], Secret] = {}
        for row in rows:
            secret = self._opened(row.tenant, row.provider, row.sealed)
            if secret is None:
                _logger.error(
                    "a stored credential was altered: set it again",
                    extra={"error": f"it is that of tenant {row.tenant}", "provider": row.provider},
                )
            else:
                found[row.tenant, row.provider] = secret
        return found

    def _opened(self, tenant: str, provider: str, sealed: bytes) -> Secret | None:
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return Secret(self._cipher.decrypt(nonce, rest, _owner(tenant, provider)).decode())
        except (InvalidTag, ValueError):
            return None


def _owner(tenant: str, provider: str) -> bytes:
    """Return what a sealed credential is bound to, so that it opens in no other row."""
    return f"{tenant}\n{provider}".encode()
