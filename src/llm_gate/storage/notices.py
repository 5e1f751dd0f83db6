"""What the operator is told, in the store: one notice of a cause and subject an hour, and what waits to be sent."""

from collections.abc import Callable
from typing import Any

from msgspec import structs
from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from llm_gate.domain.conditions import NOTICE_EVERY_MS, Notice, NoticeLine
from llm_gate.storage.database import Database
from llm_gate.storage.schema import notice as table

KEPT_MS = 7 * 24 * NOTICE_EVERY_MS
"""After how long notices are deleted; they are tried for a day."""


class StoredNotices:
    """The port `NoticeBook`, and what their delivery needs, over a database."""

    def __init__(self, database: Database, *, new_id: Callable[[], str]) -> None:
        self._database = database
        self._new_id = new_id

    async def add(self, notice: Notice, at_ms: int) -> bool:
        """Keep a notice, unless one of its cause and subject was kept within the hour."""
        same = and_(table.c.cause == notice.cause, table.c.subject == notice.subject)
        row = {
            "id": self._new_id(),
            "cause": notice.cause,
            "subject": notice.subject,
            "message": notice.message,
            "created_ms": at_ms,
            "tries": 0,
        }

        def change(connection: Connection) -> bool:
            oldest_ms, newest_ms = at_ms - NOTICE_EVERY_MS, at_ms + NOTICE_EVERY_MS
            # Clocks differ: one from a little later is of this hour as well.
            near = and_(same, table.c.created_ms > oldest_ms, table.c.created_ms < newest_ms)
            if connection.execute(select(table.c.id).where(near).limit(1)).first() is not None:
                return False
            # What was written by a clock that was far ahead would stand in the way until then.
            is_ahead = and_(same, table.c.created_ms >= newest_ms)
            connection.execute(delete(table).where(or_(table.c.created_ms < at_ms - KEPT_MS, is_ahead)))
            earlier = and_(same, table.c.created_ms <= oldest_ms)
            last_ms = connection.execute(select(func.max(table.c.created_ms)).where(earlier)).scalar()
            # Of processes that find the same last one, one alone may follow it.
            connection.execute(insert(table).values(row | {"after_ms": last_ms or 0}))
            return True

        try:
            return await self._database.write(change)
        except IntegrityError:
            return False

    async def claim(
        self, now_ms: int, *, lease_ms: int, oldest_ms: int, limit: int
    ) -> tuple[NoticeLine, ...]:
        """Take notices that wait to be sent, and keep every other process from them for the lease."""
        waits = and_(
            table.c.sent_ms.is_(None),
            table.c.created_ms >= oldest_ms,
            or_(table.c.next_try_ms.is_(None), table.c.next_try_ms <= now_ms),
        )
        oldest_first = select(table).where(waits).order_by(table.c.created_ms, table.c.id).limit(limit)
        taken = {"next_try_ms": now_ms + lease_ms, "tries": table.c.tries + 1}

        def look(connection: Connection) -> tuple[NoticeLine, ...]:
            return tuple(
                NoticeLine(
                    id=row.id,
                    cause=row.cause,
                    subject=row.subject,
                    message=row.message,
                    created_ms=row.created_ms,
                    tries=row.tries,
                )
                for row in connection.execute(oldest_first)
            )

        def take(connection: Connection) -> tuple[NoticeLine, ...]:
            return tuple(
                structs.replace(line, tries=line.tries + 1)
                for line in look(connection)
                if connection.execute(
                    update(table).where(table.c.id == line.id, waits).values(taken)
                ).rowcount
            )

        return await self._database.write(take) if await self._database.read(look) else ()

    async def note_sent(self, notice_id: str, at_ms: int) -> None:
        """Note that a notice was delivered."""
        await self._change(update(table).where(table.c.id == notice_id).values(sent_ms=at_ms))

    async def note_failed(self, notice_id: str, next_try_ms: int) -> None:
        """Note when a notice that was not accepted may be sent again."""
        await self._change(update(table).where(table.c.id == notice_id).values(next_try_ms=next_try_ms))

    async def _change(self, statement: Any) -> None:
        await self._database.write(lambda connection: connection.execute(statement))
