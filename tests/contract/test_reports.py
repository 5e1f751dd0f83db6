"""Reports and alerts, the same over SQLite and PostgreSQL: sums that agree with the rows, pages, one tenant."""

import asyncio
import json
import random
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from llm_gate.domain.reports import AlertFilter, CallFilter, Selection, Totals
from llm_gate.domain.windows import FOREVER_MS, milliseconds
from llm_gate.engine.reports import all_groups
from llm_gate.storage.alerts import StoredAlerts
from llm_gate.storage.reports import StoredReports
from llm_gate.storage.schema import alert, attempt, usage_record, usage_summary
from support.stores import KINDS, any_database

HOUR_MS = 3_600_000
START_MS = milliseconds(datetime(2026, 10, 30, 7, 30, tzinfo=UTC))


@pytest.fixture(params=KINDS)
def database(request, tmp_path):
    """Open an empty database."""
    with any_database(request.param, tmp_path) as opened:
        yield opened


def call_rows(number: int, *, tenant: str, user: str, made_ms: int, chance: random.Random):
    """Return a record with one to three attempts."""
    attempts = [
        {
            "record_id": f"call_{tenant}_{number:06d}",
            "number": index,
            "provider": chance.choice(["first", "second"]),
            "model": chance.choice(["m", "n"]),
            "status": chance.choice(["ok", "failed"]),
            "quality": "measured",
            "started_ms": made_ms,
            "ended_ms": made_ms + chance.randrange(5000),
            "units": json.dumps({"input_tokens": chance.randrange(99), "output_tokens": chance.randrange(9)}),
            "tokens": 7,
            "cost_nanos": chance.choice([None, chance.randrange(10**6)]),
            "vendor_cost_nanos": None,
            "prices": "[]",
            "error_code": None,
            "upstream_status": None,
            "synthetic": False,
        }
        for index in range(1, chance.randrange(2, 5))
    ]
    last = attempts[-1]
    record = {
        "id": last["record_id"],
        "tenant": tenant,
        "application": chance.choice(["web", "batch"]),
        "user_id": user,
        "key_id": None,
        "request_id": f"req_{number}",
        "operation": "chat",
        "bucket": chance.choice(["text", "embedding"]),
        "endpoint": "/v1/chat/completions",
        "plan": "free",
        "provider": last["provider"],
        "model": last["model"],
        "status": last["status"],
        "quality": "measured",
        "error_code": None if last["status"] == "ok" else "provider_timeout",
        "made_ms": made_ms,
        "ended_ms": last["ended_ms"],
        "attempts": len(attempts),
        "count": 1,
        "input_tokens": 1,
        "output_tokens": 1,
        "tokens": 2,
        "cost_nanos": sum(each["cost_nanos"] or 0 for each in attempts),
        "synthetic": False,
        "charges": "[]",
    }
    return record, attempts


def sums(calls, key):
    """Add calls up, written apart from the code under test: key of (record, attempt) → totals."""
    found = {}
    for record, attempts in calls:
        for each in attempts:
            total = found.setdefault(key(record, each), dict.fromkeys(Totals.__struct_fields__, 0))
            units = json.loads(each["units"])
            total["requests"] += each is attempts[-1]
            total["attempts"] += 1
            total["failures"] += each["status"] != "ok"
            total["input_tokens"] += units["input_tokens"]
            total["output_tokens"] += units["output_tokens"]
            total["cost_nanos"] += each["cost_nanos"] or 0
            total["unpriced"] += each["cost_nanos"] is None
            total["duration_ms"] += each["ended_ms"] - each["started_ms"]
    return {name: Totals(**total) for name, total in found.items()}


def day_of(record):
    """Return the day a call was made on."""
    return datetime.fromtimestamp(record["made_ms"] / 1000, UTC).date().isoformat()


@pytest.fixture
def calls(database):
    """Fill the tables with a week of two users' calls in two tenants that have the same names; return the first's."""
    chance = random.Random(11)  # noqa: S311 - made-up rows
    found = {"one": [], "two": []}
    for tenant, kept in found.items():
        for number in range(150):
            made_ms = START_MS + chance.randrange(7 * 24 * HOUR_MS)
            user = chance.choice(["ann", "bob"])
            kept.append(call_rows(number, tenant=tenant, user=user, made_ms=made_ms, chance=chance))
    everything = [row for kept in found.values() for row in kept]

    def place(record, each):
        kept = (record["tenant"], record["user_id"], day_of(record), record["application"], record["bucket"])
        return (*kept, each["provider"], each["model"])

    names = ("tenant", "user_id", "day", "application", "bucket", "provider", "model")
    days = [
        dict(zip(names, key, strict=True)) | {name: getattr(total, name) for name in total.__struct_fields__}
        for key, total in sums(everything, place).items()
    ]

    def fill(connection):
        connection.execute(insert(usage_record), [record for record, _ in everything])
        connection.execute(insert(attempt), [each for _, attempts in everything for each in attempts])
        connection.execute(insert(usage_summary), days)

    database.change(fill)
    return found["one"]


