"""The ledger keeps its promises on every store: exact, durable, each end once."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from llm_gate.domain.book import Book
from llm_gate.domain.errors import GateFault, StoreUnavailable
from llm_gate.domain.ledger import Ended, Expire, Granted, Missing, Refused, Release
from llm_gate.domain.stores import BalanceNow
from llm_gate.storage.ledger_postgresql import PostgresqlSession
from llm_gate.storage.schema import alert, attempt, balance, process, reservation, usage_record, usage_summary
from llm_gate.storage.statements import PARTS, PostgresqlStatements
from llm_gate.storage.writer import Entry
from support.ledger import (
    NOW_MS,
    Place,
    a_call,
    advance,
    an_intent,
    an_outcome,
    holds,
    many,
    new_id,
    quotas,
    reserve,
    settle,
)
from support.servers import postgresql_url
from support.stores import KINDS, openings

CALLERS = 500
LEDGERS = 3
PATIENCE_S = 30
TESTS = Path(__file__).parents[1]


@pytest.fixture(params=KINDS)
def place(request, tmp_path):
    with openings(request.param, tmp_path) as again:
        yield Place(tmp_path, again)


@pytest.fixture
def postgresql_place(tmp_path):
    with openings("postgresql", tmp_path) as again:
        yield Place(tmp_path, again)


def run(scenario):
    return asyncio.run(scenario())


async def until(holds_true):
    """Wait until something is so, for a while."""
    end_s = time.monotonic() + PATIENCE_S
    while not holds_true():
        assert time.monotonic() < end_s, "it never came to be"
        await asyncio.sleep(0.02)


COST = {"cost": 100, "calls": 1, "requests": 1, "tokens": 10, "jobs": 1}


def test_what_is_settled_replaces_what_was_held(place):
    """A reservation holds its bound; the record has what was used; nothing stays held."""
    bound = quotas(monthly_cost_usd=1000, text_calls=5, requests_per_minute=7, parallel_jobs=2)

    async def scenario():
        async with place.ledger() as ledger:
            call = a_call("p1")
            assert await ledger.submit(reserve(call, holds(bound, COST))) == Granted()
            during = await ledger.balances([(quota, quota.window(NOW_MS).start_ms) for quota in bound])
            ended = await ledger.submit(settle(call.id, an_outcome(cost=60)))
            after = await ledger.balances([(quota, quota.window(NOW_MS).start_ms) for quota in bound])
            return during, ended, after

    during, ended, after = run(scenario)

    assert {
        quota.limit.name: during[quota.account, quota.window(NOW_MS).start_ms].held for quota in bound
    } == {
        "monthly_cost_usd": 100,
        "text_calls": 1,
        "requests_per_minute": 1,
        "parallel_jobs": 1,
    }
    assert {quota.limit.name: after[quota.account, quota.window(NOW_MS).start_ms] for quota in bound} == {
        "monthly_cost_usd": BalanceNow(used=60),
        "text_calls": BalanceNow(used=1),
        "requests_per_minute": BalanceNow(used=1),
        "parallel_jobs": BalanceNow(),
    }
    assert ended.was_open
    assert ended.record.cost_nanos == 60
    (record,) = place.rows(usage_record)
    assert (record["cost_nanos"], record["attempts"], record["input_tokens"], record["tokens"]) == (
        60,
        1,
        9,
        10,
    )
    assert record["provider"] == "acme"
    (kept,) = place.rows(attempt)
    assert (kept["record_id"], kept["units"], kept["synthetic"]) == (
        record["id"],
        '{"input_tokens":9,"output_tokens":1}',
        False,
    )
    check = place.check()
    assert (check.drift_nanos, check.is_sound, check.open_reservations, check.records) == (0, True, 0, 1)
    assert check.balances == 4


def test_all_quotas_or_none(place):
    """Where one quota has no room nothing is held, and the refusal says which and how far it is used."""
    bound = quotas(monthly_cost_usd=150, text_calls=5)

    async def scenario():
        async with place.ledger() as ledger:
            first = a_call("p1")
            await ledger.submit(reserve(first, holds(bound, COST)))
            refused = await ledger.submit(reserve(a_call("p1"), holds(bound, COST)))
            await ledger.submit(Release(id=first.id))
            again = await ledger.submit(reserve(a_call("p1"), holds(bound, COST)))
            return refused, again

    refused, again = run(scenario)

    assert isinstance(refused, Refused)
    ((shortage),) = refused.shortages
    assert (shortage.hold.name, shortage.used, shortage.held, shortage.wanted) == (
        "monthly_cost_usd",
        0,
        100,
        100,
    )
    assert again == Granted()
    assert place.check().is_sound
    assert place.check().open_reservations == 1
    assert place.rows(usage_record) == []


def test_500_callers_on_one_cap_use_it_up_and_no_more(place):
    """Several processes, one cap: never over, not a nano-dollar left that a call could have had."""
    cap = 10_000
    bound = quotas(monthly_cost_usd=cap)
    chance = random.Random(7)  # noqa: S311 - a test

    async def caller(ledger, granted):
        call = a_call(ledger.owner)
        amount = chance.randint(50, 150)
        result = await ledger.submit(reserve(call, holds(bound, {"cost": amount})))
        if isinstance(result, Refused):
            return
        granted.append(call.id)
        await ledger.submit(settle(call.id, an_outcome(cost=amount)))

    async def scenario():
        granted = []
        async with many(place, [f"p{number}" for number in range(LEDGERS)]) as ledgers:
            await asyncio.gather(*(caller(ledgers[n % LEDGERS], granted) for n in range(CALLERS)))
            assert sum(ledger.stats.batches for ledger in ledgers) < 2 * CALLERS
        return granted

    granted = run(scenario)

    spent = sum(row["cost_nanos"] for row in place.rows(usage_record))
    assert len(place.rows(usage_record)) == len(granted) < CALLERS
    assert cap - 150 < spent <= cap
    assert place.rows(balance)[0]["used"] == spent
    assert place.rows(usage_summary)[0]["cost_nanos"] == spent
    assert place.rows(usage_summary)[0]["requests"] == len(granted)
    assert place.check().is_sound


def test_the_cap_is_met_to_the_last_nano_dollar(place):
    """Calls of one size that divide the cap use all of it, whoever lets them in."""
    bound = quotas(monthly_cost_usd=4_000)

    async def scenario():
        async with many(place, ["p1", "p2"]) as ledgers:
            calls = [a_call(ledgers[n % 2].owner) for n in range(100)]
            steps = [reserve(call, holds(bound, COST)) for call in calls]
            return await asyncio.gather(*(ledgers[n % 2].submit(step) for n, step in enumerate(steps)))

    results = run(scenario)

    assert results.count(Granted()) == 40
    assert place.rows(balance)[0]["held"] == 4_000


def test_a_second_end_changes_nothing_and_is_counted(place):
    """Whatever ends a call first has ended it."""
    bound = quotas(monthly_cost_usd=1000)

    async def scenario():
        async with place.ledger() as ledger:
            call = a_call("p1")
            step = reserve(call, holds(bound, COST))
            await ledger.submit(step)
            await ledger.submit(settle(call.id, an_outcome(cost=40)))
            again = [
                await ledger.submit(settle(call.id, an_outcome(cost=70))),
                await ledger.submit(Release(id=call.id)),
                await ledger.submit(Expire(id=call.id, at_ms=NOW_MS)),
            ]
            # A reservation handed in again after its end does not come to life.
            assert await ledger.submit(step) == Granted()
            return again, ledger.stats.second_ends

    again, second_ends = run(scenario)

    assert again == [Ended(was_open=False)] * 3
    assert second_ends == 1
    assert place.rows(balance)[0]["used"] == 40
    assert place.check().open_reservations == 0


def test_the_same_reservation_twice_holds_once(place):
    """Steps may be handed in again, also in one batch."""
    bound = quotas(monthly_cost_usd=1000)
    call = a_call("p1")

    async def scenario():
        async with place.ledger() as ledger:
            step = reserve(call, holds(bound, COST))
            results = await asyncio.gather(*(ledger.submit(step) for _ in range(5)))
            return [*results, await ledger.submit(step)]

    assert run(scenario) == [Granted()] * 6
    assert place.rows(balance)[0]["held"] == 100


def test_a_fallback_moves_what_is_held(place):
    """The next attempt's bound takes the place of the first one's; what the first one cost stays."""
    bound = quotas(monthly_cost_usd=1000)
    acme, other = quotas(acme_tokens=100), quotas(other_tokens=50)

    async def scenario():
        async with place.ledger() as ledger:
            call = a_call("p1")
            await ledger.submit(reserve(call, [*holds(bound, COST), *holds(acme, COST)]))
            failed = an_outcome(cost=30, tokens=4, status="failed", error_code="provider_unavailable")
            moved = advance(
                call.id, failed, an_intent(2, provider="other"), [*holds(bound, COST), *holds(other, COST)]
            )
            assert await ledger.submit(moved) == Granted()
            assert await ledger.submit(moved) == Granted()
            held = {row["account"]: row["held"] for row in place.rows(balance)}
            refused = await ledger.submit(
                advance(call.id, an_outcome(2, provider="other"), an_intent(3), holds(bound, {"cost": 5000}))
            )
            await ledger.submit(settle(call.id, None, status="failed", error_code="quota_exceeded"))
            return held, refused

    held, refused = run(scenario)

    assert held == {bound[0].account: 130, acme[0].account: 4, other[0].account: 10}
    assert isinstance(refused, Refused)
    assert {row["account"]: (row["used"], row["held"]) for row in place.rows(balance)} == {
        bound[0].account: (130, 0),
        acme[0].account: (4, 0),
        other[0].account: (10, 0),
    }
    sums = {row["provider"]: row for row in place.rows(usage_summary)}
    assert (sums["acme"]["requests"], sums["acme"]["failures"], sums["other"]["requests"]) == (0, 1, 1)
    assert place.check().is_sound


def test_a_quota_that_binds_no_more_does_not_stop_a_fallback(place):
    """An attempt that used more of its provider's tokens than there are is no reason to refuse another provider."""
    acme, other = quotas(acme_tokens=100), quotas(other_tokens=50)

    async def scenario():
        async with place.ledger() as ledger:
            call = a_call("p1")
            await ledger.submit(reserve(call, holds(acme, COST)))
            over = an_outcome(tokens=130, status="failed")
            return await ledger.submit(
                advance(call.id, over, an_intent(2, provider="other"), holds(other, COST))
            )

    assert run(scenario) == Granted()
    assert {row["account"]: row["held"] for row in place.rows(balance)} == {
        acme[0].account: 130,
        other[0].account: 10,
    }


