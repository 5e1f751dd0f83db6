"""Twin tenants who ask the same and nearly the same: no answer of one ever reaches the other, and none tells of it."""

import asyncio
import itertools
import random
import statistics
import time
from collections import Counter
from contextlib import ExitStack

import aiohttp
import pytest

from llm_gate.domain.cache import Shelf
from support.cached_gateway import QUESTIONS, ask, direction, settings_of, vendor
from support.caches import GROUP, NOW_MS, ONE, OTHER, STORES, Caches, entry, key_of, plain, pointing, settled
from support.figures import full, proved
from support.gateway import running_gateway
from support.office import Desk
from support.servers import private_redis
from support.upstream import fake_upstream

PROBES = full(300, 100_000)
AT_ONCE = 8

# Names that come to the same where they are put together carelessly.
SHELVES = (
    ONE,
    OTHER,
    Shelf(tenant="one", part="other"),
    Shelf(tenant="other", part="one"),
    Shelf(tenant="oneother"),
    Shelf(tenant="on", part="eother"),
    Shelf(tenant="One"),
)


def whose(shelf, number):
    return f"{shelf.tenant}|{shelf.part}|{number}".encode()


@proved
@pytest.mark.parametrize("kind", [*STORES, "sqlite+copies", "redis+copies"])
def test_stores_never_give_an_answer_to_another_shelf(kind, tmp_path):
    """Whatever is asked on a shelf, by a key or by a meaning that others have too, is its own or nothing."""
    chance = random.Random(11)  # noqa: S311 - the same in every run
    kept = {(shelf, number) for shelf in SHELVES for number in range(QUESTIONS) if chance.random() < 0.5}

    async def probe(store, wrong):
        shelf, number = chance.choice(SHELVES), chance.randrange(QUESTIONS)
        expected = whose(shelf, number) if (shelf, number) in kept else None
        found = await store.find(shelf, key_of(number), at_ms=NOW_MS)
        if (None if found is None else found.body) != expected:
            wrong.append(("exact", shelf, number, found))
        near = await store.nearest(shelf, GROUP, direction(number, chance.random()), at_ms=NOW_MS)
        if near is None or not near.entry.body.startswith(f"{shelf.tenant}|{shelf.part}|".encode()):
            wrong.append(("near", shelf, number, near))
        elif expected is not None and near.entry.body != expected:
            wrong.append(("nearest", shelf, number, near))

    with ExitStack() as stack:
        caches = Caches(kind, stack, tmp_path)

        async def work():
            store, wrong = caches.open(), []
            for shelf, number in sorted(kept, key=str):
                vector = direction(number, 0)
                await store.keep(shelf, entry(number, whose(shelf, number), group=GROUP, vector=vector))
            await settled(store)
            for _ in range(0, PROBES, AT_ONCE):
                await asyncio.gather(*(probe(store, wrong) for _ in range(AT_ONCE)))
            return wrong, plain(store).writes.dropped

        wrong, dropped = caches.run(work)
    assert (wrong, dropped) == ([], 0)


@pytest.mark.parametrize("kind", STORES)
def test_time_does_not_tell_of_others_answers(kind, tmp_path):
    """To look for what only another tenant has takes as long as to look for what nobody has."""
    with ExitStack() as stack:
        caches = Caches(kind, stack, tmp_path)

        async def work():
            store = caches.open()
            for number in range(300):
                vector = pointing(1, number, 1)
                await store.keep(OTHER, entry(number, b"x" * 20_000, group=GROUP, vector=vector))
            await settled(store)
            took_s = {"others": [], "nobody": []}
            for number in range(300):
                # Turn by turn, so that whatever else the machine does meets both alike.
                for name, key in (("others", number), ("nobody", 1_000_000 + number)):
                    group = GROUP if name == "others" else b"n" * 32
                    started_s = time.perf_counter()
                    assert await store.find(ONE, key_of(key), at_ms=NOW_MS) is None
                    assert await store.nearest(ONE, group, pointing(1, number, 1), at_ms=NOW_MS) is None
                    took_s[name].append(time.perf_counter() - started_s)
            return took_s

        took_s = caches.run(work)
    others, nobody = (statistics.median(took_s[name]) for name in ("others", "nobody"))
    own = statistics.median(map(abs, map(float.__sub__, took_s["others"], took_s["nobody"])))
    # The difference is lost in what one and the same question takes from one time to the next.
    assert abs(others - nobody) < max(own, 0.1 * nobody), (others, nobody, own)


WORDINGS = (
    "What is the capital of country number {}?",
    "Which city is the capital of country number {}?",
    "Tell me the capital of country number {}.",
)


@proved
@pytest.mark.parametrize("shared", ["sqlite", "redis"])
def test_twin_tenants_never_read_each_others_answers(shared):
    """Two tenants ask the same and nearly the same, whole and as streams: each gets answers made for it alone."""
    chance, serial = random.Random(3), itertools.count()  # noqa: S311 - the same in every run
    owner, crossed, words = {}, [], {"one": Counter(), "other": Counter()}

    async def probe(session, url, tenant, key):
        number, wording = chance.randrange(QUESTIONS), chance.choice(WORDINGS)
        text, word = await ask(session, url, key, wording.format(number), stream=chance.random() < 0.2)
        words[tenant][word] += 1
        if owner.setdefault(text, tenant) != tenant:
            crossed.append((tenant, number, text))

    async def work(url, keys):
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
            for _ in range(0, PROBES, AT_ONCE):
                tenants = chance.choices(list(keys), k=AT_ONCE)
                await asyncio.gather(*(probe(session, url, each, keys[each]) for each in tenants))

    with ExitStack() as stack:
        upstream = stack.enter_context(fake_upstream())
        upstream.next_answer = lambda seen: vendor(seen, serial)
        environment = {"SECOND_API_KEY": "second-fake-0123456789"}
        if shared == "redis":
            environment["LLM_GATE_REDIS_URL"] = stack.enter_context(private_redis()).url
        toml = settings_of(upstream.url, exact=True, semantic=True, model="second/e", threshold=0.95)
        gateway = stack.enter_context(running_gateway(environment, toml=toml))
        desk = Desk(gateway)
        keys = {tenant: desk.key_for(tenant) for tenant in words}
        asyncio.run(work(gateway.url, keys))
    assert crossed == []
    for counted in words.values():
        # Much was given away, of both kinds: else this would prove nothing.
        assert min(counted["hit"], counted["semantic"]) > PROBES // 30
        assert counted["miss"] + counted["bypass"] < PROBES // 3
