"""Files and tuned models in both stores: each tenant's own, ended when they were said to, known by one name once."""

import asyncio

import pytest
from msgspec import structs

from llm_gate.domain.blobs import FOR_GOOD_MS
from llm_gate.domain.files import StoredFile
from llm_gate.domain.fine_tuning import TunedModel
from llm_gate.domain.jobs import Job, PinnedRate, cost_at
from llm_gate.domain.media import Medium
from llm_gate.storage.blobs import FolderBlobs
from llm_gate.storage.changes import stored_revision
from llm_gate.storage.files import StoredFiles
from llm_gate.storage.jobs import StoredJobs
from llm_gate.storage.tuned_models import StoredTunedModels
from support.stores import KINDS, any_database

NOW_MS = 1_760_000_000_000


@pytest.fixture(params=KINDS)
def database(request, tmp_path):
    """Return an empty database of each kind."""
    with any_database(request.param, tmp_path) as made:
        yield made


def file_of(number, tenant="blue", **fields):
    """Return a file; the higher its number, the newer."""
    usual = {"application": "a", "user": "u", "purpose": "batch", "name": "n", "size": 1, "blob": "b"}
    return StoredFile(id=f"file-{number:04}", tenant=tenant, made_ms=NOW_MS, **usual | fields)


def test_files_are_their_tenants_and_end(database):
    """A file is found by its tenant until it ends, listed in both orders, and struck out once."""

    async def work():
        files = StoredFiles(database)
        made = [
            file_of(1),
            file_of(2, expires_ms=NOW_MS + 10),
            file_of(3, purpose="fine-tune"),
            file_of(4, "green"),
        ]
        assert [await files.add(each) for each in made] == [True] * 4
        assert await files.add(file_of(1, "green")) is False
        assert await files.find("blue", "file-0001", at_ms=NOW_MS) == made[0]
        assert await files.find("green", "file-0001", at_ms=NOW_MS) is None
        assert await files.find("blue", "file-0002", at_ms=NOW_MS + 9) == made[1]
        assert await files.find("blue", "file-0002", at_ms=NOW_MS + 10) is None

        async def ids(**asked):
            found = await files.listed("blue", **{"at_ms": NOW_MS, "limit": 9, **asked})
            return [each.id[-1] for each in found]

        assert await ids() == ["3", "2", "1"]
        assert await ids(newest_first=False, after="file-0001") == ["2", "3"]
        assert await ids(after="file-0003", limit=1) == ["2"]
        assert await ids(at_ms=NOW_MS + 10) == ["3", "1"]
        assert await ids(purpose="fine-tune") == ["3"]
        assert await files.remove("green", "file-0001") is False
        assert [await files.remove("blue", "file-0001") for _ in range(2)] == [True, False]
        await files.sweep(NOW_MS + 10)
        assert await ids() == ["3"]

    asyncio.run(work())


def test_bytes_stay_as_long_as_they_are_said_to(tmp_path):
    """What is kept for good outlives every sweep; what has an end of its own goes then, whatever is usual."""

    async def work():
        blobs = FolderBlobs(tmp_path / "blobs", retention_s=60.0)
        medium = Medium(data=b"{}", type="application/jsonl")
        good = await blobs.keep("blue", medium, at_ms=NOW_MS, until_ms=FOR_GOOD_MS)
        short = await blobs.keep("blue", medium, at_ms=NOW_MS, until_ms=NOW_MS + 5)
        usual = await blobs.keep("blue", medium, at_ms=NOW_MS)
        assert [each.expires_ms - NOW_MS for each in (short, usual)] == [5, 60_000]
        late_ms = NOW_MS + 10**11
        assert await blobs.sweep(late_ms) == 2
        assert (await blobs.read(good.id, at_ms=late_ms))[1] == b"{}"

    asyncio.run(work())


def test_a_tuned_models_name_has_one_owner(database):
    """The first to have a name keeps it; a new one raises the revision and is audited, a repeat does neither."""
    made = TunedModel(
        tenant="blue", provider="p", name="ft:a", base="a", job="j", deployment="d", made_ms=NOW_MS
    )

    async def work():
        models = StoredTunedModels(database)
        before = database.ask(stored_revision)
        assert await models.add(made) == made
        after = database.ask(stored_revision)
        assert after == before + 1
        assert await models.add(structs.replace(made, tenant="green")) == made
        assert await models.add(structs.replace(made, made_ms=NOW_MS + 1)) == made
        assert database.ask(stored_revision) == after
        other = structs.replace(made, provider="q", made_ms=NOW_MS + 2)
        assert await models.add(other) == other
        assert await models.load_all() == (made, other)

    asyncio.run(work())


def test_a_job_is_changed_under_its_worker(database):
    """What somebody else writes is not overwritten by whoever works on a job, who finds out and goes on with it."""
    job = Job(
        id="j1",
        tenant="t",
        application="a",
        user="u",
        request_id="r",
        operation="fine_tune",
        ticket="old",
        made_ms=NOW_MS,
    )

    async def work():
        jobs = StoredJobs(database)
        await jobs.add(job, owner="one", until_ms=NOW_MS)
        changed = await jobs.amend("j1", lambda each: structs.replace(each, ticket="new"))
        assert (changed.ticket, changed.version) == ("new", 1)
        assert await jobs.versions(["j1", "j2"]) == {"j1": 1}
        assert await jobs.save(structs.replace(job, version=1), owner="one", until_ms=NOW_MS) is False
        assert await jobs.held("j1", owner="two") is None
        held = await jobs.held("j1", owner="one")
        assert held == changed
        over = structs.replace(held, phase="over", version=2)
        assert await jobs.save(over, owner="one", until_ms=NOW_MS)
        assert await jobs.amend("j1", lambda each: each) is None
        assert await jobs.amend("none", lambda each: each) is None

    asyncio.run(work())


def test_changes_at_the_same_time_all_count(database):
    """Of many who change a job at once, none overwrites another."""
    job = Job(
        id="j1",
        tenant="t",
        application="a",
        user="u",
        request_id="r",
        operation="fine_tune",
        made_ms=NOW_MS,
    )

    async def work():
        jobs = StoredJobs(database)
        await jobs.add(job, owner="one", until_ms=NOW_MS)

        def more(each):
            return structs.replace(each, number=each.number + 1)

        await asyncio.gather(*(jobs.amend("j1", more) for _ in range(20)))
        found = await jobs.find("j1")
        assert (found.number, found.version) == (20, 20)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("nanos", "per", "tokens", "cost"),
    [
        ("3000000000", 1_000_000, 5_070, 15_210_000),
        ("1/3", 1, 1, 0),
        ("1/2", 1, 3, 2),
        ("5/2", 1, 1, 2),
        ("25000000000", 1_000_000, 0, 0),
    ],
)
def test_a_pinned_price_is_exact(nanos, per, tokens, cost):
    """A price that was written down comes to the same as the one it was, rounded half to even."""
    rate = PinnedRate(price="p", unit="training_tokens", nanos=nanos, per=per)
    assert cost_at([rate], {"training_tokens": tokens, "other": 9}) == cost
