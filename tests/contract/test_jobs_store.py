"""The port Jobs in both stores: one worker for each job, nothing written over another's work, each caller their own."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec import structs

from llm_gate.domain.jobs import Job, JobMade
from llm_gate.storage.jobs import StoredJobs
from support.figures import full, proved
from support.stores import KINDS, any_database, openings

NOW_MS, LEASE_MS = 1_000_000, 30_000
LATER_MS = NOW_MS + LEASE_MS
JOBS, CLAIMERS = full(40, 400), 6
ROUNDS = full(5, 50)


@pytest.fixture(params=KINDS)
def kind(request):
    """Return which store it is."""
    return request.param


@pytest.fixture
def jobs(kind, tmp_path):
    """Return an empty store."""
    with any_database(kind, tmp_path) as database:
        yield StoredJobs(database)


def job_of(place, **fields):
    """Return a job; the higher its place, the newer."""
    usual = {"tenant": "t", "application": "a", "user": "u", "request_id": f"r{place}", "made_ms": NOW_MS}
    return Job(id=f"j{place:05}", operation="video", **usual | fields)


def run(work):
    """Run a coroutine to its end."""
    return asyncio.run(work)


async def added(jobs, *many, owner="one", until_ms=LATER_MS):
    """Write new jobs, which are an owner's."""
    for job in many:
        await jobs.add(job, owner=owner, until_ms=until_ms)


FULL = job_of(
    7,
    status="running",
    phase="collecting",
    progress=90.0,
    asked={"prompt": "Waves", "duration_s": 8, "generate_audio": True, "seed": -1},
    provider="p",
    model="m",
    deployment="d",
    number=2,
    started_ms=NOW_MS,
    ticket="ticket",
    ticket_data={"a": "b"},
    view_data={"url": "http://x/y"},
    units={"seconds": 8},
    cost_nanos=2**40,
    prices=("price",),
    made=JobMade(blob="b", type="video/mp4", size=3, duration_s=8.0),
    error_code="c",
    error_message="\u00e9 \U0001f30a ' \" %",
    webhook="http://x/told",
    version=4,
)


@pytest.mark.parametrize("job", [job_of(1), FULL], ids=["new", "full"])
def test_a_job_is_found_as_it_was_written(jobs, job):
    """Every field comes back, and nobody else's job comes in its place."""

    async def work():
        await added(jobs, job, job_of(2))
        assert await jobs.find(job.id) == job
        assert await jobs.find("nobody") is None
        await jobs.remove(job.id)
        assert await jobs.find(job.id) is None
        assert await jobs.find(job_of(2).id) == job_of(2)

    run(work())


def test_a_lease_keeps_others_away(jobs):
    """A job is claimed when its lease has run out, not before and not at its last moment, and is then another's."""

    async def work():
        await added(jobs, job_of(1))
        claim = {"until_ms": LATER_MS + LEASE_MS, "limit": 10}
        assert await jobs.claim("two", now_ms=LATER_MS, **claim) == ()
        assert await jobs.claim("two", now_ms=LATER_MS + 1, **claim) == (job_of(1),)
        assert await jobs.claim("three", now_ms=LATER_MS + 1, **claim) == ()
        assert await jobs.claim("two", now_ms=LATER_MS + 1, **claim) == ()

    run(work())


def test_what_is_over_is_claimed_by_nobody(jobs):
    """An ended job stays as it is, however old its lease."""

    async def work():
        await added(jobs, job_of(1), job_of(2, phase="over", status="failed"))
        assert await jobs.save(job_of(1, phase="over", version=1), owner="one", until_ms=LATER_MS)
        assert await jobs.claim("two", now_ms=2 * LATER_MS, until_ms=3 * LATER_MS, limit=10) == ()

    run(work())


def test_the_oldest_are_claimed_first(jobs):
    """A claim takes no more than its limit, from the oldest on; the next one takes the rest."""

    async def work():
        await added(jobs, *map(job_of, (3, 1, 4, 2)), until_ms=0)
        claim = {"now_ms": NOW_MS, "until_ms": LATER_MS, "limit": 3}
        assert [job.id for job in await jobs.claim("two", **claim)] == ["j00001", "j00002", "j00003"]
        assert [job.id for job in await jobs.claim("three", **claim)] == ["j00004"]


