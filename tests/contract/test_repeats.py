"""Idempotency keys when the store goes away: nothing is sent without a claim, and no answer is lost for want of it."""

import asyncio
import time
from contextlib import contextmanager

import pytest
import sqlalchemy
from sqlalchemy import insert

from llm_gate.domain.answers import Claim, Stored
from llm_gate.domain.errors import AnswerLost, ProviderUnavailable, StoreUnavailable, Unsettled
from llm_gate.domain.secret import Secret
from llm_gate.http.app import watched
from llm_gate.http.exchange import ClientGone, Exchange, Reply
from llm_gate.http.idempotency import Repeats
from llm_gate.storage.answers import StoredAnswers
from llm_gate.storage.database import open_postgresql
from llm_gate.storage.schema import metadata, process
from support.faultproxy import fault_proxy
from support.stores import postgresql_address, postgresql_name

KEY = bytes(32)


def now_ms():
    return time.time_ns() // 1_000_000


class Caller:
    """One request as the server hands it to the application, and what it gets."""

    def __init__(self, key="k", body=b"{}"):
        self.sent = []
        self.leaves = asyncio.Event()
        self._body = body
        scope = {
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": [(b"idempotency-key", key.encode())],
        }
        self.exchange = Exchange(
            scope, self._receive, self._send, fresh_id="r", max_body_bytes=1000, log_prompts=False
        )

    async def _receive(self):
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        self.sent.append(message)

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent)


@contextmanager
def shaky_store():
    """Yield a database behind a relay, and the relay."""
    with postgresql_name() as name:
        straight = sqlalchemy.make_url(postgresql_address(name))
        with fault_proxy(straight.host, straight.port or 5432) as proxy:
            address = straight.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
            database = open_postgresql(Secret(address))
            try:
                metadata.create_all(database.engine)
                row = {"id": "p", "started_ms": 0, "lease_until_ms": 4_000_000_000_000}
                database.change(lambda connection: connection.execute(insert(process), row))
                yield database, proxy
            finally:
                proxy.listen()
                database.close()


def repeats_on(database):
    return Repeats(StoredAnswers(database, key=KEY), owner="p", now_ms=now_ms)


async def answer(exchange):
    assert await exchange.body() == b"{}"
    await exchange.reply(Reply(body=b"answer"))


async def never(exchange):
    raise AssertionError("it ran again")


def test_without_the_store_nothing_is_sent():
    """The request is refused before its endpoint runs, and runs when the store is back."""

    async def scenario(database, proxy):
        repeats = repeats_on(database)
        proxy.refuse()
        with pytest.raises(StoreUnavailable):
            await repeats.serve(Caller().exchange, never)
        proxy.listen()
        await repeats.serve(Caller().exchange, answer)
        await repeats.close()

    with shaky_store() as (database, proxy):
        asyncio.run(scenario(database, proxy))


def test_an_answer_waits_for_the_store():
    """Its caller has it at once; whoever repeats it gets it as soon as the store is back, also from another process."""

    async def scenario(database, proxy):
        repeats = repeats_on(database)

        async def cut_off(exchange):
            await answer(exchange)
            proxy.refuse()

        first, second, third = Caller(), Caller(), Caller()
        await repeats.serve(first.exchange, cut_off)
        assert first.body == b"answer"
        await asyncio.sleep(0.2)
        proxy.listen()
        await repeats.serve(second.exchange, never)
        await repeats.close()
        await repeats_on(database).serve(third.exchange, never)
        assert second.body == third.body == b"answer"

    with shaky_store() as (database, proxy):
        asyncio.run(scenario(database, proxy))


def test_whoever_leaves_while_claiming_leaves_nothing_behind():
    """A claim that comes about when nobody waits for it any more is given up again."""

    async def scenario(database, proxy):
        repeats = repeats_on(database)
        leaving = Caller()
        await _prime(database)
        proxy.latency_s = 0.2
        task = asyncio.create_task(repeats.serve(leaving.exchange, never))
        await asyncio.sleep(0.1)
        leaving.leaves.set()
        with pytest.raises(ClientGone):
            await task
        proxy.latency_s = 0
        await asyncio.sleep(0.5)
        patient = Caller()
        await asyncio.wait_for(repeats.serve(patient.exchange, answer), 10)
        assert patient.body == b"answer"
        await repeats.close()

    with shaky_store() as (database, proxy):
        asyncio.run(scenario(database, proxy))


async def _prime(database):
    await database.read(lambda connection: connection.execute(sqlalchemy.text("SELECT 1")))


