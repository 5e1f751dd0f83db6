"""What users and operators ask about usage: a billing period, months, what a month may come to, how near a limit is."""

import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, tzinfo
from typing import Protocol

import msgspec

from llm_gate.domain.access import Caller
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.plans import Standing
from llm_gate.domain.reports import (
    Group,
    Grouping,
    MonthUsage,
    PeriodUsage,
    QuotaUse,
    Reports,
    Selection,
    Share,
    Totals,
    total_of,
)
from llm_gate.domain.stores import Ledger
from llm_gate.domain.windows import Window, add_months, instant, milliseconds, window_of

PAGE = 1000
_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_MONTHS = 12
_FIRST_YEAR, _LAST_YEAR = 1970, 9000
_DAY_MS = 86_400_000
_PROJECTED_DAYS = 30


class Standings(Protocol):
    """Where it is known what binds a caller."""

    async def standing(self, caller: Caller) -> Standing:
        """Return what binds a caller now."""


class UserReports:
    """What one user is told about what was used."""

    def __init__(
        self, *, reports: Reports, ledger: Ledger, standings: Standings, now_ms: Callable[[], int]
    ) -> None:
        self.reports = reports
        self._ledger = ledger
        self._standings = standings
        self._now_ms = now_ms

    async def standing(self, caller: Caller) -> Standing:
        """Return what binds a user now."""
        return await self._standings.standing(caller)

    async def period(self, caller: Caller, month: str | None = None) -> PeriodUsage:
        """Report a user's billing period: the present one, or the one that begins in a month (YYYY-MM).

        Raises:
            InvalidRequest: that is no month.
        """
        standing = await self._standings.standing(caller)
        if month is None:
            window = window_of("period", self._now_ms(), anchor_ms=standing.anchor_ms, zone=standing.zone)
        else:
            window = period_beginning_in(month, standing.anchor_ms, standing.zone)
        selection = Selection(
            tenant=caller.tenant, user=caller.user, since_ms=window.start_ms, until_ms=window.end_ms
        )
        groups = all_groups(self.reports, selection, ("bucket", "provider"))
        shares = tuple([_share(group.key[0], group.key[1], group.totals) async for group in groups])
        return PeriodUsage(
            window=window,
            standing=standing,
            totals=total_of(share.totals for share in shares),
            shares=shares,
            quotas=await self._quotas(standing, window),
        )

    async def _quotas(self, standing: Standing, window: Window) -> tuple[QuotaUse, ...]:
        mine = [
            quota for quota in standing.quotas if quota.scope == "user" and quota.limit.window == "period"
        ]
        if not mine:
            return ()
        balances = await self._ledger.balances([(quota, window.start_ms) for quota in mine])
        uses: list[QuotaUse] = []
        for quota in mine:
            balance = balances.get((quota.account, window.start_ms))
            used, held = (0, 0) if balance is None else (balance.used, balance.held)
            uses.append(QuotaUse(quota=quota, window=window, used=used, held=held))
        return tuple(uses)

    async def trends(self, caller: Caller, months: int) -> tuple[MonthUsage, ...]:
        """Report so many calendar months, this one last; a month without usage is there too."""
        this_month = instant(self._now_ms()).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        first = add_months(this_month, 1 - months)
        selection = Selection(
            tenant=caller.tenant,
            user=caller.user,
            since_ms=milliseconds(first),
            until_ms=milliseconds(add_months(this_month, 1)),
        )
        found: dict[str, list[Share]] = {
            add_months(first, number).strftime("%Y-%m"): [] for number in range(months)
        }
        async for group in all_groups(self.reports, selection, ("month", "bucket", "provider")):
            month, bucket, provider = group.key
            found[month].append(_share(bucket, provider, group.totals))
        return tuple(MonthUsage(month=month, shares=tuple(shares)) for month, shares in found.items())

    def projected_nanos(self, period: PeriodUsage) -> int:
        """Guess what thirty days cost, going by the days of the period so far; the truth where it is over."""
        cost_nanos, now_ms = period.totals.cost_nanos, self._now_ms()
        if now_ms >= period.window.end_ms or now_ms < period.window.start_ms:
            return cost_nanos
        days = (now_ms - period.window.start_ms) // _DAY_MS + 1
        return cost_nanos * _PROJECTED_DAYS // days


async def all_groups(
    reports: Reports, selection: Selection, by: tuple[Grouping, ...]
) -> AsyncIterator[Group]:
    """Yield the sums of every group, however many there are, a page at a time."""
    after: tuple[str, ...] | None = None
    while True:
        page = await reports.groups(selection, by, after=after, limit=PAGE)
        for group in page:
            yield group
        if len(page) < PAGE:
            return
        after = page[-1].key


def period_beginning_in(month: str, anchor_ms: int, zone: tzinfo = UTC) -> Window:
    """Return the billing period that begins in a month (YYYY-MM): there is exactly one, whatever the anchor.

    Raises:
        InvalidRequest: that is no month.
    """
    read = _MONTH.fullmatch(month)
    if read is None or not _FIRST_YEAR <= int(read[1]) <= _LAST_YEAR:
        raise InvalidRequest("billing_period must be a month, as in 2026-11", param="billing_period")
    # As for windows in general: without a subscription, the calendar's months.
    anchor = instant(anchor_ms).astimezone(zone) if anchor_ms else datetime(1970, 1, 1, tzinfo=zone)
    months = (int(read[1]) - anchor.year) * _MONTHS + int(read[2]) - anchor.month
    start, end = add_months(anchor, months), add_months(anchor, months + 1)
    return Window(
        key=start.strftime("%Y-%m-%d"), start_ms=max(milliseconds(start), 0), end_ms=milliseconds(end)
    )


def _share(bucket: str, provider: str, totals: Totals) -> Share:
    return msgspec.convert({"bucket": bucket, "provider": provider, "totals": totals}, Share)
