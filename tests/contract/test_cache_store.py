"""Where answers are kept: the same promises over both databases and Redis, with copies in memory and without."""

import asyncio
import time
from contextlib import ExitStack

import msgspec
import pytest
import redis
from sqlalchemy import insert, select, update

from llm_gate.domain.cache import CacheStats, Shelf
from llm_gate.domain.errors import StoreUnavailable
from llm_gate.domain.secret import Secret
from llm_gate.storage.cache_memory import MemoryCopy
from llm_gate.storage.cache_redis import RedisCache
from llm_gate.storage.cache_sealing import neighbourhood_of, place_of
from llm_gate.storage.cache_writes import MOST_WAITING
from llm_gate.storage.redis import RedisLink
from llm_gate.storage.schema import cache_entry
from support.caches import (
    ALL,
    GROUP,
    LATER_MS,
    NOW_MS,
    ONE,
    OTHER,
    STORES,
    Caches,
    entry,
    key_of,
    plain,
    pointing,
    settled,
)
from support.servers import private_redis, redis_url


@pytest.fixture(params=ALL)
def caches(request, tmp_path):
    with ExitStack() as stack:
        yield Caches(request.param, stack, tmp_path)


@pytest.fixture(params=STORES)
def plain_caches(request, tmp_path):
    with ExitStack() as stack:
        yield Caches(request.param, stack, tmp_path)


def test_what_is_kept_is_found_by_its_key_on_its_shelf_alone(caches):
    """An answer comes back whole under its key; another key, tenant or part finds nothing."""

    async def work():
        store = caches.open()
        kept = entry(1, b"\x00answer\xff", saved_nanos=12, group=GROUP, vector=pointing(1, 2))
        await store.keep(ONE, kept)
        at_once = await store.find(ONE, key_of(1), at_ms=NOW_MS)
        await settled(store)
        others = [
            await store.find(shelf, key_of(number), at_ms=NOW_MS)
            for shelf, number in (
                (ONE, 2),
                (OTHER, 1),
                (Shelf(tenant="one", part="x"), 1),
                (Shelf(tenant="on", part="e"), 1),
                (Shelf(tenant=""), 1),
            )
        ]
        return kept, at_once, await store.find(ONE, key_of(1), at_ms=NOW_MS), others

    kept, at_once, found, others = caches.run(work)
    assert found == at_once == msgspec.structs.replace(kept, vector=None)
    assert others == [None] * 5


def test_another_process_finds_it_too(caches):
    """What one process keeps, another finds, by its key and by its meaning, also what comes after its first look."""

    async def work():
        one, two = caches.open(), caches.open()
        await one.keep(ONE, entry(1, group=GROUP, vector=pointing(1, 0)))
        await settled(one)
        first = await two.nearest(ONE, GROUP, pointing(1, 0), at_ms=NOW_MS)
        await one.keep(ONE, entry(2, group=GROUP, vector=pointing(0, 1)))
        await settled(one)
        second = await two.nearest(ONE, GROUP, pointing(0, 1), at_ms=NOW_MS)
        return first, second, await two.find(ONE, key_of(2), at_ms=NOW_MS)

    first, second, found = caches.run(work)
    assert (first.entry.key, round(first.similarity, 6)) == (key_of(1), 1.0)
    assert (second.entry.key, round(second.similarity, 6)) == (key_of(2), 1.0)
    assert found.body == b"answer"


def test_the_nearest_of_its_group_is_found(caches):
    """Of a group, the entry with the greatest cosine comes back; other groups, tenants and dimensions do not count."""

    async def work():
        store = caches.open()
        for number, vector in enumerate([(1, 0, 0), (1, 1, 0), (0, 0, 1)]):
            await store.keep(ONE, entry(number, group=GROUP, vector=pointing(*vector)))
        await store.keep(ONE, entry(10, group=b"h" * 32, vector=pointing(3, 1, 0)))
        await store.keep(OTHER, entry(11, group=GROUP, vector=pointing(3, 1, 0)))
        await store.keep(ONE, entry(12, group=GROUP, vector=pointing(3, 1)))
        await store.keep(ONE, entry(13, group=GROUP))
        await settled(store)
        return [
            await store.nearest(shelf, group, vector, at_ms=NOW_MS)
            for shelf, group, vector in (
                (ONE, GROUP, pointing(3, 1, 0)),
                (OTHER, b"h" * 32, pointing(3, 1, 0)),
                (Shelf(tenant="one", part="x"), GROUP, pointing(3, 1, 0)),
                (ONE, GROUP, ()),
                (ONE, GROUP, (float("nan"), 1.0, 0.0)),
                (ONE, GROUP, (0.0, 0.0, 0.0)),
            )
        ]

    found, *nothing = caches.run(work)
    assert (found.entry.key, round(found.similarity, 4)) == (key_of(0), 0.9487)
    assert found.entry.vector is None
    assert nothing == [None] * 5