def test_a_call_that_sent_nothing_is_no_request(place):
    """A record without attempts leaves no trace in the sums; unknown costs are counted as such."""

    async def scenario():
        async with place.ledger() as ledger:
            for outcome in (None, an_outcome(cost=None)):
                call = a_call("p1")
                await ledger.submit(reserve(call, ()))
                await ledger.submit(settle(call.id, outcome))

    run(scenario)

    (sums,) = place.rows(usage_summary)
    assert (sums["requests"], sums["attempts"], sums["unpriced"], sums["cost_nanos"]) == (1, 1, 1, 0)
    assert (sums["day"], sums["duration_ms"]) == ("2026-11-18", 7)
    assert [row["cost_nanos"] for row in place.rows(usage_record)] == [0, None]


def test_a_quote_is_spent_from_and_ends_by_itself(place):
    """Calls that name a quote use what it holds; the rest comes back when it is over."""
    bound = quotas(monthly_cost_usd=1000)
    far_ms = 2**50

    async def scenario():
        async with place.ledger(sweep_s=0.1) as ledger:
            quote = a_call("p1")
            step = reserve(quote, holds(bound, {"cost": 900}), intent=None, expires_ms=far_ms)
            assert await ledger.submit(step) == Granted()
            assert isinstance(
                await ledger.submit(reserve(a_call("p1"), holds(bound, {"cost": 101}))), Refused
            )
            within = a_call("p1", quote_id=quote.id)
            assert await ledger.submit(reserve(within, holds(bound, {"cost": 300}))) == Granted()
            assert place.rows(balance)[0]["held"] == 900
            await ledger.submit(settle(within.id, an_outcome(cost=250)))
            assert (place.rows(balance)[0]["used"], place.rows(balance)[0]["held"]) == (250, 600)
            foreign = a_call("p1", quote_id=quote.id, user="u2")
            assert await ledger.submit(reserve(foreign, ())) == Missing(id=quote.id)
            unknown = a_call("p1", quote_id="nothing")
            assert await ledger.submit(reserve(unknown, ())) == Missing(id="nothing")
            over = a_call("p1")
            soon = reserve(
                over, holds(bound, {"cost": 10}), intent=None, expires_ms=int(time.time() * 1000) + 300
            )
            assert await ledger.submit(soon) == Granted()
            assert place.rows(balance)[0]["held"] == 610
            await until(lambda: place.rows(balance)[0]["held"] == 600)
            assert [row["id"] for row in place.rows(reservation)] == [quote.id]

    run(scenario)

    assert len(place.rows(usage_record)) == 1
    assert place.check().is_sound


