"""Kept answers in the table `idempotency`, sealed with a key of the operator's: a copy of the database shows none."""

import os
import time

import msgspec
import sqlalchemy
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import BigInteger, ColumnElement, Connection, and_, cast, delete, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from llm_gate.domain.answers import (
    Begun,
    Claim,
    Closed,
    Fresh,
    KeptAnswer,
    Lost,
    Mismatch,
    Running,
    Stored,
)
from llm_gate.storage.database import Database
from llm_gate.storage.schema import idempotency as table
from llm_gate.storage.schema import process

_RUNNING, _STORED = "running", "stored"
_PURGED_AT_ONCE = 500
_NONCE_BYTES = 12


class StoredAnswers:
    """Keeps answers in a database. `key` is the secret of 16, 24 or 32 bytes they are sealed with."""

    def __init__(self, database: Database, *, key: bytes) -> None:
        self._database = database
        self._cipher = AESGCM(key)
        self._insert = postgresql.insert if database.kind == "postgresql" else sqlite.insert

    async def begin(self, claim: Claim) -> Begun:
        """Claim a key, or tell what is known of it."""
        return await self._database.write(lambda connection: self._begin(connection, claim))

    async def keep(self, claim: Claim, answer: KeptAnswer) -> None:
        """Keep the answer to a fresh claim."""

        def change(connection: Connection) -> None:
            values = {"state": _STORED, "status": answer.status, "sealed": self._seal(claim, answer)}
            # Another process may have taken this one for dead meanwhile; the answer is proof that it was not.
            connection.execute(update(table).where(_mine(claim)).values(values))

        await self._database.write(change)

    async def forget(self, claim: Claim) -> None:
        """Give a fresh claim up."""
        running = and_(_mine(claim), table.c.state == _RUNNING)
        await self._database.write(lambda connection: connection.execute(delete(table).where(running)))

    async def close(self, claim: Claim, why: Closed) -> None:
        """End a fresh claim without an answer."""
        change = update(table).where(_mine(claim)).values(state=why)
        await self._database.write(lambda connection: connection.execute(change))

    async def purge(self, at_ms: int) -> int:
        """Delete some of what is to be forgotten by an instant; returns how much was deleted."""
        place = tuple_(table.c.subject, table.c.key)
        due = select(table.c.subject, table.c.key).where(table.c.expires_ms <= at_ms)
        change = delete(table).where(place.in_(due.order_by(table.c.expires_ms).limit(_PURGED_AT_ONCE)))
        return await self._database.write(lambda connection: connection.execute(change).rowcount)

    def _begin(self, connection: Connection, claim: Claim) -> Begun:
        values = _row(claim)
        insert = self._insert(table).values(values)
        # A row that is to be forgotten is taken over as if it were not there.
        fresh = connection.execute(
            insert.on_conflict_do_update(
                index_elements=[table.c.subject, table.c.key],
                set_=values,
                where=table.c.expires_ms <= claim.made_ms,
            ).returning(table.c.key)
        ).first()
        if fresh is not None:
            return Fresh()
        # The row is there, and locked by the statement above.
        row = connection.execute(select(table).where(_there(claim))).one()
        if row.fingerprint != claim.fingerprint:
            return Mismatch()
        if row.state == _STORED:
            answer = self._open(claim, row.sealed)
            return Lost(why="unknown") if answer is None else Stored(answer=answer)
        if row.state != _RUNNING:
            return Lost(why=row.state)
        if self._lives(connection, row.owner):
            return Running()
        connection.execute(update(table).where(_there(claim)).values(state="unknown"))
        return Lost(why="unknown")

    def _lives(self, connection: Connection, owner: str) -> bool:
        """Tell whether a process still renews its lease, by the clock the leases are kept by."""
        now: ColumnElement[int] | int = int(time.time() * 1000)
        if self._database.kind == "postgresql":
            now = cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInteger)
        lease = select(process.c.id).where(process.c.id == owner, process.c.lease_until_ms > now)
        return connection.execute(lease).first() is not None

    def _seal(self, claim: Claim, answer: KeptAnswer) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(answer), _bound_to(claim))

    def _open(self, claim: Claim, sealed: bytes) -> KeptAnswer | None:
        """Return what was sealed, None where it was sealed with another key or for another request."""
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return msgspec.msgpack.decode(
                self._cipher.decrypt(nonce, rest, _bound_to(claim)), type=KeptAnswer
            )
        except InvalidTag:
            return None


def _row(claim: Claim) -> dict[str, object]:
    return {
        "subject": claim.subject,
        "key": claim.key,
        "fingerprint": claim.fingerprint,
        "state": _RUNNING,
        "owner": claim.owner,
        "created_ms": claim.made_ms,
        "expires_ms": claim.expires_ms,
        "status": None,
        "sealed": None,
    }


def _there(claim: Claim) -> sqlalchemy.ColumnElement[bool]:
    return and_(table.c.subject == claim.subject, table.c.key == claim.key)


def _mine(claim: Claim) -> sqlalchemy.ColumnElement[bool]:
    """Return the condition for the very row that a claim made, not one that came after it."""
    return and_(_there(claim), table.c.owner == claim.owner, table.c.created_ms == claim.made_ms)


def _bound_to(claim: Claim) -> bytes:
    return msgspec.json.encode([claim.subject, claim.key, claim.fingerprint])