def test_what_has_expired_is_not_found_and_is_swept(caches):
    """An entry ends at its instant, by its key and by its meaning; a sweep removes it."""

    async def work():
        store = caches.open()
        ends_ms = int(time.time() * 1000) + 400
        await store.keep(ONE, entry(1, group=GROUP, vector=pointing(1, 0), expires_ms=ends_ms))
        await store.keep(ONE, entry(2, group=GROUP, vector=pointing(0, 1)))
        await settled(store)
        good = await store.find(ONE, key_of(1), at_ms=ends_ms - 1)
        gone = await store.find(ONE, key_of(1), at_ms=ends_ms)
        near = await store.nearest(ONE, GROUP, pointing(1, 0), at_ms=ends_ms)
        await asyncio.sleep(0.5)
        swept = await store.sweep(ends_ms + 1)
        return good, gone, near, swept, await store.stats(None)

    good, gone, near, swept, stats = caches.run(work)
    assert good is not None
    assert gone is None
    assert near.entry.key == key_of(2)
    assert (swept, stats.entries) == (1, 1)


def test_a_newer_answer_takes_the_place_of_an_older_one(caches):
    """A key has one answer, the last that was kept, and one vector; other processes see it."""

    async def work():
        store, other = caches.open(), caches.open()
        await store.keep(ONE, entry(1, b"old", group=GROUP, vector=pointing(1, 0)))
        await settled(store)
        assert (await other.nearest(ONE, GROUP, pointing(1, 0), at_ms=NOW_MS)).entry.body == b"old"
        await store.keep(ONE, entry(1, b"new", group=GROUP, vector=pointing(0, 1)))
        await settled(store)
        near = await other.nearest(ONE, GROUP, pointing(1, 0), at_ms=NOW_MS)
        return await store.find(ONE, key_of(1), at_ms=NOW_MS), near, await store.stats(None)

    found, near, stats = caches.run(work)
    assert (found.body, near.entry.body, near.similarity) == (b"new", b"new", 0.0)
    assert (stats.entries, stats.with_vectors) == (1, 1)


def test_clearing_is_by_tenant_and_reaches_every_process_within_a_second(caches):
    """What is cleared is found by nobody, in no process; the answers of other tenants stay."""

    async def work():
        one, two = caches.open(), caches.open()
        before = await two.generation()
        for shelf in (ONE, Shelf(tenant="one", part="x"), OTHER):
            for number in (1, 2):
                await one.keep(shelf, entry(number, group=GROUP, vector=pointing(1, number)))
        await settled(one)
        assert await two.find(ONE, key_of(1), at_ms=NOW_MS) is not None
        assert await two.nearest(ONE, GROUP, pointing(1, 0), at_ms=NOW_MS) is not None
        cleared = await one.clear("one")
        at_once = await one.find(ONE, key_of(1), at_ms=NOW_MS)
        near = await two.nearest(ONE, GROUP, pointing(1, 0), at_ms=NOW_MS)
        await asyncio.sleep(1.05)
        later = await two.find(ONE, key_of(1), at_ms=NOW_MS)
        others = await two.find(OTHER, key_of(1), at_ms=NOW_MS)
        other_near = await two.nearest(OTHER, GROUP, pointing(1, 0), at_ms=NOW_MS)
        grown = await two.generation() > before
        counts = [(await one.stats(tenant)).entries for tenant in ("one", "other", None)]
        all_gone = await two.clear(None), await one.stats(None)
        return cleared, [at_once, near, later], others, other_near, grown, counts, all_gone

    cleared, nothing, others, other_near, grown, counts, all_gone = caches.run(work)
    assert cleared == 4
    assert nothing == [None] * 3
    assert others is not None
    assert other_near.entry.key == key_of(1)
    assert grown
    assert counts == [0, 2, 2]
    assert all_gone == (2, CacheStats())


