"""Jobs in the store: one row each, with a lease of whoever works on it."""

from collections.abc import Callable, Iterable, Mapping

from msgspec import structs
from sqlalchemy import Connection, and_, select, update

from llm_gate.domain.jobs import Job
from llm_gate.storage.database import Database
from llm_gate.storage.leased import StoredWork
from llm_gate.storage.schema import job as table


class StoredJobs(StoredWork[Job]):
    """The port `Jobs` over a database."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, table, Job)

    async def amend(self, job_id: str, change: Callable[[Job], Job]) -> Job | None:
        """Change a job that is not over, whoever works on it, and return it; None where there is none."""
        wanted = select(table.c.body, table.c.is_cancelled, table.c.version).where(
            table.c.id == job_id, table.c.is_over.is_(False)
        )

        def work(connection: Connection) -> Job | None:
            while (row := connection.execute(wanted).first()) is not None:
                job = change(self._read(row.body, is_cancelled=row.is_cancelled))
                job = structs.replace(job, version=row.version + 1)
                written = {"version": job.version, "body": self._encoder.encode(job).decode()}
                same = and_(table.c.id == job_id, table.c.version == row.version)
                if connection.execute(update(table).where(same).values(written)).rowcount:
                    return job
            return None

        return await self._database.write(work)

    async def held(self, job_id: str, *, owner: str) -> Job | None:
        """Return a job that an owner works on."""
        wanted = select(table.c.body, table.c.is_cancelled).where(
            table.c.id == job_id, table.c.owner == owner
        )

        def ask(connection: Connection) -> Job | None:
            row = connection.execute(wanted).first()
            return None if row is None else self._read(row.body, is_cancelled=row.is_cancelled)

        return await self._database.read(ask)

    async def versions(self, job_ids: Iterable[str]) -> Mapping[str, int]:
        """Return how often jobs have changed."""
        wanted = select(table.c.id, table.c.version).where(table.c.id.in_(list(job_ids)))
        rows = await self._database.read(lambda connection: connection.execute(wanted).all())
        return {row.id: row.version for row in rows}