KEYS = {
    (): lambda record, each: (),
    ("provider",): lambda record, each: (each["provider"],),
    ("model",): lambda record, each: (f"{each['provider']}/{each['model']}",),
    ("user",): lambda record, each: (record["user_id"],),
    ("application",): lambda record, each: (record["application"],),
    ("day",): lambda record, each: (day_of(record),),
    ("month", "bucket"): lambda record, each: (day_of(record)[:7], record["bucket"]),
}


TIMES = [(0, 24), (3, 3.5), (5, 40), (20, 20), (16.5, 64.5), (16.5, 17), (30, 10**6), (-(10**4), 99)]
"""From when to when, in hours from the start."""


def test_sums_agree_with_the_rows(database, calls):
    """Whatever the time and the grouping, the sums are those of the attempts, also where a day is cut in two."""
    reports = StoredReports(database)
    moments = [(START_MS + int(a * HOUR_MS), START_MS + int(b * HOUR_MS)) for a, b in TIMES]

    async def check():
        for since_ms, until_ms in [(0, FOREVER_MS), (START_MS + HOUR_MS, FOREVER_MS), *moments]:
            selection = Selection(tenant="one", since_ms=since_ms, until_ms=until_ms)
            chosen = [row for row in calls if since_ms <= row[0]["made_ms"] < until_ms]

            assert await reports.totals(selection) == sums(chosen, KEYS[()]).get((), Totals())
            for by in filter(None, KEYS):
                groups = await reports.groups(selection, by)
                assert {group.key: group.totals for group in groups} == sums(chosen, KEYS[by])
                assert [group.key for group in groups] == sorted(group.key for group in groups)

    asyncio.run(check())


def test_a_user_or_an_application_is_summed_alone(database, calls):
    """A selection of one user, or one application, holds nothing of the others."""
    reports = StoredReports(database)

    for field, column in (("user", "user_id"), ("application", "application")):
        for value in {record[column] for record, _ in calls}:
            chosen = [row for row in calls if row[0][column] == value]
            selection = Selection(tenant="one", since_ms=START_MS + HOUR_MS, **{field: value})
            late = [row for row in chosen if row[0]["made_ms"] >= START_MS + HOUR_MS]

            assert asyncio.run(reports.totals(selection)) == sums(late, KEYS[()])[()]


def test_pages_of_groups_follow_each_other(database, calls, monkeypatch):
    """Pages of any size together hold every group once."""
    reports = StoredReports(database)
    selection = Selection(tenant="one")

    async def walk():
        return [group async for group in all_groups(reports, selection, ("day", "model"))]

    whole = asyncio.run(walk())
    monkeypatch.setattr("llm_gate.engine.reports.PAGE", 3)

    assert asyncio.run(walk()) == whole
    assert len(whole) > 12


def test_calls_come_newest_first_and_each_once(database, calls):
    """Pages by place and pages by offset give the same list; filters narrow it; the count agrees."""
    reports = StoredReports(database)
    selection = Selection(tenant="one", user="ann")
    expected = sorted(
        ((row["made_ms"], row["id"]) for row, _ in calls if row["user_id"] == "ann"), reverse=True
    )

    async def by_place():
        found, before = [], None
        while page := await reports.calls(selection, before=before, limit=7):
            found += [line.place for line in page]
            before = page[-1].place
        return found

    async def by_offset():
        pages = [await reports.calls(selection, offset=start, limit=7) for start in range(0, 150, 7)]
        return [line.place for page in pages for line in page]

    assert asyncio.run(by_place()) == expected == asyncio.run(by_offset())
    assert asyncio.run(reports.count_calls(selection)) == len(expected)
    for wanted, holds in (
        (CallFilter(provider="second"), lambda row: row["provider"] == "second"),
        (CallFilter(bucket="embedding"), lambda row: row["bucket"] == "embedding"),
        (CallFilter(statuses=("failed",)), lambda row: row["status"] == "failed"),
        (CallFilter(error_codes=("provider_timeout",)), lambda row: row["error_code"] is not None),
        (CallFilter(error_codes=()), lambda row: False),
    ):
        chosen = {row["id"] for row, _ in calls if row["user_id"] == "ann" and holds(row)}
        lines = asyncio.run(reports.calls(selection, wanted, limit=500))
        assert {line.id for line in lines} == chosen
        assert asyncio.run(reports.count_calls(selection, wanted)) == len(chosen)


