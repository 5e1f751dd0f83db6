"""Windows of time in which something is counted: one function says which window an instant lies in.

Minutes and hours begin where UTC's do. Days, months and billing periods begin at local midnight, or at the local
time of the subscription, in the zone that is passed in; months are counted by the calendar from the anchor itself, so
that a period anchored on the 31st begins on the 28th of February and on the 31st of March.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal, get_args

from msgspec import Struct

WindowKind = Literal["minute", "hour", "day", "month", "period", "open"]
"""What a quota counts over. "period" is the monthly window of a subscription, "open" what is under way now."""

WINDOW_KINDS: tuple[WindowKind, ...] = get_args(WindowKind)

FOREVER_MS = 2**62
_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000
_MONTHS = 12
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Window(Struct, frozen=True, kw_only=True):
    """One window: from `start_ms` on, up to but without `end_ms`, in milliseconds since 1970. `key` is for people."""

    key: str
    start_ms: int
    end_ms: int

    @property
    def end_at(self) -> datetime:
        """When the next window begins."""
        return instant(self.end_ms)


def window_of(kind: WindowKind, at_ms: int, *, anchor_ms: int = 0, zone: tzinfo = UTC) -> Window:
    """Return the window of a kind that holds an instant; `anchor_ms` is where a subscription's first period began."""
    if kind == "minute":
        return _fixed(at_ms, _MINUTE_MS, "%Y-%m-%dT%H:%M")
    if kind == "hour":
        return _fixed(at_ms, _HOUR_MS, "%Y-%m-%dT%H")
    if kind == "open":
        return Window(key="open", start_ms=0, end_ms=FOREVER_MS)
    local = instant(at_ms).astimezone(zone)
    if kind == "day":
        return _day(local, zone)
    # Whoever has no subscription has no day to count from: the calendar's months are theirs.
    by_calendar = kind == "month" or anchor_ms == 0
    anchor = datetime(1970, 1, 1, tzinfo=zone) if by_calendar else instant(anchor_ms).astimezone(zone)
    return _monthly(at_ms, local, anchor, key_form="%Y-%m" if kind == "month" else "%Y-%m-%d")


def add_months(anchor: datetime, months: int) -> datetime:
    """Return the same day and local time some months later, or the last day of a month that is shorter."""
    index = anchor.year * _MONTHS + anchor.month - 1 + months
    year, month = divmod(index, _MONTHS)
    day = min(anchor.day, _days_in(year, month + 1))
    # Of a local time that comes twice, the first is meant; the second would be found in the wrong month where clocks
    # leave an hour out at midnight.
    return anchor.replace(year=year, month=month + 1, day=day, fold=0)


def instant(at_ms: int) -> datetime:
    """Return an instant in milliseconds since 1970 as an aware datetime."""
    return _EPOCH + timedelta(milliseconds=at_ms)


def milliseconds(at: datetime) -> int:
    """Return an aware datetime in whole milliseconds since 1970."""
    return (at - _EPOCH) // _MILLISECOND


def _fixed(at_ms: int, length_ms: int, key_form: str) -> Window:
    start_ms = at_ms - at_ms % length_ms
    return Window(key=instant(start_ms).strftime(key_form), start_ms=start_ms, end_ms=start_ms + length_ms)


def _day(local: datetime, zone: tzinfo) -> Window:
    midnight = datetime(local.year, local.month, local.day, tzinfo=zone)
    following = datetime(local.year, local.month, local.day, 12, tzinfo=zone) + timedelta(days=1)
    next_midnight = datetime(following.year, following.month, following.day, tzinfo=zone)
    return Window(
        key=midnight.strftime("%Y-%m-%d"), start_ms=milliseconds(midnight), end_ms=milliseconds(next_midnight)
    )


def _monthly(at_ms: int, local: datetime, anchor: datetime, *, key_form: str) -> Window:
    months = (local.year - anchor.year) * _MONTHS + local.month - anchor.month
    # The guess is off by one at most: before the day or hour of the anchor the period of last month still runs.
    start = add_months(anchor, months)
    if milliseconds(start) > at_ms:
        months -= 1
        start = add_months(anchor, months)
    end = add_months(anchor, months + 1)
    return Window(key=start.strftime(key_form), start_ms=milliseconds(start), end_ms=milliseconds(end))


def _days_in(year: int, month: int) -> int:
    first_of_next = datetime(year + month // _MONTHS, month % _MONTHS + 1, 1, tzinfo=UTC)
    return (first_of_next - timedelta(days=1)).day