def test_what_waits_to_be_written_is_cleared_too(caches):
    """An answer that was given away before the clearing does not come back after it."""

    async def work():
        store = caches.open()
        for number in range(200):
            await store.keep(ONE, entry(number))
        await store.clear(None)
        await settled(store)
        return await store.stats(None)

    assert caches.run(work).entries == 0


def test_the_oldest_make_room(caches):
    """Never are there more entries than the bound says, and those that stay are the newest."""

    async def work():
        store = caches.open(max_entries=20)
        most = 0
        for number in range(60):
            await store.keep(ONE, entry(number, group=GROUP, vector=pointing(1, number)))
            if number % 15 == 14:
                await settled(store)
                most = max(most, (await store.stats(None)).entries)
        known = [await plain(store).find(ONE, key_of(number), at_ms=NOW_MS) for number in range(60)]
        near = await store.nearest(ONE, GROUP, pointing(1, 0), at_ms=NOW_MS)
        return most, [number for number, found in enumerate(known) if found is not None], near

    most, known, near = caches.run(work)
    assert most == 20
    assert known == list(range(40, 60))
    assert near.entry.key == key_of(40)


def test_bytes_are_bounded(caches):
    """Never do all entries together take more than the bound says; one that is larger by itself is not kept."""

    async def work():
        store = caches.open(max_bytes=100_000)
        for number in range(40):
            await store.keep(ONE, entry(number, b"x" * 10_000))
        await settled(store)
        await store.keep(ONE, entry(99, b"x" * 100_001))
        await settled(store)
        return await store.stats(None), await plain(store).find(ONE, key_of(99), at_ms=NOW_MS)

    stats, too_large = caches.run(work)
    assert 8 <= stats.entries <= 9
    assert stats.bytes <= 100_000
    assert too_large is None


def test_a_smaller_bound_holds_after_a_sweep(caches):
    """An operator who lowers the bound need not wait for what there is to expire."""

    async def work():
        wide = caches.open()
        for number in range(30):
            await wide.keep(ONE, entry(number))
        await settled(wide)
        narrow = caches.open(max_entries=10)
        await narrow.sweep(NOW_MS)
        return await narrow.stats(None)

    assert caches.run(work).entries == 10


def test_the_store_shows_nothing_of_answers_and_questions(plain_caches):
    """A copy of the store holds neither the words of an answer nor the key of a question."""

    async def work():
        store = plain_caches.open()
        await store.keep(ONE, entry(1, b"very secret answer", group=GROUP, vector=pointing(1, 0)))
        await settled(store)
        return await everything(store, plain_caches)

    data = plain_caches.run(work)
    assert len(data) > 100
    assert b"secret" not in data
    assert key_of(1) not in data
    assert GROUP not in data


async def everything(store, caches):
    """Return all bytes of a store."""
    if caches.kind == "redis":
        found = b""
        with redis.Redis.from_url(redis_url()) as client:
            for name in client.scan_iter(f"{caches.prefix}*"):
                found += name + client.dump(name)
        return found
    rows = await store._database.read(lambda connection: connection.execute(select(cache_entry)).all())
    return b"".join(each if isinstance(each, bytes) else str(each).encode() for row in rows for each in row)


@pytest.mark.parametrize("thief", [OTHER, Shelf(tenant="one", part="x")], ids=["tenant", "part"])
def test_what_is_moved_to_another_shelf_does_not_open(plain_caches, thief):
    """Somebody who can write to the store gets no answer of another tenant by copying rows, nor by renaming them."""

    async def work():
        store = plain_caches.open()
        await store.keep(ONE, entry(1, group=GROUP, vector=pointing(1, 0)))
        await store.keep(ONE, entry(2, group=b"h" * 32, vector=pointing(1, 0)))
        await store.keep(thief, entry(3, group=GROUP, vector=pointing(0, 1)))
        await settled(store)
        await moved(store, plain_caches, thief)
        exact = await store.find(thief, key_of(1), at_ms=NOW_MS)
        near = await store.nearest(thief, GROUP, pointing(1, 0), at_ms=NOW_MS)
        return exact, near, await store.nearest(ONE, GROUP, pointing(1, 0), at_ms=NOW_MS)

    exact, near, own = plain_caches.run(work)
    assert exact is None
    assert near.entry.key == key_of(3)
    assert own.entry.key == key_of(1)


