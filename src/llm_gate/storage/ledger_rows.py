"""What a batch of the ledger leaves behind, as rows of the tables: records, attempts, daily sums, alerts.

The order of the values is that of the tables' columns; a test holds each row against its table.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import msgspec

from llm_gate.domain.book import Book
from llm_gate.domain.ledger import Hold, Outcome, Record, Reservation
from llm_gate.domain.windows import FOREVER_MS, instant

Row = tuple[Any, ...]

THRESHOLDS = (80, 90, 100)
"""At how many percent of a quota people are told."""

_HUNDRED = 100
_HOUR_MS = 3_600_000
_MOST = 2**62
_SUMS = 8

_encode = msgspec.json.Encoder().encode
_reservations = msgspec.json.Decoder(tuple[Reservation, ...])


def load_reservations(bodies: str | None) -> dict[str, Reservation]:
    """Read reservations, written one after the other with commas between, by their ids."""
    if not bodies:
        return {}
    return {found.call.id: found for found in _reservations.decode(f"[{bodies}]")}


def batch_rows(book: Book, loaded: Container[str], new_id: Callable[[], str]) -> dict[str, Sequence[Any]]:
    """Return what a batch writes, by the names of the statement's parts.

    `loaded` are the reservations that were open before it.

    Raises:
        ValueError: an amount is negative, or too large to be added up exactly.
    """
    records = book.records
    kept = [(id_, each) for id_, each in sorted(book.changed.items()) if each is not None]
    return {
        "balances": [
            (account, start_ms, each.end_ms, _sound(each.used), _sound(each.held), each.seeded)
            for (account, start_ms), each in sorted(book.balances.items())
            if each.is_changed
        ],
        "opened": [_reservation(each) for id_, each in kept if id_ not in loaded],
        "moved": [_reservation(each) for id_, each in kept if id_ in loaded],
        "ended": sorted(id_ for id_, each in book.changed.items() if each is None),
        "records": [_record(record) for record in records],
        "attempts": [_attempt(record.call.id, each) for record in records for each in record.outcomes],
        "summaries": _summaries(records),
        "alerts": _alerts(records, book, new_id),
    }


def charges_text(charges: Iterable[tuple[Hold, int]]) -> str:
    """Write what a call was charged as a JSON list of [account, start of the window, amount], without zeros."""
    return _encode([(hold.account, hold.start_ms, amount) for hold, amount in charges if amount]).decode()


def _sound(amount: int) -> int:
    if not 0 <= amount < _MOST:
        raise ValueError(f"an amount of {amount} cannot be kept")
    return amount


def _reservation(kept: Reservation) -> Row:
    return (kept.call.id, kept.call.owner, kept.expires_ms, _encode(kept).decode())


def _record(record: Record) -> Row:
    call, outcomes = record.call, record.outcomes
    last = outcomes[-1] if outcomes else None
    cost_nanos = record.cost_nanos
    return (
        call.id,
        call.tenant,
        call.application,
        call.user,
        call.key_id,
        call.request_id,
        call.operation,
        call.bucket,
        call.endpoint,
        call.plan,
        None if last is None else last.provider,
        None if last is None else last.model,
        record.status,
        record.quality,
        record.error_code,
        call.made_ms,
        record.ended_ms,
        len(outcomes),
        call.count,
        sum(each.units.get("input_tokens", 0) for each in outcomes),
        sum(each.units.get("output_tokens", 0) for each in outcomes),
        _sound(sum(each.tokens for each in outcomes)),
        None if cost_nanos is None else _sound(cost_nanos),
        last is not None and last.synthetic,
        charges_text(record.charges),
    )


def _attempt(record_id: str, outcome: Outcome) -> Row:
    return (
        record_id,
        outcome.number,
        outcome.provider,
        outcome.model,
        outcome.status,
        outcome.quality,
        outcome.started_ms,
        outcome.ended_ms,
        _encode(outcome.units).decode(),
        _sound(outcome.tokens),
        None if outcome.cost_nanos is None else _sound(outcome.cost_nanos),
        outcome.vendor_cost_nanos,
        _encode(outcome.prices).decode(),
        outcome.error_code,
        outcome.upstream_status,
        outcome.synthetic,
        outcome.saved_nanos,
    )


def _summaries(records: Iterable[Record]) -> list[Row]:
    """Add attempts up by day and what they were. A call counts as one request, at its last attempt."""
    sums: dict[tuple[str, ...], list[int]] = {}
    days: dict[int, str] = {}
    for record in records:
        call, last = record.call, len(record.outcomes) - 1
        day_number = call.made_ms // (24 * _HOUR_MS)
        day = days.get(day_number)
        if day is None:
            day = days[day_number] = instant(call.made_ms).date().isoformat()
        for index, each in enumerate(record.outcomes):
            key = (call.tenant, call.user, day, call.application, call.bucket, each.provider, each.model)
            added = sums.setdefault(key, [0] * _SUMS)
            added[0] += index == last
            added[1] += 1
            added[2] += each.status != "ok"
            added[3] += each.units.get("input_tokens", 0)
            added[4] += each.units.get("output_tokens", 0)
            added[5] += each.cost_nanos or 0
            added[6] += each.cost_nanos is None
            added[7] += each.ended_ms - each.started_ms
    # In order, so that no two processes wait for each other's rows.
    return [(*key, *added) for key, added in sorted(sums.items())]


def _alerts(records: Iterable[Record], book: Book, new_id: Callable[[], str]) -> list[Row]:
    found: dict[tuple[str, int, int], Row] = {}
    for record in records:
        for hold, amount in record.charges:
            if not amount or hold.end_ms - hold.start_ms <= _HOUR_MS or hold.end_ms == FOREVER_MS:
                continue
            balance = book.balances[hold.account, hold.start_ms]
            used = balance.used * _HUNDRED
            if used < hold.cap * THRESHOLDS[0]:
                continue
            before = balance.used_before * _HUNDRED
            for threshold in THRESHOLDS:
                if before < hold.cap * threshold <= used:
                    found[(*hold.place, threshold)] = _alert(
                        record, hold, threshold, used // _HUNDRED, new_id()
                    )
    return [found[key] for key in sorted(found)]


def _alert(record: Record, hold: Hold, threshold: int, used: int, id_: str) -> Row:
    # What is used of a quota that many share is nothing that one of its users should see.
    user = record.call.user if hold.scope == "user" else ""
    return (
        id_,
        record.call.tenant,
        user,
        hold.scope,
        hold.subject,
        hold.account,
        hold.name,
        hold.start_ms,
        hold.end_ms,
        threshold,
        record.call.plan,
        used,
        hold.cap,
        record.ended_ms,
        None,
        None,
        0,
        None,
    )
