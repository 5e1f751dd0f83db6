"""The alerts in the store: what users read, and what waits to be sent to the operator's webhook."""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, and_, func, literal, or_, select, tuple_, update

from llm_gate.domain.reports import AlertFilter, AlertLine
from llm_gate.storage.database import Database
from llm_gate.storage.schema import alert


class StoredAlerts:
    """The port `Alerts` over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_alerts(
        self, wanted: AlertFilter, *, before: tuple[int, str] | None = None, limit: int = 50
    ) -> tuple[AlertLine, ...]:
        """Return alerts, the newest first: those before a place (time in ms, id)."""
        place = (alert.c.created_ms, alert.c.id)
        question = select(alert).where(*_wanted(wanted))
        if before is not None:
            question = question.where(tuple_(*place) < tuple_(*map(literal, before)))
        question = question.order_by(*(column.desc() for column in place)).limit(limit)
        return await self._database.read(lambda link: tuple(map(_line, link.execute(question))))

    async def count_alerts(self, wanted: AlertFilter) -> int:
        """Count alerts."""
        question = select(func.count()).select_from(alert).where(*_wanted(wanted))
        return await self._database.read(lambda link: int(link.execute(question).scalar_one()))

    async def alert(self, tenant: str, alert_id: str) -> AlertLine | None:
        """Return one alert of a tenant."""
        question = select(alert).where(alert.c.id == alert_id, alert.c.tenant == tenant)

        def ask(connection: Connection) -> AlertLine | None:
            row = connection.execute(question).one_or_none()
            return None if row is None else _line(row)

        return await self._database.read(ask)

    async def mark_read(self, tenant: str, alert_id: str, at_ms: int) -> None:
        """Note that an alert was read; the first time counts."""
        is_unread = and_(alert.c.id == alert_id, alert.c.tenant == tenant, alert.c.read_ms.is_(None))
        await self._change(update(alert).where(is_unread).values(read_ms=at_ms))

    async def claim(self, now_ms: int, *, lease_ms: int, oldest_ms: int, limit: int) -> tuple[AlertLine, ...]:
        """Take alerts that wait to be sent, and keep every other process from them for the lease.

        Those made before `oldest_ms` are left alone.
        """
        waits = and_(
            alert.c.sent_ms.is_(None),
            alert.c.created_ms >= oldest_ms,
            or_(alert.c.next_try_ms.is_(None), alert.c.next_try_ms <= now_ms),
        )
        oldest_first = select(alert).where(waits).order_by(alert.c.created_ms, alert.c.id).limit(limit)
        taken = {"next_try_ms": now_ms + lease_ms, "tries": alert.c.tries + 1}

        def look(connection: Connection) -> tuple[AlertLine, ...]:
            return tuple(map(_line, connection.execute(oldest_first)))

        def take(connection: Connection) -> tuple[AlertLine, ...]:
            # Whoever changes the row first has it: for another process the condition then no longer holds.
            return tuple(
                msgspec.structs.replace(line, tries=line.tries + 1)
                for line in look(connection)
                if connection.execute(
                    update(alert).where(alert.c.id == line.id, waits).values(taken)
                ).rowcount
            )

        # Most of the time nothing waits, and asking that must not lock anything.
        return await self._database.write(take) if await self._database.read(look) else ()

    async def note_sent(self, alert_id: str, at_ms: int) -> None:
        """Note that an alert was delivered, so that nobody sends it again."""
        await self._change(update(alert).where(alert.c.id == alert_id).values(sent_ms=at_ms))

    async def note_failed(self, alert_id: str, next_try_ms: int) -> None:
        """Note when an alert that was not accepted may be sent again."""
        await self._change(update(alert).where(alert.c.id == alert_id).values(next_try_ms=next_try_ms))

    async def _change(self, statement: Any) -> None:
        await self._database.write(lambda connection: connection.execute(statement))


def _wanted(wanted: AlertFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [
        alert.c.tenant == wanted.tenant,
        alert.c.start_ms >= wanted.since_ms,
        alert.c.start_ms < wanted.until_ms,
    ]
    if wanted.user is not None:
        # What happens to a whole tenant, application or key is none of a user's business.
        found += [alert.c.user_id == wanted.user, alert.c.scope == "user"]
    if wanted.unread_only:
        found.append(alert.c.read_ms.is_(None))
    return found


def _line(row: Row[Any]) -> AlertLine:
    found = dict(row._mapping)  # noqa: SLF001 - the documented way to a row's columns by name
    found["user"] = found.pop("user_id")
    return msgspec.convert({name: found[name] for name in AlertLine.__struct_fields__}, AlertLine)
