"""Work in the store that outlives processes: one row each, with a lease of whoever works on it."""

from typing import Generic, Protocol, TypeVar

import msgspec
from msgspec import structs
from sqlalchemy import Connection, Table, and_, delete, insert, select, update

from llm_gate.storage.database import Database


class Work(Protocol):
    """What every kind of work says of itself; it is a frozen Struct."""

    @property
    def id(self) -> str:
        """Its id; ids grow with time."""

    @property
    def tenant(self) -> str:
        """Who pays for it."""

    @property
    def user(self) -> str:
        """On whose behalf it is done."""

    @property
    def version(self) -> int:
        """A number that grows with every change."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""

    @property
    def is_cancelled(self) -> bool:
        """Whether it is not wanted any more."""


W = TypeVar("W", bound=Work)


class StoredWork(Generic[W]):
    """Work of one kind in its table, whose columns are those of `job` and `batch`."""

    def __init__(self, database: Database, table: Table, kind: type[W]) -> None:
        self._database = database
        self._table = table
        self._decoder: msgspec.json.Decoder[W] = msgspec.json.Decoder(kind)
        self._encoder = msgspec.json.Encoder()

    async def add(self, item: W, *, owner: str, until_ms: int) -> None:
        """Write new work, which its owner does."""
        row = {
            "id": item.id,
            "tenant": item.tenant,
            "user_id": item.user,
            "owner": owner,
            "lease_until_ms": until_ms,
            "is_over": item.is_over,
            "is_cancelled": item.is_cancelled,
            "version": item.version,
            "body": self._encoder.encode(item).decode(),
        }
        await self._database.write(lambda connection: connection.execute(insert(self._table).values(row)))

    async def save(self, item: W, *, owner: str, until_ms: int) -> bool:
        """Write work that has changed, as long as nobody else has taken it over; False where somebody has."""
        table = self._table
        mine = and_(table.c.id == item.id, table.c.owner == owner, table.c.version < item.version)
        changed = {
            "lease_until_ms": until_ms,
            "is_over": item.is_over,
            "version": item.version,
            "body": self._encoder.encode(item).decode(),
        }

        def change(connection: Connection) -> bool:
            return bool(connection.execute(update(table).where(mine).values(changed)).rowcount)

        return await self._database.write(change)

    async def remove(self, item_id: str) -> None:
        """Remove work that nobody outside has taken."""
        removal = delete(self._table).where(self._table.c.id == item_id)
        await self._database.write(lambda connection: connection.execute(removal))

    async def find(self, item_id: str) -> W | None:
        """Return one piece of work."""
        table = self._table
        wanted = select(table.c.body, table.c.is_cancelled).where(table.c.id == item_id)

        def ask(connection: Connection) -> W | None:
            row = connection.execute(wanted).first()
            return None if row is None else self._read(row.body, is_cancelled=row.is_cancelled)

        return await self._database.read(ask)

    async def listed(self, tenant: str, user: str | None, *, limit: int, before: str = "") -> tuple[W, ...]:
        """Return a tenant's work (or one user's), the newest first, that which is older than `before`."""
        # Ids grow with time.
        table = self._table
        wanted = select(table.c.body, table.c.is_cancelled).where(table.c.tenant == tenant)
        if user is not None:
            wanted = wanted.where(table.c.user_id == user)
        if before:
            wanted = wanted.where(table.c.id < before)
        wanted = wanted.order_by(table.c.id.desc()).limit(limit)

        def ask(connection: Connection) -> tuple[W, ...]:
            rows = connection.execute(wanted)
            return tuple(self._read(row.body, is_cancelled=row.is_cancelled) for row in rows)

        return await self._database.read(ask)

    async def claim(self, owner: str, *, now_ms: int, until_ms: int, limit: int) -> tuple[W, ...]:
        """Take over work that is not over and that nobody does."""
        # What the owner holds is handed in or worked on already, however late its word is.
        table = self._table
        is_free = and_(table.c.is_over.is_(False), table.c.lease_until_ms < now_ms, table.c.owner != owner)
        free = (
            select(table.c.id, table.c.body, table.c.is_cancelled)
            .where(is_free)
            .order_by(table.c.id)
            .limit(limit)
        )
        taken = {"owner": owner, "lease_until_ms": until_ms}

        def look(connection: Connection) -> bool:
            return connection.execute(free.limit(1)).first() is not None

        def take(connection: Connection) -> tuple[W, ...]:
            return tuple(
                self._read(row.body, is_cancelled=row.is_cancelled)
                for row in connection.execute(free).all()
                if connection.execute(
                    update(table).where(table.c.id == row.id, is_free).values(taken)
                ).rowcount
            )

        return await self._database.write(take) if await self._database.read(look) else ()

    async def renew(self, owner: str, *, until_ms: int) -> None:
        """Go on with everything that is the owner's."""
        table = self._table
        mine = and_(table.c.owner == owner, table.c.is_over.is_(False))
        renewal = update(table).where(mine).values(lease_until_ms=until_ms)
        await self._database.write(lambda connection: connection.execute(renewal))

    async def leave(self, owner: str) -> None:
        """Leave everything that is the owner's to whoever comes next, at once."""
        await self.renew(owner, until_ms=0)

    async def cancel(self, item_id: str) -> bool:
        """Note that work is not wanted any more; False where it is over or is not there."""
        table = self._table
        open_ = and_(table.c.id == item_id, table.c.is_over.is_(False))

        def change(connection: Connection) -> bool:
            return bool(connection.execute(update(table).where(open_).values(is_cancelled=True)).rowcount)

        return await self._database.write(change)

    async def wishes(self, owner: str) -> frozenset[str]:
        """Return which of the owner's work is not wanted any more."""
        table = self._table
        unwanted = select(table.c.id).where(
            table.c.owner == owner, table.c.is_over.is_(False), table.c.is_cancelled.is_(True)
        )
        return await self._database.read(lambda connection: frozenset(connection.execute(unwanted).scalars()))

    def _read(self, body: str, *, is_cancelled: bool) -> W:
        item = self._decoder.decode(body)
        if not is_cancelled or item.is_cancelled:
            return item
        return structs.replace(item, is_cancelled=True)  # type: ignore[type-var]
