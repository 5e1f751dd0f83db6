"""Windows tile time: whatever the zone and the anchor, each instant lies in one, and each reset comes once."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_gate.domain.windows import (
    FOREVER_MS,
    WINDOW_KINDS,
    add_months,
    instant,
    milliseconds,
    window_of,
)
from support.figures import full, property_of, proved

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
# Both hemispheres, half an hour of summer time, summer time that begins or ends at midnight, a day left out.
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "America/Havana",
    "Africa/Cairo",
    "Asia/Kathmandu",
    "Pacific/Apia",
]
# The last days of months, odd minutes, an hour that summer time leaves out, and both times one that comes twice.
ANCHORS = [
    "2024-02-29T00:00:00+00:00",
    "2026-01-31T23:59:59.999+00:00",
    "2025-12-30T03:17:42.123+05:45",
    "2026-08-29T12:00:00-07:00",
    "2026-03-29T01:30:00+01:00",
    "2026-10-25T02:30:00+02:00",
    "2026-10-25T02:30:00+01:00",
    "2026-11-01T00:30:00-04:00",
    "2026-11-01T00:30:00-05:00",
]
YEARS = 1_000
START_MS = milliseconds(datetime(2000, 1, 1, tzinfo=UTC))
END_MS = milliseconds(datetime(2000 + YEARS, 1, 1, tzinfo=UTC))
INSTANTS = st.integers(min_value=0, max_value=END_MS)


def ms(text):
    return milliseconds(datetime.fromisoformat(text))


def walk(kind, start_ms, end_ms, **where):
    """Go from reset to reset; every window begins where the last one ended, and knows itself at both its ends."""
    window = window_of(kind, start_ms, **where)
    assert window.start_ms <= start_ms < window.end_ms
    seen = 1
    while window.end_ms < end_ms:
        following = window_of(kind, window.end_ms, **where)
        assert following.start_ms == window.end_ms, window.key
        assert following.end_ms > following.start_ms
        assert following.key > window.key
        assert window_of(kind, following.end_ms - 1, **where) == following
        seen += 1
        window = following
    return seen


@proved
@pytest.mark.parametrize("zone", ZONES)
def test_days_tile_a_thousand_years(zone):
    """Days follow each other without gap or overlap, through every change to and from summer time."""
    years = full(60, YEARS)
    end_ms = START_MS + years * 365 * DAY_MS

    seen = walk("day", START_MS, end_ms, zone=ZoneInfo(zone))

    # One zone left a day out of its calendar when it changed sides of the date line.
    assert seen in range(years * 365 - 1, years * 365 + 3)


@pytest.mark.parametrize("zone", ZONES)
def test_months_tile_a_thousand_years(zone):
    """A thousand years have twelve thousand resets, one for each month of the calendar."""
    seen = walk("month", START_MS + 14 * DAY_MS, END_MS - 14 * DAY_MS, zone=ZoneInfo(zone))

    assert seen == 12 * YEARS


@proved
@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("zone", ZONES)
def test_billing_periods_tile_a_thousand_years(zone, anchor):
    """Periods from any anchor follow each other without gap or overlap, also before the anchor, one each month."""
    years = full(50, YEARS)
    where = {"zone": ZoneInfo(zone), "anchor_ms": ms(anchor)}
    first = window_of("period", START_MS, **where).start_ms

    seen = walk("period", first, END_MS if years == YEARS else first + years * 365 * DAY_MS, **where)

    # The first and the last one may stick out, and the zone may lie a day apart from UTC.
    assert seen in range(12 * years - 2, 12 * years + 3)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("zone", ZONES)
def test_a_period_begins_at_its_anchor(zone, anchor):
    """The anchor lies in the period that is counted from it, and whatever is not ambiguous begins it."""
    anchor_ms = ms(anchor)
    window = window_of("period", anchor_ms, anchor_ms=anchor_ms, zone=ZoneInfo(zone))
    came_twice = instant(anchor_ms).astimezone(ZoneInfo(zone)).fold == 1

    assert window.start_ms <= anchor_ms < window.end_ms
    assert window.start_ms == anchor_ms or (came_twice and anchor_ms - window.start_ms <= HOUR_MS)


@property_of(300)
@given(INSTANTS, st.sampled_from(WINDOW_KINDS), st.sampled_from(ZONES), st.integers(1, END_MS))
@example(ms("2027-03-14T04:59:59+00:00"), "period", "America/Havana", ms("2026-11-01T00:30:00-05:00"))
def test_every_instant_lies_in_the_window_it_is_given(at_ms, kind, zone, anchor_ms):
    """A window holds the instant it was asked for, and gives itself for its first and its last one."""
    where = {"zone": ZoneInfo(zone), "anchor_ms": anchor_ms}
    window = window_of(kind, at_ms, **where)

    assert window.start_ms <= at_ms < window.end_ms
    assert window_of(kind, window.start_ms, **where) == window
    assert window.end_ms == FOREVER_MS or window_of(kind, window.end_ms - 1, **where) == window
    assert window.end_ms == FOREVER_MS or window_of(kind, window.end_ms, **where).start_ms == window.end_ms


@property_of(200)
@given(st.lists(INSTANTS, min_size=1, max_size=30), st.randoms(), st.sampled_from(WINDOW_KINDS))
def test_a_clock_that_jumps_changes_nothing_but_the_window(instants, chance, kind):
    """Whatever order instants come in, each finds the same window: nothing is remembered from one to the next."""
    where = {"zone": ZoneInfo("Europe/Berlin"), "anchor_ms": ms(ANCHORS[1])}
    before = {at_ms: window_of(kind, at_ms, **where) for at_ms in instants}
    chance.shuffle(instants)

    assert {at_ms: window_of(kind, at_ms, **where) for at_ms in instants} == before


@pytest.mark.parametrize(
    ("kind", "at", "zone", "key", "start", "end"),
    [
        ("minute", "2026-11-20T12:00:30+00:00", "Asia/Kathmandu", "2026-11-20T12:00", None, MINUTE_MS),
        ("hour", "2026-11-20T12:00:30+00:00", "Asia/Kathmandu", "2026-11-20T12", None, HOUR_MS),
        ("day", "2026-03-29T12:00:00+00:00", "Europe/Berlin", "2026-03-29", None, 23 * HOUR_MS),
        ("day", "2026-10-25T12:00:00+00:00", "Europe/Berlin", "2026-10-25", None, 25 * HOUR_MS),
        ("day", "2026-04-05T02:00:00+00:00", "Australia/Lord_Howe", "2026-04-05", None, 24 * HOUR_MS + 30 * MINUTE_MS),
        ("day", "2018-11-04T12:00:00+00:00", "America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00+00:00", 23 * HOUR_MS),
        ("month", "2026-12-31T23:30:00+00:00", "Europe/Berlin", "2027-01", "2026-12-31T23:00:00+00:00", 31 * DAY_MS),
    ],
)  # fmt: skip
def test_windows_of_the_calendar(kind, at, zone, key, start, end):
    """Days and months begin at local midnight, and last as long as the calendar says."""
    window = window_of(kind, ms(at), zone=ZoneInfo(zone))

    assert window.key == key
    assert window.end_ms - window.start_ms == end
    assert start is None or window.start_ms == ms(start)


def test_periods_count_from_the_anchor_itself():
    """A period anchored on the 31st begins on the last day of shorter months, and on the 31st again after them."""
    anchor_ms = ms("2024-01-31T10:00:00+00:00")
    starts: list[datetime] = []
    at_ms = anchor_ms
    for _ in range(6):
        window = window_of("period", at_ms, anchor_ms=anchor_ms)
        starts.append(instant(window.start_ms))
        at_ms = window.end_ms

    assert [start.date() for start in starts] == [
        date(2024, month, day) for month, day in [(1, 31), (2, 29), (3, 31), (4, 30), (5, 31), (6, 30)]
    ]
    assert {start.hour for start in starts} == {10}


def test_local_time_is_kept_through_summer_time():
    """A period that begins at nine o'clock does so in winter and in summer."""
    zone = ZoneInfo("America/New_York")
    anchor_ms = ms("2026-01-15T09:00:00-05:00")
    hours = {
        instant(window_of("period", ms(f"2026-{month:02}-20T00:00:00+00:00"), anchor_ms=anchor_ms, zone=zone).start_ms)
        .astimezone(zone)
        .strftime("%d %H:%M")
        for month in range(1, 13)
    }  # fmt: skip

    assert hours == {"15 09:00"}


def test_without_an_anchor_periods_are_the_months_of_the_calendar():
    """Whoever has no subscription has the calendar's months."""
    at_ms = ms("2026-11-20T12:00:00+00:00")
    month, period = window_of("month", at_ms), window_of("period", at_ms, anchor_ms=0)

    assert (period.start_ms, period.end_ms) == (month.start_ms, month.end_ms)
    assert period.key == "2026-11-01"
    assert month.end_at == datetime(2026, 12, 1, tzinfo=UTC)


@property_of(200)
@given(INSTANTS, st.integers(-600, 600))
def test_adding_months_keeps_day_and_time_where_the_month_has_them(at_ms, months):
    """The day is kept, or is the last one of a month that is shorter."""
    at = instant(at_ms)
    moved = add_months(at, months)

    assert moved.timetz() == at.timetz()
    assert (moved.year - at.year) * 12 + moved.month - at.month == months
    assert moved.day == at.day or (moved.day < at.day and (moved + timedelta(days=1)).day == 1)


@property_of(200)
@given(INSTANTS)
def test_instants_are_kept_to_the_millisecond(at_ms):
    """An instant as a datetime and back is the same."""
    assert milliseconds(instant(at_ms)) == at_ms