def test_nobody_claims_what_is_its_own(jobs):
    """A process whose word came late goes on with what it holds, and does not take it for left."""

    async def work():
        await added(jobs, job_of(1), until_ms=0)
        claim = {"now_ms": NOW_MS, "until_ms": LATER_MS, "limit": 3}
        assert await jobs.claim("one", **claim) == ()
        await jobs.leave("one")
        assert [job.id for job in await jobs.claim("two", **claim)] == ["j00001"]

    run(work())


@proved
def test_one_of_many_claims_a_job(kind, tmp_path):
    """Processes that claim at the same moment share the jobs: each is one's, and none is left."""
    with openings(kind, tmp_path) as opened:
        first = StoredJobs(opened())
        many = [job_of(number) for number in range(JOBS)]
        run(added(first, *many, until_ms=0))

        def claimed(name):
            jobs = StoredJobs(opened())

            async def work():
                mine = []
                while found := await jobs.claim(name, now_ms=NOW_MS, until_ms=LATER_MS, limit=7):
                    mine += found
                return mine

            return run(work())

        names = [f"owner{number}" for number in range(CLAIMERS)]
        with ThreadPoolExecutor(CLAIMERS) as threads:
            shares = dict(zip(names, threads.map(claimed, names), strict=True))
            # A claim that found only what others were about to take comes back empty: the rest is for the next.
            shares["last"] = claimed("last")

        taken = sorted(job.id for share in shares.values() for job in share)
        assert taken == [job.id for job in many]

        async def check():
            for name, share in shares.items():
                for job in share:
                    others = [other for other in names if other != name]
                    assert not await first.save(structs.replace(job, version=1), owner=others[0], until_ms=0)
                    assert await first.save(structs.replace(job, version=1), owner=name, until_ms=LATER_MS)

        run(check())


@proved
def test_one_job_is_claimed_once_by_all_at_once(kind, tmp_path):
    """Round after round, exactly one of many that want the same job at the same moment has it."""
    with openings(kind, tmp_path) as opened:
        claimers = [StoredJobs(opened()) for _ in range(CLAIMERS)]

        async def work():
            for number in range(ROUNDS):
                await added(claimers[0], job_of(number), until_ms=0)
                shares = await asyncio.gather(
                    *(
                        jobs.claim(f"owner{place}", now_ms=NOW_MS, until_ms=LATER_MS, limit=10)
                        for place, jobs in enumerate(claimers)
                    )
                )
                assert [job for share in shares for job in share] == [job_of(number)]

        run(work())


def test_what_was_taken_over_is_not_written_by_its_last_owner(jobs):
    """After a takeover only the new owner's word counts, and the old one is told that it has none."""

    async def work():
        await added(jobs, job_of(1))
        await jobs.claim("two", now_ms=LATER_MS + 1, until_ms=3 * LATER_MS, limit=1)
        late, new = job_of(1, message="late", version=1), job_of(1, message="new", version=1)
        assert not await jobs.save(late, owner="one", until_ms=9 * LATER_MS)
        assert await jobs.find("j00001") == job_of(1)
        assert await jobs.save(new, owner="two", until_ms=3 * LATER_MS)
        assert not await jobs.save(structs.replace(late, version=9), owner="one", until_ms=9 * LATER_MS)
        assert await jobs.find("j00001") == new

    run(work())


def test_an_older_state_is_not_written_over_a_newer(jobs):
    """The version only grows, even where one owner's writes overtake each other; a job that is gone is not saved."""

    async def work():
        await added(jobs, job_of(1))
        newer = job_of(1, message="newer", version=2)
        assert await jobs.save(newer, owner="one", until_ms=LATER_MS)
        assert not await jobs.save(job_of(1, message="older", version=1), owner="one", until_ms=LATER_MS)
        assert not await jobs.save(job_of(1, message="same", version=2), owner="one", until_ms=LATER_MS)
        assert await jobs.find("j00001") == newer
        assert not await jobs.save(job_of(2, version=1), owner="one", until_ms=LATER_MS)
        assert await jobs.find("j00002") is None

    run(work())


def test_a_save_renews_the_lease(jobs):
    """Whoever writes goes on working: the lease runs from there."""

    async def work():
        await added(jobs, job_of(1))
        await jobs.save(job_of(1, version=1), owner="one", until_ms=2 * LATER_MS)
        claim = {"until_ms": 9 * LATER_MS, "limit": 1}
        assert await jobs.claim("two", now_ms=LATER_MS + 1, **claim) == ()
        assert len(await jobs.claim("two", now_ms=2 * LATER_MS + 1, **claim)) == 1

    run(work())