def test_one_call_with_its_attempts(database, calls):
    """A call is found by its id in its own tenant alone."""
    reports = StoredReports(database)
    record, attempts = max(calls, key=lambda row: len(row[1]))

    line = asyncio.run(reports.call("one", record["id"]))
    found = asyncio.run(reports.attempts("one", record["id"]))

    assert (line.user, line.cost_nanos) == (record["user_id"], record["cost_nanos"])
    assert [each.cost_nanos for each in found] == [each["cost_nanos"] for each in attempts]
    assert found[0].units == json.loads(attempts[0]["units"])
    assert asyncio.run(reports.call("two", record["id"])) is None
    assert asyncio.run(reports.attempts("two", record["id"])) == ()


def alert_row(number: int, **fields):
    """Return an alert."""
    return {
        "id": f"alert_{number}",
        "tenant": "one",
        "user_id": "ann",
        "scope": "user",
        "subject": "ann",
        "account": f"user:one/ann|text_calls|{number}",
        "limit_name": "text_calls",
        "start_ms": START_MS,
        "end_ms": START_MS + 30 * 24 * HOUR_MS,
        "threshold": 80,
        "plan": "free",
        "used": 40,
        "cap": 50,
        "created_ms": START_MS + number,
        "read_ms": None,
        "sent_ms": None,
        "tries": 0,
        "next_try_ms": None,
        **fields,
    }


@pytest.fixture
def alerts(database):
    """Write four alerts about two users, and one about a tenant."""
    rows = [
        alert_row(1),
        alert_row(2, threshold=90),
        alert_row(3, user_id="bob", subject="bob"),
        alert_row(4, tenant="two"),
        alert_row(5, scope="tenant", subject="one", user_id=""),
    ]
    database.change(lambda connection: connection.execute(insert(alert), rows))
    return StoredAlerts(database)


def test_users_see_their_own_alerts(alerts):
    """A user's alerts are those about the user, newest first; reading one counts once."""
    mine = AlertFilter(tenant="one", user="ann")

    assert [line.id for line in asyncio.run(alerts.list_alerts(mine))] == ["alert_2", "alert_1"]
    asyncio.run(alerts.mark_read("two", "alert_1", 5))
    assert asyncio.run(alerts.alert("one", "alert_1")).read_ms is None
    asyncio.run(alerts.mark_read("one", "alert_1", 5))
    asyncio.run(alerts.mark_read("one", "alert_1", 9))
    assert asyncio.run(alerts.alert("one", "alert_1")).read_ms == 5
    assert asyncio.run(alerts.alert("two", "alert_1")) is None

    unread = AlertFilter(tenant="one", user="ann", unread_only=True)
    assert [line.id for line in asyncio.run(alerts.list_alerts(unread))] == ["alert_2"]
    assert asyncio.run(alerts.count_alerts(unread)) == 1
    later = AlertFilter(tenant="one", user="ann", since_ms=START_MS + 1)
    assert asyncio.run(alerts.count_alerts(later)) == 0
    everyone = AlertFilter(tenant="one")
    page = asyncio.run(alerts.list_alerts(everyone, limit=2))
    rest = asyncio.run(alerts.list_alerts(everyone, before=(page[-1].created_ms, page[-1].id)))
    assert [line.id for line in (*page, *rest)] == ["alert_5", "alert_3", "alert_2", "alert_1"]


def test_an_alert_is_claimed_by_one_and_again_when_its_lease_ends(alerts, database):
    """Of many who ask at once, each alert goes to one; unless delivered, it comes back after its lease."""
    others = [StoredAlerts(database) for _ in range(8)]
    claim = {"lease_ms": 1000, "oldest_ms": START_MS, "limit": 3}

    async def race(now_ms):
        asked = (each.claim(now_ms, **claim) for each in others)
        return [line.id for lines in await asyncio.gather(*asked) for line in lines]

    first = asyncio.run(race(START_MS + 10)) + asyncio.run(race(START_MS + 11))
    assert sorted(first) == [f"alert_{number}" for number in range(1, 6)]
    asyncio.run(alerts.note_sent("alert_1", START_MS + 20))
    asyncio.run(alerts.note_failed("alert_2", START_MS + 9000))

    again = asyncio.run(race(START_MS + 1011)) + asyncio.run(race(START_MS + 1012))
    assert sorted(again) == ["alert_3", "alert_4", "alert_5"]
    assert [
        line.id for line in asyncio.run(alerts.claim(START_MS + 9000, **claim | {"oldest_ms": START_MS + 4}))
    ] == [
        "alert_4",
        "alert_5",
    ]
    assert asyncio.run(alerts.alert("two", "alert_4")).tries == 3