async def moved(store, caches, thief):
    """Copy the row of the first key to where the thief's would be, and put the second into the thief's group."""
    source, goal = place_of(ONE, key_of(1)), place_of(thief, key_of(1))
    strange, group = place_of(ONE, key_of(2)), neighbourhood_of(thief, GROUP, 2)
    if caches.kind == "redis":
        name = caches.prefix.encode()
        with redis.Redis.from_url(redis_url()) as client:
            client.copy(name + b"entry:" + source, name + b"entry:" + goal)
            own = neighbourhood_of(ONE, GROUP, 2)
            for place, at in ((goal, source), (strange, strange)):
                groups = (own, neighbourhood_of(ONE, b"h" * 32, 2))
                head = next(
                    found
                    for each in groups
                    if (found := client.hget(name + b"heads:" + each, at)) is not None
                )
                client.zadd(name + b"order:" + group, {place: 1})
                client.hset(name + b"heads:" + group, place, head)
        return

    def work(connection):
        row = dict(
            connection.execute(select(cache_entry).where(cache_entry.c.place == source)).one()._mapping
        )
        row |= {"place": goal, "tenant": thief.tenant, "neighbourhood": group, "number": 1000}
        connection.execute(insert(cache_entry).values(row))
        change = update(cache_entry).where(cache_entry.c.place == strange)
        connection.execute(change.values(neighbourhood=group, tenant=thief.tenant))

    await store._database.write(work)


def test_an_altered_entry_is_a_miss(plain_caches):
    """A changed bit, a cut end, a body behind another's head, another's key: each is a miss, none an error."""

    async def work():
        store = plain_caches.open()
        for number in range(5):
            await store.keep(
                ONE, entry(number, b"answer %d" % number, group=GROUP, vector=pointing(1, number))
            )
        await settled(store)

        async def altered(number, change):
            await rewritten(store, plain_caches, place_of(ONE, key_of(number)), change)
            return await store.find(ONE, key_of(number), at_ms=NOW_MS)

        found = [
            await altered(0, lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1])),
            await altered(1, lambda sealed: sealed[:60]),
            await altered(2, lambda sealed: b"\xff" * 4 + sealed[4:]),
            await altered(3, lambda _: b""),
        ]
        near = await store.nearest(ONE, GROUP, pointing(1, 0), at_ms=NOW_MS)
        elsewhere = plain_caches.open(key=b"z" * 32)
        found.append(await elsewhere.find(ONE, key_of(4), at_ms=NOW_MS))
        found.append(await elsewhere.nearest(ONE, GROUP, pointing(1, 4), at_ms=NOW_MS))
        return found, near

    found, near = plain_caches.run(work)
    assert found == [None] * 6
    assert near is None or near.entry.key == key_of(4)


async def rewritten(store, caches, place, change):
    """Change what is sealed at a place."""
    if caches.kind == "redis":
        name = caches.prefix.encode() + b"entry:" + place
        with redis.Redis.from_url(redis_url()) as client:
            client.set(name, change(client.get(name)))
        return

    def work(connection):
        here = cache_entry.c.place == place
        sealed = connection.execute(select(cache_entry.c.sealed).where(here)).scalar_one()
        connection.execute(update(cache_entry).where(here).values(sealed=change(sealed)))

    await store._database.write(work)


