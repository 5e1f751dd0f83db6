"""Answers questions about the past from the records and their daily sums; never holds up admission.

Sums come from the daily rows for whole days, and from the attempts themselves for the parts of a day at either end,
so that a billing period that begins at noon is as exact as a calendar month.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB

from llm_gate.domain.reports import (
    EVERY_CALL,
    AttemptLine,
    CallFilter,
    CallLine,
    Group,
    Grouping,
    Selection,
    Totals,
)
from llm_gate.domain.windows import FOREVER_MS, instant
from llm_gate.storage.database import Database, Kind
from llm_gate.storage.schema import attempt, usage_record, usage_summary

_DAY_MS = 86_400_000
_NAMES = ("user_id", "application", "bucket", "provider", "model", "day")
_SUMS = Totals.__struct_fields__


class StoredReports:
    """The port `Reports` over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def totals(self, selection: Selection) -> Totals:
        """Sum a selection up."""
        (group,) = await self._groups(selection, (), None, 1)
        return group.totals

    async def groups(
        self,
        selection: Selection,
        by: tuple[Grouping, ...],
        *,
        after: tuple[str, ...] | None = None,
        limit: int = 1000,
    ) -> tuple[Group, ...]:
        """Sum a selection up by groups, in the order of their keys, those behind the key `after` alone."""
        return await self._groups(selection, by, after, limit)

    async def _groups(
        self, selection: Selection, by: tuple[Grouping, ...], after: tuple[str, ...] | None, limit: int
    ) -> tuple[Group, ...]:
        question = _grouped(self._database.kind, selection, by, after).limit(limit)
        width = len(by)

        def ask(connection: Connection) -> tuple[Group, ...]:
            rows = connection.execute(question)
            return tuple(Group(key=tuple(row[:width]), totals=_totals(row[width:])) for row in rows)

        return await self._database.survey(ask)

    async def calls(
        self,
        selection: Selection,
        wanted: CallFilter = EVERY_CALL,
        *,
        before: tuple[int, str] | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> tuple[CallLine, ...]:
        """Return calls, the newest first: those before a place, without the first `offset` of them."""
        place = (usage_record.c.made_ms, usage_record.c.id)
        question = select(usage_record).where(*_chosen(selection, wanted))
        if before is not None:
            question = question.where(tuple_(*place) < tuple_(*map(literal, before)))
        question = question.order_by(*(column.desc() for column in place)).offset(offset).limit(limit)
        return await self._database.survey(lambda link: tuple(map(_call_line, link.execute(question))))

    async def count_calls(self, selection: Selection, wanted: CallFilter = EVERY_CALL) -> int:
        """Count calls of which at least one attempt was sent."""
        if wanted == EVERY_CALL:
            return (await self.totals(selection)).requests
        question = select(func.count()).select_from(usage_record).where(*_chosen(selection, wanted))
        return await self._database.survey(lambda link: int(link.execute(question).scalar_one()))

    async def call(self, tenant: str, call_id: str) -> CallLine | None:
        """Return one call of a tenant."""
        question = select(usage_record).where(usage_record.c.id == call_id, usage_record.c.tenant == tenant)

        def ask(connection: Connection) -> CallLine | None:
            row = connection.execute(question).one_or_none()
            return None if row is None else _call_line(row)

        return await self._database.survey(ask)

    async def attempts(self, tenant: str, call_id: str) -> tuple[AttemptLine, ...]:
        """Return the attempts of one call of a tenant, in their order."""
        question = (
            select(attempt)
            .join(usage_record, usage_record.c.id == attempt.c.record_id)
            .where(attempt.c.record_id == call_id, usage_record.c.tenant == tenant)
            .order_by(attempt.c.number)
        )
        return await self._database.survey(lambda link: tuple(map(_attempt_line, link.execute(question))))


class _Part(Struct, frozen=True, kw_only=True):
    """Part of a day: from `start_ms` up to but without `end_ms`, on the day as it is written."""

    start_ms: int
    end_ms: int

    @property
    def day(self) -> str:
        return _day(self.start_ms)


def _parts(selection: Selection) -> tuple[tuple[str, str | None], tuple[_Part, ...]]:
    """Divide a selection's time into whole days (the first, and that after the last) and parts of days."""
    since_ms, until_ms = selection.since_ms, min(selection.until_ms, FOREVER_MS)
    first_ms = -(-since_ms // _DAY_MS) * _DAY_MS
    if until_ms >= FOREVER_MS:
        days: tuple[str, str | None] = (_day(first_ms), None)
        return days, (_Part(start_ms=since_ms, end_ms=first_ms),) if since_ms < first_ms else ()
    last_ms = until_ms - until_ms % _DAY_MS
    if first_ms > last_ms:
        return (_day(first_ms), _day(first_ms)), (_Part(start_ms=since_ms, end_ms=until_ms),)
    parts = (_Part(start_ms=since_ms, end_ms=first_ms), _Part(start_ms=last_ms, end_ms=until_ms))
    return (_day(first_ms), _day(last_ms)), tuple(part for part in parts if part.start_ms < part.end_ms)


def _day(at_ms: int) -> str:
    return instant(at_ms).date().isoformat()


def _grouped(
    kind: Kind, selection: Selection, by: Sequence[Grouping], after: tuple[str, ...] | None
) -> Select[Any]:
    days, parts = _parts(selection)
    pieces = [_of_days(selection, *days), *(_of_part(kind, selection, part) for part in parts)]
    rows = union_all(*pieces).subquery()
    keys = [_key(rows.c, grouping) for grouping in by]
    sums = (func.coalesce(func.sum(rows.c[name]), 0).label(name) for name in _SUMS)
    columns: list[ColumnElement[Any]] = [*keys, *sums]
    question = select(*columns)
    if after is not None:
        question = question.where(tuple_(*keys) > tuple_(*map(literal, after)))
    return question.group_by(*keys).order_by(*keys) if keys else question


def _key(columns: Any, grouping: Grouping) -> ColumnElement[str]:
    if grouping == "model":
        return columns.provider + literal_column("'/'") + columns.model  # type: ignore[no-any-return]
    if grouping == "month":
        return func.substr(columns.day, literal_column("1"), literal_column("7"))
    found: ColumnElement[str] = columns["user_id" if grouping == "user" else grouping]
    return found


def _of_days(selection: Selection, first: str, after_last: str | None) -> Select[Any]:
    table = usage_summary.c
    columns = [table[name] for name in (*_NAMES, *_SUMS)]
    question = select(*columns).where(*_whose(table, selection), table.day >= first)
    return question if after_last is None else question.where(table.day < after_last)


def _of_part(kind: Kind, selection: Selection, part: _Part) -> Select[Any]:
    """Return rows like those of whole days, one for each attempt."""
    record, each = usage_record.c, attempt.c
    later = attempt.alias("later")
    is_last = ~exists().where(later.c.record_id == each.record_id, later.c.number > each.number)
    columns: list[ColumnElement[Any]] = [
        record.user_id,
        record.application,
        record.bucket,
        each.provider,
        each.model,
        literal(part.day).label("day"),
        case((is_last, 1), else_=0).label("requests"),
        literal_column("1").label("attempts"),
        case((each.status != "ok", 1), else_=0).label("failures"),
        _unit(kind, "input_tokens").label("input_tokens"),
        _unit(kind, "output_tokens").label("output_tokens"),
        func.coalesce(each.cost_nanos, 0).label("cost_nanos"),
        case((each.cost_nanos.is_(None), 1), else_=0).label("unpriced"),
        (each.ended_ms - each.started_ms).label("duration_ms"),
    ]
    # Asked for on their own, the ids come from the index alone; SQLite would else read every row of the tenant.
    found = usage_record.alias("found").c
    within = (found.made_ms >= part.start_ms, found.made_ms < part.end_ms)
    ids = select(found.id).where(*_of_user(found, selection), *within)
    joined = select(*columns).join_from(usage_record, attempt, each.record_id == record.id)
    joined = joined.where(record.id.in_(ids))
    wanted = selection.application
    return joined if wanted is None else joined.where(record.application == wanted)


def _unit(kind: Kind, name: str) -> ColumnElement[Any]:
    units = attempt.c.units
    if kind == "sqlite":
        return func.coalesce(func.json_extract(units, f"$.{name}"), 0)
    return func.coalesce(cast(cast(units, JSONB)[name].astext, BigInteger), 0)


def _of_user(columns: Any, selection: Selection) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [columns.tenant == selection.tenant]
    if selection.user is not None:
        found.append(columns.user_id == selection.user)
    return found


def _whose(columns: Any, selection: Selection) -> list[ColumnElement[bool]]:
    found = _of_user(columns, selection)
    if selection.application is not None:
        found.append(columns.application == selection.application)
    return found


def _chosen(selection: Selection, wanted: CallFilter) -> list[ColumnElement[bool]]:
    record = usage_record.c
    found = [
        *_whose(record, selection),
        record.made_ms >= selection.since_ms,
        record.made_ms < selection.until_ms,
        record.attempts > 0,
    ]
    if wanted.provider is not None:
        found.append(record.provider == wanted.provider)
    if wanted.bucket is not None:
        found.append(record.bucket == wanted.bucket)
    if wanted.statuses is not None:
        found.append(record.status.in_(wanted.statuses))
    if wanted.error_codes is not None:
        found.append(record.error_code.in_(wanted.error_codes))
    return found


def _totals(row: Sequence[Any]) -> Totals:
    return Totals(**{name: int(value) for name, value in zip(_SUMS, row, strict=True)})


def _call_line(row: Row[Any]) -> CallLine:
    found = dict(row._mapping)  # noqa: SLF001 - the documented way to a row's columns by name
    found["user"] = found.pop("user_id")
    return msgspec.convert({name: found[name] for name in CallLine.__struct_fields__}, CallLine)


def _attempt_line(row: Row[Any]) -> AttemptLine:
    found = dict(row._mapping)  # noqa: SLF001 - the documented way to a row's columns by name
    found |= {name: msgspec.json.decode(found[name]) for name in ("units", "prices")}
    return msgspec.convert({name: found[name] for name in AttemptLine.__struct_fields__}, AttemptLine)
