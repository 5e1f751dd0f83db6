"""Batches in the store, and what came of their lines until their files are written, sealed as kept answers are."""

import os
from collections.abc import Mapping, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, delete, select

from llm_gate.domain.batches import Batch, LineResult
from llm_gate.domain.errors import GateFault
from llm_gate.storage.changes import insert
from llm_gate.storage.database import Database
from llm_gate.storage.leased import StoredWork
from llm_gate.storage.schema import batch, batch_line

_NONCE_BYTES = 12


class StoredBatches(StoredWork[Batch]):
    """The port `Batches` over a database. `key` is the secret of 32 bytes that lines are sealed with."""

    def __init__(self, database: Database, *, key: bytes) -> None:
        super().__init__(database, batch, Batch)
        self._cipher = AESGCM(key)

    async def append(self, batch_id: str, results: Sequence[LineResult]) -> None:
        """Store what came of some lines; of a line that is there already, what was stored first stays."""
        rows = [
            {
                "batch_id": batch_id,
                "number": each.number,
                "is_error": each.is_error,
                "sealed": self._seal(batch_id, each),
            }
            for each in results
        ]

        def change(connection: Connection) -> None:
            connection.execute(insert(connection, batch_line).on_conflict_do_nothing(), rows)

        if rows:
            await self._database.write(change)

    async def done(self, batch_id: str) -> Mapping[int, bool]:
        """Return the numbers of the lines that are stored, and whether each came to an error."""
        wanted = select(batch_line.c.number, batch_line.c.is_error).where(batch_line.c.batch_id == batch_id)

        def ask(connection: Connection) -> Mapping[int, bool]:
            return {row.number: row.is_error for row in connection.execute(wanted)}

        return await self._database.survey(ask)

    async def results(self, batch_id: str) -> tuple[LineResult, ...]:
        """Return what is stored, in the order of the lines.

        Raises:
            GateFault: some of it was sealed with another key, or altered.
        """
        wanted = select(batch_line).where(batch_line.c.batch_id == batch_id).order_by(batch_line.c.number)

        def ask(connection: Connection) -> tuple[LineResult, ...]:
            return tuple(self._open(batch_id, row.number, row.sealed) for row in connection.execute(wanted))

        return await self._database.survey(ask)

    async def forget(self, batch_id: str) -> None:
        """Remove what is stored of a batch's lines, whose files are written."""
        removal = delete(batch_line).where(batch_line.c.batch_id == batch_id)
        await self._database.write(lambda connection: connection.execute(removal))

    def _seal(self, batch_id: str, result: LineResult) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(
            nonce, msgspec.msgpack.encode(result), _bound_to(batch_id, result.number)
        )

    def _open(self, batch_id: str, number: int, sealed: bytes) -> LineResult:
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            plain = self._cipher.decrypt(nonce, rest, _bound_to(batch_id, number))
        except InvalidTag:
            raise GateFault(
                f"line {number} of {batch_id} cannot be opened: it was sealed with another key"
            ) from None
        return msgspec.msgpack.decode(plain, type=LineResult)


def _bound_to(batch_id: str, number: int) -> bytes:
    return f"{batch_id}/{number}".encode()