def test_a_quote_outlives_the_process_that_made_it(place):
    """A promise with an end of its own is kept by whoever is left."""
    bound = quotas(monthly_cost_usd=1000)
    quote = a_call("p1")

    async def scenario():
        async with place.ledger("p1") as ledger:
            await ledger.submit(reserve(quote, holds(bound, COST), intent=None, expires_ms=2**50))
        async with place.ledger("p2") as ledger:
            call = a_call("p2", quote_id=quote.id)
            return await ledger.submit(reserve(call, holds(bound, COST)))

    assert run(scenario) == Granted()
    assert place.rows(balance)[0]["held"] == 100


@pytest.mark.parametrize(
    ("scope", "subject", "limit", "expected"),
    [
        ("user", "u1", "monthly_cost_usd", 300),
        ("user", "u1", "text_calls", 3),
        ("user", "u1", "acme_tokens", 20),
        ("user", "u1", "other_tokens", 10),
        ("user", "u1", "requests_per_month", 3),
        ("application", "shop", "monthly_cost_usd", 400),
        ("key", "key-1", "monthly_cost_usd", 200),
        ("tenant", "default", "monthly_cost_usd", 400),
        ("user", "u1", "image_calls", 0),
    ],
)
def test_a_limit_made_in_the_middle_of_a_window_counts_what_was_used(place, scope, subject, limit, expected):
    """A balance begins at what the records say, for whoever asks first."""
    bound = quotas(subject, scope=scope, since_ms=NOW_MS + 1, **{limit: 10_000})
    start_ms = bound[0].window(NOW_MS).start_ms

    async def scenario():
        async with place.ledger() as ledger:
            for call, outcome in (
                (a_call("p1", key_id="key-1"), an_outcome()),
                (a_call("p1", key_id="key-1"), an_outcome(provider="other")),
                (a_call("p1"), an_outcome()),
                (a_call("p1", user="u2"), an_outcome()),
                (a_call("p1", tenant="elsewhere"), an_outcome()),
                (a_call("p1", made_ms=start_ms - 1), an_outcome()),
            ):
                await ledger.submit(reserve(call, ()))
                await ledger.submit(settle(call.id, outcome))
            before = await ledger.balances([(bound[0], start_ms)])
            assert place.rows(balance) == []
            call = a_call("p1")
            await ledger.submit(reserve(call, holds(bound, COST)))
            await ledger.submit(settle(call.id))
            return before, await ledger.balances([(bound[0], start_ms)])

    before, after = run(scenario)

    added = {
        "monthly_cost_usd": 100,
        "acme_tokens": 10,
        "text_calls": 1,
        "requests_per_month": 1,
        "image_calls": 1,
    }
    assert before == {(bound[0].account, start_ms): BalanceNow(used=expected)}
    assert after == {(bound[0].account, start_ms): BalanceNow(used=expected + added.get(limit, 0))}
    assert place.rows(balance)[0]["seeded"] == expected
    assert place.check().is_sound


