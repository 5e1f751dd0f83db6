"""Recomputes every balance from the rows it stands for: what the records were charged, what open calls hold."""

from collections import defaultdict
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    cast,
    func,
    literal_column,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

from llm_gate.domain.book import Place
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.limits import limit_named
from llm_gate.storage.ledger_rows import load_reservations
from llm_gate.storage.schema import balance, reservation, usage_record

_AT_A_TIME = 1000


class Drift(Struct, frozen=True, kw_only=True):
    """A balance that is not the sum of its rows: what stands there, and what should."""

    account: str
    start_ms: int
    used: int
    used_by_rows: int
    held: int
    held_by_rows: int
    is_money: bool

    @property
    def size(self) -> int:
        """How far off it is, in the unit of its account."""
        return abs(self.used - self.used_by_rows) + abs(self.held - self.held_by_rows)


class LedgerCheck(Struct, frozen=True, kw_only=True):
    """What a check found. `drift_nanos` is how far money is off, of all accounts together."""

    drift_nanos: int
    drifts: tuple[Drift, ...]
    open_reservations: int
    records: int
    balances: int

    @property
    def is_sound(self) -> bool:
        """Whether every balance, also of calls and tokens, is the sum of its rows."""
        return not self.drifts


def ledger_check(connection: Connection) -> LedgerCheck:
    """Check every balance, all at one moment, in the transaction that is just about to begin."""
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    used: dict[Place, int] = defaultdict(int)
    held: dict[Place, int] = defaultdict(int)
    for account, start_ms, amount in connection.execute(_charges(is_sqlite=is_sqlite)):
        used[account, int(start_ms)] += int(amount)
    open_reservations = 0
    for bodies in connection.execute(select(reservation.c.body)).scalars().partitions(_AT_A_TIME):
        for kept in load_reservations(",".join(bodies)).values():
            open_reservations += 1
            for hold in kept.holds:
                held[hold.place] += hold.amount
    drifts: list[Drift] = []
    balances = 0
    seen: set[Place] = set()
    for row in connection.execute(select(balance)):
        balances += 1
        place = (row.account, row.start_ms)
        seen.add(place)
        drifts.append(_drift(place, row.used, row.seeded + used[place], row.held, held[place]))
    # Charges and holds without a balance are off by all they are.
    drifts += [_drift(place, 0, used[place], 0, held[place]) for place in (used.keys() | held.keys()) - seen]
    found = tuple(
        sorted((each for each in drifts if each.size), key=lambda each: (each.account, each.start_ms))
    )
    return LedgerCheck(
        drift_nanos=sum(each.size for each in found if each.is_money),
        drifts=found,
        open_reservations=open_reservations,
        records=connection.execute(select(func.count()).select_from(usage_record)).scalar_one(),
        balances=balances,
    )


def _charges(*, is_sqlite: bool) -> Select[Any]:
    """Return the question for what each account was charged in each window, by the records."""
    charges = usage_record.c.charges
    parts: list[ColumnElement[Any]]
    if is_sqlite:
        lines = func.json_each(charges).table_valued("value")
        parts = [func.json_extract(lines.c.value, f"$[{number}]") for number in range(3)]
    else:
        lines = (
            func.jsonb_array_elements(cast(charges, JSONB)).table_valued("value").render_derived(name="line")
        )
        texts = [lines.c.value.op("->>")(literal_column(str(number))) for number in range(3)]
        parts = [texts[0], cast(texts[1], BigInteger), cast(texts[2], BigInteger)]
    account, start_ms, amount = parts
    rows = usage_record.join(lines, true())
    return select(account, start_ms, func.sum(amount)).select_from(rows).group_by(account, start_ms)


def _drift(place: Place, used: int, used_by_rows: int, held: int, held_by_rows: int) -> Drift:
    account, start_ms = place
    return Drift(
        account=account,
        start_ms=start_ms,
        used=used,
        used_by_rows=used_by_rows,
        held=held,
        held_by_rows=held_by_rows,
        is_money=_is_money(account),
    )


def _is_money(account: str) -> bool:
    try:
        return limit_named(account.rsplit("|", 2)[1]).is_money
    except (IndexError, InvalidRequest):
        return False
