"""Periods by name, times as people write them, routes with a value in the middle of their path, the webhook's wire."""

import asyncio
import socket
from datetime import UTC, datetime
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gate.domain.errors import InvalidRequest, NotFound
from llm_gate.domain.reports import read_moment
from llm_gate.domain.windows import instant, milliseconds, window_of
from llm_gate.engine.reports import period_beginning_in
from llm_gate.http.routes import Route, Router
from llm_gate.transport.webhook import WebhookMessenger
from support.figures import property_of
from support.upstream import Answer, fake_upstream

YEARS = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - made aware


@property_of()
@given(anchor=YEARS, at=YEARS, zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]))
def test_a_period_is_found_again_by_its_name(anchor, at, zone):
    """Of every instant's billing period, the month it begins in leads to that very period."""
    place = ZoneInfo(zone)
    window = window_of("period", milliseconds(at), anchor_ms=milliseconds(anchor), zone=place)
    month = instant(window.start_ms).astimezone(place).strftime("%Y-%m")

    found = period_beginning_in(month, milliseconds(anchor), place)

    assert (found.start_ms, found.end_ms) == (window.start_ms, window.end_ms)


def test_without_a_subscription_periods_are_calendar_months():
    """The anchor of nobody in particular is the calendar's, in the zone that holds."""
    zone = ZoneInfo("America/New_York")
    found = period_beginning_in("2026-03", 0, zone)

    assert instant(found.start_ms) == datetime(2026, 3, 1, tzinfo=zone)
    assert instant(found.end_ms) == datetime(2026, 4, 1, tzinfo=zone)


@pytest.mark.parametrize(
    "month", ["2026-00", "2026-13", "26-01", "2026-1", "1969-12", "9999-12", "2026-011", ""]
)
def test_what_is_no_month_names_no_period(month):
    """Only months that a gateway can have seen, or will."""
    with pytest.raises(InvalidRequest):
        period_beginning_in(month, 0)


def test_times_are_read_as_people_write_them():
    """A day, a month, a moment with and without a zone."""
    day = milliseconds(datetime(2026, 11, 1, tzinfo=UTC))

    assert read_moment("2026-11") == read_moment("2026-11-01") == read_moment("2026-11-01T01:00+01:00") == day
    for wrong in ("", "11/2026", "1969-01-01", "9999-12-31", "now"):
        with pytest.raises(ValueError, match="isoformat"):
            read_moment(wrong)


def router(*paths):
    """Return a router over GET rows with these paths."""
    rows = [
        Route(method=method, path=path, endpoint=None, surface=None, summary="", tag="")
        for method, path in (path.split(" ") for path in paths)
    ]
    return Router(rows)


def found(table, method, path):
    """Return the path of the row that is found, and the value in it."""
    exchange = SimpleNamespace(path=path, method=method, headers={}, path_value="")
    return table.find(exchange).path, exchange.path_value


def test_a_path_may_hold_a_value_in_its_middle():
    """What says more about a path goes first; the value is all that stands in its place."""
    table = router(
        "GET /u/{id}",
        "GET /u/{id}/trends",
        "POST /u/{id}/trends",
        "GET /u/all",
        "GET /u/{id}/x/y",
        "GET /{rest}",
    )

    assert found(table, "GET", "/u/ann") == ("/u/{id}", "ann")
    assert found(table, "GET", "/u/all") == ("/u/all", "")
    assert found(table, "GET", "/u/a/b/trends") == ("/u/{id}/trends", "a/b")
    assert found(table, "POST", "/u/ann/trends") == ("/u/{id}/trends", "ann")
    assert found(table, "GET", "/u/ann/x/y") == ("/u/{id}/x/y", "ann")
    assert found(table, "GET", "/u/trends") == ("/u/{id}", "trends")
    assert found(table, "GET", "/other") == ("/{rest}", "other")
    with pytest.raises(NotFound):
        found(table, "GET", "/")


def test_the_webhook_follows_nobody_elsewhere():
    """A redirect is an answer like any other that is no 2xx; where nobody answers there is none."""
    with fake_upstream() as receiver, socket.socket() as silent:
        receiver.will(Answer(status=307, headers={"location": f"{receiver.url}/elsewhere"}))
        silent.bind(("127.0.0.1", 0))

        async def post(url):
            messenger = WebhookMessenger()
            try:
                return await messenger.post(url, b"{}", {"x-one": "1"})
            finally:
                await messenger.close()

        assert asyncio.run(post(f"{receiver.url}/here")) == 307
        assert receiver.only.path == "/here"
        assert asyncio.run(post(f"http://127.0.0.1:{silent.getsockname()[1]}/")) is None
        assert asyncio.run(post("file:///etc/hostname")) is None