def test_alerts_come_at_80_90_and_100_percent_once_each(place):
    """Each threshold of a long window is told once, whatever crosses it how often; short windows tell nothing."""
    bound = [*quotas(monthly_cost_usd=1000), *quotas(requests_per_minute=10)]
    team = quotas("default", scope="tenant", text_calls=20)

    async def scenario():
        async with many(place, ["p1", "p2"]) as ledgers:
            for number in range(10):
                ledger = ledgers[number % 2]
                call = a_call(ledger.owner)
                await ledger.submit(reserve(call, [*holds(bound, COST), *holds(team, {"calls": 2})]))
                await ledger.submit(settle(call.id, an_outcome(cost=100)))

    run(scenario)

    found = place.rows(alert)
    told = [(row["limit_name"], row["threshold"], row["used"], row["user_id"]) for row in found]
    assert sorted(told) == [
        ("monthly_cost_usd", 80, 800, "u1"),
        ("monthly_cost_usd", 90, 900, "u1"),
        ("monthly_cost_usd", 100, 1000, "u1"),
    ]
    assert [row["threshold"] for row in found] == [80, 90, 100]
    assert {(row["cap"], row["plan"], row["tries"], row["sent_ms"]) for row in found} == {
        (1000, "pro", 0, None)
    }


def test_one_jump_over_all_thresholds_tells_all(place):
    """A call above the whole cap is charged in full, and told at every threshold, to the tenant as to the user."""
    bound = [*quotas(monthly_cost_usd=1000), *quotas("default", scope="tenant", monthly_cost_usd=1200)]

    async def scenario():
        async with place.ledger() as ledger:
            call = a_call("p1")
            await ledger.submit(reserve(call, holds(bound, COST)))
            await ledger.submit(settle(call.id, an_outcome(cost=1100)))
            return await ledger.submit(reserve(a_call("p1"), holds(bound, {"cost": 1})))

    assert isinstance(run(scenario), Refused)
    assert sorted((row["scope"], row["user_id"], row["threshold"]) for row in place.rows(alert)) == [
        ("tenant", "", 80),
        ("tenant", "", 90),
        ("user", "u1", 80),
        ("user", "u1", 90),
        ("user", "u1", 100),
    ]


