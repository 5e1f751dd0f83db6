"""Files in the store: one row each, beside the bytes that are kept as a blob."""

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, or_, select

from llm_gate.domain.files import StoredFile
from llm_gate.storage.changes import insert
from llm_gate.storage.database import Database
from llm_gate.storage.schema import file as table

_decoder = msgspec.json.Decoder(StoredFile)
_encoder = msgspec.json.Encoder()


class StoredFiles:
    """The port `Files` over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, file: StoredFile) -> bool:
        """Write a file down, and tell whether there was none of its id."""
        row = {
            "id": file.id,
            "tenant": file.tenant,
            "purpose": file.purpose,
            "expires_ms": file.expires_ms,
            "body": _encoder.encode(file).decode(),
        }

        def change(connection: Connection) -> bool:
            added = insert(connection, table).values(row).on_conflict_do_nothing().returning(table.c.id)
            return connection.execute(added).first() is not None

        return await self._database.write(change)

    async def find(self, tenant: str, file_id: str, *, at_ms: int) -> StoredFile | None:
        """Return a tenant's file; one that has expired is none."""
        wanted = select(table.c.body).where(table.c.id == file_id, _is_there(tenant, at_ms))
        body = await self._database.read(lambda connection: connection.execute(wanted).scalar())
        return None if body is None else _decoder.decode(body)

    async def listed(
        self,
        tenant: str,
        *,
        at_ms: int,
        purpose: str | None = None,
        limit: int,
        after: str = "",
        newest_first: bool = True,
    ) -> tuple[StoredFile, ...]:
        """Return a tenant's files in the order of their ids, which grow with time, those behind the file `after`."""
        wanted = select(table.c.body).where(_is_there(tenant, at_ms))
        if purpose is not None:
            wanted = wanted.where(table.c.purpose == purpose)
        if after:
            wanted = wanted.where(table.c.id < after if newest_first else table.c.id > after)
        wanted = wanted.order_by(table.c.id.desc() if newest_first else table.c.id).limit(limit)
        bodies = await self._database.read(lambda connection: connection.execute(wanted).scalars().all())
        return tuple(_decoder.decode(body) for body in bodies)

    async def remove(self, tenant: str, file_id: str) -> bool:
        """Strike a file out, and tell whether it was there."""
        removal = delete(table).where(table.c.id == file_id, table.c.tenant == tenant)
        return await self._database.write(lambda connection: bool(connection.execute(removal).rowcount))

    async def sweep(self, at_ms: int) -> None:
        """Strike out what has expired."""
        removal = delete(table).where(table.c.expires_ms <= at_ms)
        await self._database.write(lambda connection: connection.execute(removal))


def _is_there(tenant: str, at_ms: int) -> ColumnElement[bool]:
    is_open = or_(table.c.expires_ms.is_(None), table.c.expires_ms > at_ms)
    return and_(table.c.tenant == tenant, is_open)