def test_a_renewal_is_for_all_that_is_ones_own(jobs):
    """It holds what is open and the owner's, and gives nothing back that another has taken over."""

    async def work():
        await added(jobs, job_of(1), job_of(2), job_of(3), job_of(4), until_ms=LATER_MS)
        await jobs.save(job_of(4, phase="over", version=1), owner="one", until_ms=LATER_MS)
        await added(jobs, job_of(5), owner="other")
        taken = await jobs.claim("two", now_ms=LATER_MS + 1, until_ms=2 * LATER_MS, limit=1)
        await jobs.renew("one", until_ms=3 * LATER_MS)
        later = await jobs.claim("three", now_ms=2 * LATER_MS + 1, until_ms=9 * LATER_MS, limit=10)
        assert [job.id for job in taken] == ["j00001"]
        assert [job.id for job in later] == ["j00001", "j00005"]

    run(work())


OWNERS = {
    "tenant of two users": (("t", None), ["j00006", "j00004", "j00002", "j00001"]),
    "one user": (("t", "u"), ["j00006", "j00002", "j00001"]),
    "other user": (("t", "v"), ["j00004"]),
    "other tenant": (("s", "u"), ["j00005", "j00003"]),
    "nobody": (("r", None), []),
}


@pytest.mark.parametrize(("whose", "expected"), OWNERS.values(), ids=OWNERS)
def test_jobs_are_listed_to_their_own(jobs, whose, expected):
    """A tenant sees its jobs, a user only theirs, the newest first, page by page."""
    places = {1: ("t", "u"), 2: ("t", "u"), 3: ("s", "u"), 4: ("t", "v"), 5: ("s", "u"), 6: ("t", "u")}

    async def work():
        for number in (3, 1, 6, 4, 2, 5):
            tenant, user = places[number]
            await added(jobs, job_of(number, tenant=tenant, user=user))
        assert [job.id for job in await jobs.listed(*whose, limit=10)] == expected
        for size in (1, 2):
            pages, before = [], ""
            while page := await jobs.listed(*whose, limit=size, before=before):
                assert len(page) <= size
                pages += page
                before = page[-1].id
            assert [job.id for job in pages] == expected

    run(work())


def test_a_cancelled_job_says_so_to_everybody(jobs):
    """Its owner is told, whoever finds, lists or claims it sees it, and later writes of the owner keep it."""

    async def work():
        await added(jobs, job_of(1), job_of(2), job_of(3, phase="over", status="succeeded"))
        await added(jobs, job_of(4), owner="other")
        assert [await jobs.cancel(f"j0000{number}") for number in (1, 3, 4, 9)] == [True, False, True, False]
        assert await jobs.cancel("j00001")
        assert await jobs.wishes("one") == {"j00001"}
        assert await jobs.wishes("other") == {"j00004"}
        assert await jobs.wishes("nobody") == frozenset()

        wanted = {"j00001": True, "j00002": False, "j00003": False, "j00004": True}
        assert {each: (await jobs.find(each)).is_cancelled for each in wanted} == wanted
        assert {each.id: each.is_cancelled for each in await jobs.listed("t", "u", limit=9)} == wanted

        assert await jobs.save(job_of(1, message="still", version=1), owner="one", until_ms=LATER_MS)
        assert (await jobs.find("j00001")).is_cancelled
        claimed = await jobs.claim("two", now_ms=LATER_MS + 1, until_ms=9 * LATER_MS, limit=9)
        assert {job.id: job.is_cancelled for job in claimed} == {
            "j00001": True,
            "j00002": False,
            "j00004": True,
        }
        assert await jobs.wishes("two") == {"j00001", "j00004"}

    run(work())


def test_a_wish_ends_with_its_job(jobs):
    """What is over is wished for no more, and can be called off no more."""

    async def work():
        await added(jobs, job_of(1))
        assert await jobs.cancel("j00001")
        assert await jobs.save(
            job_of(1, phase="over", status="cancelled", is_cancelled=True, version=1),
            owner="one",
            until_ms=LATER_MS,
        )
        assert await jobs.wishes("one") == frozenset()
        assert not await jobs.cancel("j00001")

    run(work())