def test_a_lost_connection_loses_nothing(postgresql_place):
    """Connections that are cut again and again: every step is applied once, and every caller gets its result."""
    place = postgresql_place
    bound = quotas(monthly_cost_usd=1_000_000)

    async def caller(ledger):
        call = a_call("p1")
        granted = await ledger.submit(reserve(call, holds(bound, COST)))
        ended = await ledger.submit(settle(call.id, an_outcome(cost=70)))
        return granted, ended.was_open

    async def cut(server):
        while True:
            await asyncio.sleep(0.06)
            await asyncio.to_thread(server.execute, CUT, {"name": place.database.engine.url.database})

    async def scenario():
        with psycopg.connect(postgresql_url(), autocommit=True) as server:
            async with place.ledger() as ledger:
                cutting = asyncio.create_task(cut(server))
                results = []
                for _ in range(20):
                    results += await asyncio.gather(*(caller(ledger) for _ in range(15)))
                cutting.cancel()
                await asyncio.gather(cutting, return_exceptions=True)
                return results, ledger.stats

    results, stats = run(scenario)

    assert results == [(Granted(), True)] * 300
    assert stats.retries > 0
    assert (place.rows(balance)[0]["used"], place.rows(balance)[0]["held"]) == (21_000, 0)
    assert place.rows(usage_summary)[0]["requests"] == 300
    assert place.check().is_sound
    assert len(place.rows(usage_record)) == 300


CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %(name)s AND pid <> pg_backend_pid()"


class Commits:
    """A connection whose commits succeed and seem to fail, every second time."""

    def __init__(self, connection, errors):
        self._connection = connection
        self._errors = errors

    def execute(self, statement, parameters=()):
        result = self._connection.execute(statement, parameters)
        if statement == "COMMIT" and next(self._errors) % 2 == 0:
            raise ConnectionError("the answer was lost")
        return result

    def pipeline(self):
        return self._connection.pipeline()

    def close(self):
        self._connection.close()


def test_a_commit_whose_answer_is_lost_is_not_applied_twice(place):
    """Nobody can tell whether such a commit succeeded; the second try finds out."""
    bound = quotas(monthly_cost_usd=1_000_000)

    async def scenario():
        ledger = place.make("p1")
        inner, errors = ledger._database.connect, iter(range(10_000))
        ledger._database.connect = lambda: Commits(inner(), errors)
        await ledger.start()
        results = []
        for _ in range(20):
            call = a_call("p1")
            granted = await ledger.submit(reserve(call, holds(bound, COST)))
            ended = await ledger.submit(settle(call.id, an_outcome(cost=70)))
            results.append((granted, ended.was_open, ended.record and ended.record.cost_nanos))
        stats = ledger.stats
        await ledger.close()
        return results, stats

    results, stats = run(scenario)

    assert results == [(Granted(), True, 70)] * 20
    assert stats.retries >= 20
    assert stats.second_ends == 0
    assert (place.rows(balance)[0]["used"], place.rows(balance)[0]["held"]) == (1400, 0)
    assert place.check().is_sound


def test_a_commit_that_comes_late_is_not_applied_twice(postgresql_place):
    """A server may still be committing what a lost connection asked for, while it is asked for again."""
    place = postgresql_place
    step = reserve(a_call("p1"), holds(quotas(monthly_cost_usd=1_000_000), COST))
    lost = PostgresqlSession(place.database.connect(), PostgresqlStatements(), place.database.engine.dialect)
    lost.tell("BEGIN")
    lost._apply([step], new_id)

    async def scenario():
        async with place.ledger() as ledger:
            waiting = ledger.submit(step)
            await asyncio.sleep(0.3)
            assert not waiting.done()
            lost.tell("COMMIT")
            return await waiting, ledger.stats.retries

    assert run(scenario) == (Granted(), 1)
    lost.close()
    assert place.rows(balance)[0]["held"] == 100
    assert place.check().is_sound


def test_an_end_that_is_committed_late_is_not_taken_for_a_second_one(postgresql_place):
    """The record appears while its reservation's lock is waited for: the second try tells what the first one did."""
    place = postgresql_place
    call = a_call("p1")

    async def scenario():
        async with place.ledger() as ledger:
            await ledger.submit(reserve(call, holds(quotas(monthly_cost_usd=1_000_000), COST)))
            step = settle(call.id, an_outcome(cost=70))
            lost = PostgresqlSession(
                place.database.connect(), PostgresqlStatements(), place.database.engine.dialect
            )
            lost.tell("BEGIN")
            entry = Entry(step)
            entry.was_tried, entry.first_result = True, lost._apply([step], new_id).results[0]
            ledger._writer.queue.put(entry)
            await asyncio.sleep(0.3)
            lost.tell("COMMIT")
            while not ledger.stats.batches or ledger._writer.counts.steps < 2:
                await asyncio.sleep(0.01)
            lost.close()
            return ledger.stats

    assert run(scenario).second_ends == 0
    assert len(place.rows(usage_record)) == 1
    assert place.check().is_sound