def test_whoever_leaves_does_not_stop_the_work():
    """The answer is there for whoever asks again; the one who waits for it may leave, too."""

    async def scenario(database, proxy):
        repeats = repeats_on(database)
        goes_on = asyncio.Event()

        async def slow(exchange):
            async def work():
                await goes_on.wait()
                await answer(exchange)

            await watched(exchange, work())

        first, waiting, last = Caller(), Caller(), Caller()
        running = asyncio.create_task(repeats.serve(first.exchange, slow))
        await asyncio.sleep(0.2)
        asking = asyncio.create_task(repeats.serve(waiting.exchange, never))
        for caller in (first, waiting):
            caller.leaves.set()
        with pytest.raises(ClientGone):
            await asyncio.wait_for(asking, 10)
        assert not running.done()
        goes_on.set()
        await asyncio.wait_for(running, 10)
        await repeats.serve(last.exchange, never)
        assert last.body == b"answer"
        await repeats.close()

    with shaky_store() as (database, proxy):
        asyncio.run(scenario(database, proxy))


def test_what_the_server_cuts_at_its_end_is_unknown():
    """Closing waits for those that were cut just now and still have something to give back."""

    async def scenario(database, proxy):
        repeats = repeats_on(database)

        async def endless(exchange):
            try:
                await watched(exchange, asyncio.sleep(60))
            finally:
                await asyncio.sleep(0.3)

        running = asyncio.create_task(repeats.serve(Caller().exchange, endless))
        await asyncio.sleep(0.2)
        running.cancel()
        await repeats.close()
        assert running.cancelled()
        with pytest.raises(AnswerLost):
            await repeats_on(database).serve(Caller().exchange, never)

    with shaky_store() as (database, proxy):
        asyncio.run(scenario(database, proxy))


def test_the_next_one_is_not_confused_with_the_one_before():
    """Failures and successors in quick turns, many at once: every one ends, and one answer is kept."""
    failures = 20

    async def scenario(database, proxy):
        repeats = repeats_on(database)
        runs = 0

        async def unlucky(exchange):
            nonlocal runs
            runs += 1
            if runs <= failures:
                raise ProviderUnavailable("not now", provider="p")
            await answer(exchange)

        callers = [Caller() for _ in range(30)]
        tasks = (repeats.serve(caller.exchange, unlucky) for caller in callers)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await repeats.close()
        assert sum(isinstance(end, ProviderUnavailable) for end in ends) == failures
        assert sum(caller.body == b"answer" for caller in callers) == 10
        assert runs == failures + 1

    with shaky_store() as (database, proxy):
        asyncio.run(scenario(database, proxy))


def test_what_went_wrong_unforeseen_is_not_run_again():
    """Nobody can say whether it was charged."""

    async def scenario(database, proxy):
        repeats = repeats_on(database)

        async def broken(exchange):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await repeats.serve(Caller().exchange, broken)
        with pytest.raises(AnswerLost):
            await repeats.serve(Caller().exchange, never)
        await repeats.close()

    with shaky_store() as (database, proxy):
        asyncio.run(scenario(database, proxy))


def test_answers_past_their_time_are_deleted():
    """By the task that looks after them."""

    async def scenario(database, proxy):
        answers = StoredAnswers(database, key=KEY)
        old = Claim(subject="s", key="k", fingerprint="f", owner="p", made_ms=0)
        await answers.begin(old)
        repeats = repeats_on(database)
        repeats.start()
        while await database.read(lambda c: c.execute(sqlalchemy.text("SELECT 1 FROM idempotency")).first()):
            await asyncio.sleep(0.05)
        await repeats.close()
        assert not isinstance(await answers.begin(old), Stored)

    with shaky_store() as (database, proxy):
        asyncio.run(asyncio.wait_for(scenario(database, proxy), 20))


def test_a_call_that_is_paid_but_not_recorded_is_not_made_again():
    """The provider has answered, the ledger was away: the key stays used, and the repeat is told so."""

    async def paid(exchange):
        assert await exchange.body() == b"{}"
        raise Unsettled("the call was answered, but not recorded yet")

    async def scenario(database):
        repeats = repeats_on(database)
        with pytest.raises(Unsettled):
            await repeats.serve(Caller().exchange, paid)
        with pytest.raises(AnswerLost) as lost:
            await repeats.serve(Caller().exchange, never)
        assert lost.value.code == "idempotency_outcome_unknown"
        await repeats.close()

    with shaky_store() as (database, _proxy):
        asyncio.run(scenario(database))