def test_many_processes_keep_the_bounds_and_lose_no_neighbour(plain_caches):
    """Four processes that write at once stay within the bound together, and each finds what the others kept."""

    async def work():
        stores = [plain_caches.open(max_entries=100) for _ in range(4)]

        async def one(number, store):
            for each in range(50):
                await store.keep(
                    ONE, entry(50 * number + each, group=GROUP, vector=pointing(1, number, each))
                )
                if each % 10 == 9:
                    await settled(store)
                    await store.nearest(ONE, GROUP, pointing(1, 0, 0), at_ms=NOW_MS)

        await asyncio.gather(*(one(number, store) for number, store in enumerate(stores)))
        stats = await stores[0].stats(None)
        missed = []
        for number in range(200):
            vector = pointing(1, number // 50, number % 50)
            if await stores[0].find(ONE, key_of(number), at_ms=NOW_MS) is None:
                continue
            for store in stores:
                near = await store.nearest(ONE, GROUP, vector, at_ms=NOW_MS)
                if near is None or near.entry.key != key_of(number):
                    missed.append(number)
        return stats, missed

    stats, missed = plain_caches.run(work)
    assert stats.entries == 100
    assert missed == []


def test_a_full_queue_drops_and_counts(plain_caches):
    """What there is no room for is dropped and counted, and whoever gave it away goes on at once."""

    async def work():
        store = plain_caches.open()
        for number in range(MOST_WAITING + 100):
            await store.keep(ONE, entry(number))
        dropped = store.writes.dropped
        await settled(store)
        return dropped, await store.stats(None)

    dropped, stats = plain_caches.run(work)
    assert dropped == 100
    assert stats.entries == MOST_WAITING


def test_what_waits_when_a_process_ends_is_written(plain_caches):
    """A process that ends in order writes what was given to it a moment before, and takes nothing more."""

    async def work():
        store = plain_caches.open()
        await store.keep(ONE, entry(1))
        await store.close()
        await store.keep(ONE, entry(2))
        other = plain_caches.open()
        found = [await other.find(ONE, key_of(number), at_ms=NOW_MS) for number in (1, 2)]
        return found, store.writes.dropped

    (kept, late), dropped = plain_caches.run(work)
    assert kept.body == b"answer"
    assert (late, dropped) == (None, 1)


def test_odd_names_of_tenants_harm_nobody(plain_caches):
    """A tenant's name that the store cannot hold is not kept; others that wait with it are."""

    async def work():
        store = plain_caches.open()
        odd = Shelf(tenant="a\x00b")
        await store.keep(odd, entry(1))
        await settled(store)
        await store.keep(ONE, entry(2))
        await settled(store)
        await store.find(odd, key_of(1), at_ms=NOW_MS)
        return await store.find(ONE, key_of(2), at_ms=NOW_MS)

    assert plain_caches.run(work) is not None


def test_a_database_that_is_away_is_a_miss(tmp_path):
    """Without its database every question is a miss, quickly, and whoever asks for figures is told so."""
    with ExitStack() as stack:
        caches = Caches("sqlite+copies", stack, tmp_path)

        async def work():
            store = caches.open()
            await store.keep(ONE, entry(1))
            await settled(store)
            plain(store)._database.engine.dispose()
            for file in tmp_path.glob("llm-gate.db*"):
                file.unlink()
            (tmp_path / "llm-gate.db").mkdir()
            started_s = time.monotonic()
            found = [await plain(store).find(ONE, key_of(1), at_ms=NOW_MS) for _ in range(100)]
            found.append(await store.nearest(ONE, GROUP, pointing(1, 0), at_ms=NOW_MS))
            generation = await store.generation()
            took_s = time.monotonic() - started_s
            await store.keep(ONE, entry(2))
            await settled(store)
            dropped = plain(store).writes.dropped
            for ask in (store.stats(None), store.clear("one")):
                with pytest.raises(StoreUnavailable):
                    await ask
            return found, generation, took_s, dropped

        found, generation, took_s, dropped = caches.run(work)
    assert found == [None] * 101
    assert generation == -1
    assert took_s < 2.0
    assert dropped == 1


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_redis_that_is_away_is_a_miss_and_is_used_again(fault):
    """While Redis is away nothing is found, copies neither, nobody waits long, and afterwards it is used again."""

    async def work(server):
        link = RedisLink(Secret(server.url))
        rules = {"key": b"k" * 32, "max_entries": 100, "max_bytes": 10**6, "now_ms": lambda: NOW_MS}
        store = MemoryCopy(RedisCache(link, **rules), most_bytes=10**6)
        await store.keep(ONE, entry(1))
        await settled(store)
        assert await store.find(ONE, key_of(1), at_ms=NOW_MS) is not None
        server.kill() if fault == "killed" else server.freeze()
        store._follow_at_s = 0.0
        started_s = time.monotonic()
        found = [await store.find(ONE, key_of(1), at_ms=NOW_MS) for _ in range(100)]
        await store.keep(ONE, entry(2))
        with pytest.raises(StoreUnavailable):
            await store.clear(None)
        took_s = time.monotonic() - started_s
        await settled(store)
        server.restart() if fault == "killed" else server.thaw()
        link._skip_until_s = store._follow_at_s = 0.0
        await store.generation()
        await store.keep(ONE, entry(3))
        await settled(store)
        again = await store.store.find(ONE, key_of(3), at_ms=NOW_MS)
        await store.close()
        return found, took_s, again

    with private_redis() as server:
        found, took_s, again = asyncio.run(work(server))
    assert found == [None] * 100
    assert took_s < 1.0
    assert again is not None


def test_a_redis_that_forgets_part_of_it_only_misses():
    """Whatever keys Redis drops for want of memory, nothing raises, and later answers are kept and counted."""

    async def work(server, client):
        link = RedisLink(Secret(server.url), operation_s=2.0)
        rules = {"key": b"k" * 32, "max_entries": 50, "max_bytes": 10**6, "now_ms": lambda: NOW_MS}
        store = RedisCache(link, **rules)
        for lost in ("book", "ages", "ends", "totals", "tenant:*", "order:*", "heads:*", "entry:*"):
            await fill(store)
            for name in client.keys(f"llm-gate:cache:{lost}"):
                client.delete(name)
            await store.find(ONE, key_of(1), at_ms=NOW_MS)
            await store.nearest(ONE, GROUP, pointing(1, 1), at_ms=NOW_MS)
            await store.sweep(NOW_MS)
            await fill(store)
            stats = await store.stats("one")
            assert stats.entries == 50, lost
            assert 0 < stats.bytes <= 10**6
            await store.clear(None)
            assert (await store.stats(None)).entries == 0
        await store.close()

    async def fill(store):
        for number in range(60):
            await store.keep(ONE, entry(number, group=GROUP, vector=pointing(1, number)))
        await settled(store)

    with private_redis() as server, redis.Redis.from_url(server.url) as client:
        asyncio.run(work(server, client))


def test_copies_are_bounded_in_bytes_and_the_least_used_go(tmp_path):
    """Copies never take more than their bound; what was used last stays."""
    with ExitStack() as stack:
        caches = Caches("sqlite", stack, tmp_path)

        async def work():
            store = MemoryCopy(caches.open(), most_bytes=50_000)
            most = 0
            for number in range(30):
                await store.keep(ONE, entry(number, b"x" * 9_000))
                await store.find(ONE, key_of(0), at_ms=NOW_MS)
                most = max(most, store.size_bytes)
            await store.keep(ONE, entry(99, b"x" * 60_000))
            first = place_of(ONE, key_of(0)) in store._copies
            return most, first, len(store._copies)

        most, first, count = caches.run(work)
    assert 40_000 < most <= 50_000
    assert first
    assert count == 4


def test_an_exact_copy_costs_no_way_to_the_store(tmp_path):
    """Of many finds within a second, one asks the store, for its generation."""
    with ExitStack() as stack:
        caches = Caches("sqlite", stack, tmp_path)

        async def work():
            inner = caches.open()
            store = MemoryCopy(inner, most_bytes=50_000, clock=lambda: 1000.0)
            await store.keep(ONE, entry(1))
            await settled(inner)
            inner._database.close()
            return [await store.find(ONE, key_of(1), at_ms=NOW_MS) for _ in range(1000)]

        found = caches.run(work)
    assert all(each is not None for each in found)


def test_a_copy_that_was_made_while_the_store_was_cleared_is_not_given_out(tmp_path):
    """A slow answer of the store that a clearing has overtaken is no copy."""
    with ExitStack() as stack:
        caches = Caches("sqlite", stack, tmp_path)

        async def work():
            inner = caches.open()
            now_s = [1000.0]
            store = MemoryCopy(inner, most_bytes=50_000, clock=lambda: now_s[0])
            await inner.keep(ONE, entry(1))
            await settled(inner)
            await store.find(ONE, key_of(2), at_ms=NOW_MS)
            real, gate = inner.find, asyncio.Event()

            async def slow(shelf, key, *, at_ms):
                found = await real(shelf, key, at_ms=at_ms)
                await gate.wait()
                return found

            inner.find = slow
            finding = asyncio.create_task(store.find(ONE, key_of(1), at_ms=NOW_MS))
            await asyncio.sleep(0.2)
            await inner.clear(None)
            now_s[0] += 2.0
            inner.find = real
            await store.find(ONE, key_of(2), at_ms=NOW_MS)
            gate.set()
            await finding
            return await store.find(ONE, key_of(1), at_ms=NOW_MS)

        assert caches.run(work) is None
    assert LATER_MS > NOW_MS