def test_a_store_that_is_away_is_told_in_seconds_and_settled_later(place, monkeypatch):
    """A reservation is given up and undone; a settlement is told of, kept, and written when the store is back."""
    monkeypatch.setattr("llm_gate.storage.desk._ENTRY_PATIENCE_S", 0.3)
    monkeypatch.setattr("llm_gate.storage.desk._END_PATIENCE_S", 0.6)
    bound = quotas(monthly_cost_usd=1000)

    async def scenario():
        async with place.ledger() as ledger:
            call = a_call("p1")
            await ledger.submit(reserve(call, holds(bound, COST)))
            inner = ledger._database.connect

            def refuse():
                raise ConnectionRefusedError

            ledger._database.connect = refuse
            ledger._writer._session._connection.close()
            lost = a_call("p1")
            with pytest.raises(StoreUnavailable):
                await ledger.submit(reserve(lost, holds(bound, COST)))
            assert ledger.stats.is_away
            at_once = ledger.submit(reserve(a_call("p1"), holds(bound, COST)))
            assert at_once.done()
            assert isinstance(at_once.exception(), StoreUnavailable)
            with pytest.raises(StoreUnavailable):
                await ledger.submit(settle(call.id, an_outcome(cost=40)))
            ledger._database.connect = inner
            await until(lambda: not ledger.stats.is_away)
            again = a_call("p1")
            assert await ledger.submit(reserve(again, holds(bound, COST))) == Granted()
            await ledger.submit(Release(id=again.id))

    run(scenario)

    assert [row["cost_nanos"] for row in place.rows(usage_record)] == [40]
    assert (place.rows(balance)[0]["used"], place.rows(balance)[0]["held"]) == (40, 0)
    assert place.check().open_reservations == 0


def test_a_step_that_cannot_be_applied_fails_alone(place, monkeypatch):
    """One caller's broken step is that caller's, not everybody's."""
    sound = Book.apply

    def break_some(book, step):
        if getattr(step, "id", "") == "broken":
            raise ZeroDivisionError
        return sound(book, step)

    monkeypatch.setattr(Book, "apply", break_some)
    bound = quotas(monthly_cost_usd=100_000)

    async def scenario():
        async with place.ledger() as ledger:
            calls = [a_call("p1") for _ in range(10)]
            steps = [reserve(call, holds(bound, COST)) for call in calls]
            steps.insert(5, Release(id="broken"))
            results = await asyncio.gather(*map(ledger.submit, steps), return_exceptions=True)
            return results, ledger.stats.failed

    results, failed = run(scenario)

    assert isinstance(results.pop(5), GateFault)
    assert results == [Granted()] * 10
    assert failed == 1
    assert place.rows(balance)[0]["held"] == 1000


def test_what_cannot_be_kept_exactly_is_refused(place):
    """A cost beyond what stores add up exactly fails its own step and nothing else."""
    bound = quotas(monthly_cost_usd=2**61)

    async def scenario():
        async with place.ledger() as ledger:
            call = a_call("p1")
            await ledger.submit(reserve(call, holds(bound, COST)))
            with pytest.raises(GateFault):
                await ledger.submit(settle(call.id, an_outcome(cost=2**63)))
            return await ledger.submit(settle(call.id, an_outcome(cost=5)))

    assert run(scenario).was_open
    assert place.rows(balance)[0]["used"] == 5


