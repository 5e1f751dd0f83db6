"""Jobs in the store: one row each, with a lease of whoever works on it."""

import msgspec
from msgspec import structs
from sqlalchemy import Connection, and_, delete, insert, select, update

from llm_gate.domain.jobs import Job
from llm_gate.storage.database import Database
from llm_gate.storage.schema import job as table

_decoder = msgspec.json.Decoder(Job)
_encoder = msgspec.json.Encoder()


class StoredJobs:
    """The port `Jobs` over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, job: Job, *, owner: str, until_ms: int) -> None:
        """Write a new job, which its owner works on."""
        row = {
            "id": job.id,
            "tenant": job.tenant,
            "user_id": job.user,
            "owner": owner,
            "lease_until_ms": until_ms,
            "is_over": job.is_over,
            "is_cancelled": job.is_cancelled,
            "version": job.version,
            "body": _encoder.encode(job).decode(),
        }
        await self._database.write(lambda connection: connection.execute(insert(table).values(row)))

    async def save(self, job: Job, *, owner: str, until_ms: int) -> bool:
        """Write a job that has changed, as long as nobody else has taken it over; False where somebody has."""
        mine = and_(table.c.id == job.id, table.c.owner == owner, table.c.version < job.version)
        changed = {
            "lease_until_ms": until_ms,
            "is_over": job.is_over,
            "version": job.version,
            "body": _encoder.encode(job).decode(),
        }

        def change(connection: Connection) -> bool:
            return bool(connection.execute(update(table).where(mine).values(changed)).rowcount)

        return await self._database.write(change)

    async def remove(self, job_id: str) -> None:
        """Remove a job that no vendor has taken."""
        await self._database.write(
            lambda connection: connection.execute(delete(table).where(table.c.id == job_id))
        )

    async def find(self, job_id: str) -> Job | None:
        """Return a job."""

        def ask(connection: Connection) -> Job | None:
            row = connection.execute(
                select(table.c.body, table.c.is_cancelled).where(table.c.id == job_id)
            ).first()
            return None if row is None else _read(row.body, is_cancelled=row.is_cancelled)

        return await self._database.read(ask)

    async def listed(self, tenant: str, user: str | None, *, limit: int, before: str = "") -> tuple[Job, ...]:
        """Return a tenant's jobs (or one user's), the newest first, those older than the job `before`."""
        # Ids grow with time.
        wanted = select(table.c.body, table.c.is_cancelled).where(table.c.tenant == tenant)
        if user is not None:
            wanted = wanted.where(table.c.user_id == user)
        if before:
            wanted = wanted.where(table.c.id < before)
        wanted = wanted.order_by(table.c.id.desc()).limit(limit)

        def ask(connection: Connection) -> tuple[Job, ...]:
            return tuple(_read(row.body, is_cancelled=row.is_cancelled) for row in connection.execute(wanted))

        return await self._database.read(ask)

    async def claim(self, owner: str, *, now_ms: int, until_ms: int, limit: int) -> tuple[Job, ...]:
        """Take over jobs that are not over and that nobody works on."""
        # What the owner holds is handed in or worked on already, however late its word is.
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

        def take(connection: Connection) -> tuple[Job, ...]:
            return tuple(
                _read(row.body, is_cancelled=row.is_cancelled)
                for row in connection.execute(free).all()
                if connection.execute(
                    update(table).where(table.c.id == row.id, is_free).values(taken)
                ).rowcount
            )

        return await self._database.write(take) if await self._database.read(look) else ()

    async def renew(self, owner: str, *, until_ms: int) -> None:
        """Go on working on everything that is the owner's."""
        mine = and_(table.c.owner == owner, table.c.is_over.is_(False))
        renewal = update(table).where(mine).values(lease_until_ms=until_ms)
        await self._database.write(lambda connection: connection.execute(renewal))

    async def leave(self, owner: str) -> None:
        """Leave everything that is the owner's to whoever comes next, at once."""
        await self.renew(owner, until_ms=0)

    async def cancel(self, job_id: str) -> bool:
        """Note that a job is not wanted any more; False where it is over or is not there."""
        open_ = and_(table.c.id == job_id, table.c.is_over.is_(False))

        def change(connection: Connection) -> bool:
            return bool(connection.execute(update(table).where(open_).values(is_cancelled=True)).rowcount)

        return await self._database.write(change)

    async def wishes(self, owner: str) -> frozenset[str]:
        """Return which of the owner's jobs are not wanted any more."""
        unwanted = select(table.c.id).where(
            table.c.owner == owner, table.c.is_over.is_(False), table.c.is_cancelled.is_(True)
        )
        return await self._database.read(lambda connection: frozenset(connection.execute(unwanted).scalars()))


def _read(body: str, *, is_cancelled: bool) -> Job:
    job = _decoder.decode(body)
    return structs.replace(job, is_cancelled=True) if is_cancelled and not job.is_cancelled else job
