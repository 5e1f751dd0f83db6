"""The port for kept answers, over SQLite and a real PostgreSQL: one suite for both."""

import asyncio

import pytest
from sqlalchemy import func, insert, select

from llm_gate.domain.answers import KEPT_MS, Claim, Fresh, KeptAnswer, Lost, Mismatch, Running, Stored
from llm_gate.storage.answers import StoredAnswers
from llm_gate.storage.schema import idempotency, process
from support.stores import KINDS, openings

KEY = bytes(range(32))
NOW_MS = 1_760_000_000_000
FAR_MS = 4_000_000_000_000
ANSWER = KeptAnswer(
    status=200,
    content_type="application/json",
    headers={"x-llm-gate-model": "m"},
    body=b'{"a": "caf\xc3\xa9"}',
)


def claim(key="k1", *, owner="p1", fingerprint="f1", subject="s1", made_ms=NOW_MS):
    return Claim(subject=subject, key=key, fingerprint=fingerprint, owner=owner, made_ms=made_ms)


@pytest.fixture(params=KINDS)
def opening(request, tmp_path):
    """Return a way to open one database, in which the processes p1 and p2 live."""
    with openings(request.param, tmp_path) as again:
        database = again()
        rows = [{"id": name, "started_ms": 0, "lease_until_ms": FAR_MS} for name in ("p1", "p2")]
        database.change(lambda connection: connection.execute(insert(process), rows))
        yield again


@pytest.fixture
def database(opening):
    return opening()


@pytest.fixture
def answers(database):
    return StoredAnswers(database, key=KEY)


def test_an_answer_is_claimed_kept_and_found(answers):
    """The first is fresh; while it runs others see that; then they get its answer, whole."""

    async def scenario():
        assert await answers.begin(claim()) == Fresh()
        assert await answers.begin(claim(owner="p2", made_ms=NOW_MS + 5)) == Running()
        await answers.keep(claim(), ANSWER)
        assert await answers.begin(claim(owner="p2", made_ms=NOW_MS + 9)) == Stored(answer=ANSWER)

    asyncio.run(scenario())


def test_another_request_with_the_key_is_told_so(answers):
    """The same key with another fingerprint is a mismatch, running or stored; another subject is another key."""

    async def scenario():
        await answers.begin(claim())
        assert await answers.begin(claim(fingerprint="f2")) == Mismatch()
        await answers.keep(claim(), ANSWER)
        assert await answers.begin(claim(fingerprint="f2")) == Mismatch()
        assert await answers.begin(claim(subject="s2", fingerprint="f2")) == Fresh()

    asyncio.run(scenario())


def test_an_error_frees_the_key(answers):
    """What was forgotten is fresh again; forgetting what was kept does nothing."""

    async def scenario():
        await answers.begin(claim())
        await answers.forget(claim())
        assert await answers.begin(claim(made_ms=NOW_MS + 1)) == Fresh()
        await answers.keep(claim(made_ms=NOW_MS + 1), ANSWER)
        await answers.forget(claim(made_ms=NOW_MS + 1))
        assert isinstance(await answers.begin(claim()), Stored)

    asyncio.run(scenario())


@pytest.mark.parametrize("why", ["unknown", "too_large"])
def test_a_closed_key_says_why(answers, why):
    """A request that ended without an answer to keep is not run again."""

    async def scenario():
        await answers.begin(claim())
        await answers.close(claim(), why)
        assert await answers.begin(claim(owner="p2")) == Lost(why=why)

    asyncio.run(scenario())


@pytest.mark.parametrize("lease_until_ms", [None, 1])
def test_a_claim_whose_process_is_gone_is_closed(answers, database, lease_until_ms):
    """Nobody knows how far it came; but if it lives after all, its answer counts."""
    if lease_until_ms is not None:
        row = {"id": "gone", "started_ms": 0, "lease_until_ms": lease_until_ms}
        database.change(lambda connection: connection.execute(insert(process), row))

    async def scenario():
        assert await answers.begin(claim(owner="gone")) == Fresh()
        assert await answers.begin(claim()) == Lost(why="unknown")
        assert await answers.begin(claim()) == Lost(why="unknown")
        await answers.keep(claim(owner="gone"), ANSWER)
        assert isinstance(await answers.begin(claim()), Stored)

    asyncio.run(scenario())


def test_a_day_later_the_key_is_fresh(answers):
    """To the millisecond, whatever became of it; the late end of the old claim does not touch the new one."""

    async def scenario():
        await answers.begin(claim())
        await answers.keep(claim(), ANSWER)
        assert isinstance(await answers.begin(claim(made_ms=NOW_MS + KEPT_MS - 1)), Stored)
        late = claim(made_ms=NOW_MS + KEPT_MS, fingerprint="f2")
        assert await answers.begin(late) == Fresh()
        await answers.close(claim(), "unknown")
        await answers.forget(claim())
        assert await answers.begin(late) == Running()

    asyncio.run(scenario())


def test_of_many_at_once_exactly_one_is_fresh(opening):
    """Fifty from four processes at the same instant."""
    stores = [StoredAnswers(opening(), key=KEY) for _ in range(4)]

    async def scenario():
        claims = (stores[n % 4].begin(claim(owner=("p1", "p2")[n % 2])) for n in range(50))
        found = await asyncio.gather(*claims)
        assert found.count(Fresh()) == 1
        assert found.count(Running()) == 49

    asyncio.run(scenario())


def test_what_has_expired_is_deleted_some_at_a_time(answers, database):
    """A purge deletes a bounded number, of what has expired only."""

    def fill(connection):
        connection.execute(
            insert(idempotency),
            [
                {
                    "subject": "s",
                    "key": f"k{n}",
                    "fingerprint": "f",
                    "state": "stored",
                    "owner": "p1",
                    "created_ms": 0,
                    "expires_ms": n,
                }
                for n in range(1200)
            ],
        )

    database.change(fill)

    async def scenario():
        counts = [await answers.purge(999) for _ in range(4)]
        assert sum(counts) == 1000
        assert max(counts) < 1000

    asyncio.run(scenario())
    left = database.ask(
        lambda connection: connection.execute(select(func.min(idempotency.c.expires_ms))).scalar()
    )
    assert left == 1000


def test_nothing_can_be_read_without_the_key(answers, database):
    """What lies in the table is sealed, and bound to its row; with another key it is lost, not shown."""

    async def scenario():
        await answers.begin(claim())
        await answers.keep(claim(), ANSWER)
        sealed = database.ask(lambda connection: connection.execute(select(idempotency.c.sealed)).scalar())
        assert b"caf" not in sealed
        assert b"x-llm-gate-model" not in sealed
        other = StoredAnswers(database, key=bytes(32))
        assert await other.begin(claim()) == Lost(why="unknown")
        await answers.begin(claim("k2"))
        database.change(
            lambda connection: connection.execute(
                idempotency.update().where(idempotency.c.key == "k2").values(state="stored", sealed=sealed)
            )
        )
        assert await answers.begin(claim("k2")) == Lost(why="unknown")

    asyncio.run(scenario())