KILLED = """
import asyncio, sys
from pathlib import Path
from support.ledger import Place, a_call, holds, quotas, reserve
from support.stores import reopen

async def main():
    place = Place(Path(sys.argv[3]), lambda: reopen(sys.argv[1], sys.argv[2]))
    ledger = place.make("killed", shares_folder=sys.argv[4] == "files", length_s=1.0, renew_s=0.2)
    await ledger.start()
    bound = quotas(monthly_cost_usd=1000)
    for number in range(3):
        await ledger.submit(reserve(a_call("killed"), holds(bound, {"cost": 100})))
    await ledger.submit(reserve(a_call("killed"), holds(bound, {"cost": 100}), intent=None))
    print("held", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["files", "lease"])
def test_what_a_killed_process_held_is_settled_at_its_bound(place, how):
    """The next process in the same folder sees at once that it is gone; others when its lease is over."""
    address = place.database.engine.url.render_as_string(hide_password=False)
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, place.database.kind, address, str(place.folder), how],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert child.stdout.readline() == b"held\n"

    async def scenario():
        shares = how == "files"
        async with place.ledger("living", shares_folder=shares, renew_s=0.2, sweep_s=0.1) as ledger:
            await asyncio.sleep(1.5)
            assert len(place.rows(reservation)) == 4, "what a living process holds was ended"
            mine = a_call("living")
            await ledger.submit(reserve(mine, ()))
            child.send_signal(signal.SIGKILL)
            child.wait()
            child.stdout.close()
            await until(lambda: len(place.rows(reservation)) == 1)
            assert [row["id"] for row in place.rows(reservation)] == [mine.id]
            await ledger.submit(settle(mine.id))
        if how == "files":
            assert list((place.folder / "owners").iterdir()) == []
            assert place.rows(process) == []

    try:
        run(scenario)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
            child.stdout.close()

    ends = [(row["status"], row["quality"], row["cost_nanos"]) for row in place.rows(usage_record)]
    assert sorted(ends) == [("ok", "measured", 100)] + [("unconfirmed", "upper_bound", 100)] * 3
    assert (place.rows(balance)[0]["used"], place.rows(balance)[0]["held"]) == (300, 0)
    assert place.check().is_sound


def test_a_start_finds_what_the_dead_left(place):
    """After a crash of everything the first process settles it, before it takes calls."""
    bound = quotas(monthly_cost_usd=1000)

    async def scenario():
        async with place.ledger("p1") as ledger:
            await asyncio.gather(
                *(ledger.submit(reserve(a_call("gone"), holds(bound, {"cost": 1}))) for _ in range(600))
            )
        async with place.ledger("p2"):
            return place.rows(reservation)

    assert run(scenario) == []
    assert len(place.rows(usage_record)) == 600
    assert place.check().is_sound


def test_close_writes_what_is_queued(place):
    """Steps handed in just before the end are on disk after it, awaited or not."""
    bound = quotas(monthly_cost_usd=100_000)

    async def scenario():
        ledger = place.make("p1")
        await ledger.start()
        calls = [a_call("p1") for _ in range(300)]
        for call in calls:
            ledger.submit(reserve(call, holds(bound, COST)))
            ledger.submit(settle(call.id))
        await ledger.close()
        with pytest.raises(StoreUnavailable):
            await ledger.submit(settle(calls[0].id))

    run(scenario)

    assert len(place.rows(usage_record)) == 300
    assert place.rows(process) == []


def test_a_check_tells_what_is_off(place):
    """A balance that somebody changed is found, with the amount."""
    bound = quotas(monthly_cost_usd=1000, text_calls=9)

    async def scenario():
        async with place.ledger() as ledger:
            call = a_call("p1")
            await ledger.submit(reserve(call, holds(bound, COST)))
            await ledger.submit(settle(call.id))
            await ledger.submit(reserve(a_call("p1"), holds(bound, COST)))

    run(scenario)
    sound = place.check()
    place.database.change(
        lambda link: link.execute(text("UPDATE balance SET used = used + 3, held = held - 1"))
    )
    check = place.check()

    assert (sound.is_sound, sound.open_reservations) == (True, 1)
    assert (check.drift_nanos, len(check.drifts), check.is_sound) == (4, 2, False)
    assert {(drift.used - drift.used_by_rows, drift.held - drift.held_by_rows) for drift in check.drifts} == {
        (3, -1)
    }


def test_every_part_of_a_batch_fills_its_table():
    """The rows have as many values as their tables have columns, in that order for what can be told apart."""
    widths = {part.name: len(part.table.columns) for part in PARTS}

    assert widths == {
        "balances": 6,
        "opened": 4,
        "moved": 4,
        "records": 25,
        "attempts": 17,
        "summaries": 15,
        "alerts": 18,
    }


def test_ids_of_alerts_grow_with_time():
    """Pages of alerts go by id."""
    ids = [new_id() for _ in range(100)]

    assert ids == sorted(ids)
