"""Slow work outlives its process: killed at every instant, a job is handed in once, booked once, and ends."""

import asyncio
import time
from functools import partial
from itertools import product
from threading import Thread

import pytest

from llm_gate.domain.jobs import Job
from llm_gate.engine.jobs import LEASE_MS
from llm_gate.storage.jobs import StoredJobs
from support.figures import PROVES, full, proved
from support.gateway import NATIVE_HEADERS
from support.killing import (
    MODEL,
    NANOS,
    KillingVendor,
    film,
    halt,
    hand_in,
    hand_in_half,
    kill,
    place_for_jobs,
    shown,
    thaw,
)
from support.web import call

EXPECTED = {
    "half of the order has come": "nothing",
    "submission arrives": "unclear",
    "submission taken": "unclear",
    "submission answered": "either",
    "the ticket is stored": "made",
    "look half answered": "made",
    "between looks": "made",
    "completed told": "made",
    "film half sent": "made",
    "film sent": "made",
    "the ledger has the record": "made",
    "word arrives": "made",
}
"""The instants, in their order, and how a job ends whose process dies then."""

_FEW = ("submission taken", "film half sent", "the ledger has the record")
_ON_SQLITE = tuple(EXPECTED) if PROVES else (*_FEW, "the ticket is stored")
_ON_POSTGRESQL = tuple(EXPECTED) if PROVES else _FEW[1:2]
ROUNDS = [*product(["sqlite"], _ON_SQLITE), *product(["postgresql"], _ON_POSTGRESQL)]
REAL_LEASE_S = LEASE_MS / 1000 + 15
SLOW_S = full(1, 40)
PAUSE_S = 1.5
_MORE_HALTS = ("submission taken", "look answered", "completed told", "film half sent") if PROVES else ()
HALTS = ("film sent", *_MORE_HALTS)


@pytest.fixture
def vendor():
    """Return a vendor whose second look finds a film."""
    with KillingVendor() as made:
        made.plan(MODEL, states=("processing", "completed"))
        yield made


def live_until(place, vendor, instant):
    """Hand a film in at a gateway that is killed at an instant; return what the store holds then."""
    with place.serving() as gateway:
        end = partial(kill, gateway.process)
        match instant:
            case "half of the order has come":
                hand_in_half(gateway, vendor)
            case "the ticket is stored":
                assert hand_in(gateway, vendor)
                end()
            case "between looks":
                assert hand_in(gateway, vendor)
                place.wait_for(lambda: place.only_job().job.status == "running", "no look was stored")
                end()
            case "the ledger has the record":
                with place.unable_to_note_the_end():
                    job = hand_in(gateway, vendor)
                    place.wait_for(lambda: place.records_of(job["id"])[0], "nothing was booked")
                    end()
            case _:
                vendor.strike_at(instant, end)
                hand_in(gateway, vendor)
                place.wait_for(lambda: vendor.struck, f"{instant} did not come")
        assert gateway.process.wait() == -9
    return place.only_job()


def followed(place, gateway, job_id, *, within_s=20.0):
    """Follow a job until nothing more happens to it; return it as its caller sees it, and what it made."""
    place.wait_for(lambda: place.only_job().job.is_over, "the job did not end", within_s)
    content = call(gateway.url, f"/llm-gate/v1/jobs/{job_id}/content", headers=NATIVE_HEADERS)
    return shown(gateway, job_id), content


def assert_booked_once(place, job_id, *, cost_nanos):
    """Hold the books against one job."""
    records, attempts = place.records_of(job_id)
    assert [(each.cost_nanos, each.attempts) for each in records] == [(cost_nanos, 1)]
    assert [each.cost_nanos for each in attempts] == [cost_nanos]
    assert [each.id for each in place.records()] == [job_id]
    checked = place.command("ledger", "check")
    assert (checked["drift_nanos"], checked["open_reservations"]) == (0, 0)


def assert_made(vendor, job, content):
    """Hold what a caller got against what the vendor made."""
    (task_id,) = vendor.tasks
    assert (job["status"], job["progress"]) == ("succeeded", 100.0)
    assert job["cost"] == {"total": NANOS / 10**9, "currency": "USD"}
    assert (content.status, content.headers["content-type"]) == (200, "video/mp4")
    assert content.body == film(task_id)


def assert_unclear(job, content):
    """Hold what a caller got against what becomes of a job that perhaps was handed in."""
    assert (job["status"], job["error"]["code"]) == ("failed", "submission_unclear")
    assert job["cost"] == {"total": NANOS / 10**9, "currency": "USD"}
    assert content.status == 409
    assert b'"job_not_ready"' in content.body


@proved
@pytest.mark.parametrize(("kind", "instant"), ROUNDS)
def test_a_job_outlives_a_kill(kind, instant, vendor, tmp_path):
    """At each instant: one submission at most, one record, the right end, and the film where there is one."""
    expected = EXPECTED[instant]
    with place_for_jobs(kind, tmp_path / "data", vendor) as place:
        standing = live_until(place, vendor, instant)
        if expected == "nothing":
            assert standing is None
        else:
            if expected == "either":
                expected = "made" if standing.job.ticket else "unclear"
            assert bool(standing.job.ticket) == (expected == "made")
            place.end_job_leases()
        with place.serving() as gateway:
            if standing is None:
                assert call(gateway.url, "/llm-gate/v1/jobs", headers=NATIVE_HEADERS).json["data"] == []
                assert (vendor.count(MODEL), place.records()) == (0, [])
                return
            job, content = followed(place, gateway, standing.job.id)
        assert vendor.count(MODEL) == (0 if instant == "submission arrives" else 1)
        assert_booked_once(place, standing.job.id, cost_nanos=NANOS)
        (record,), _ = place.records_of(standing.job.id)
        if expected == "made":
            assert_made(vendor, job, content)
            assert (record.status, record.quality, record.error_code) == ("ok", "measured", None)
        else:
            assert_unclear(job, content)
            assert (record.status, record.quality) == ("unconfirmed", "upper_bound")
        assert vendor.words_of(standing.job.id) == [job["status"]]


def test_a_job_that_was_never_booked(vendor, tmp_path):
    """A kill after the row and before the booking leaves a job that no vendor can have: it ends, and costs nothing."""
    job = Job(
        id="0-row",
        tenant="default",
        application="tests",
        user="someone",
        request_id="r",
        operation="video",
        made_ms=1,
    )
    with place_for_jobs("sqlite", tmp_path / "data", vendor) as place, place.serving() as gateway:
        asyncio.run(StoredJobs(place.database).add(job, owner="gone", until_ms=0))
        ended, _ = followed(place, gateway, job.id)
        assert (ended["status"], ended["error"]["code"]) == ("failed", "submission_unclear")
        assert ended["cost"]["total"] == 0
        assert (vendor.count(MODEL), place.records()) == (0, [])


@proved
def test_the_lease_is_waited_for(vendor, tmp_path):
    """While a killed gateway's lease runs, nobody looks in its stead; then another one does, by itself."""
    with place_for_jobs("sqlite", tmp_path / "data", vendor) as place:
        standing = live_until(place, vendor, "between looks")
        looks = vendor.looks.total()
        with place.serving() as gateway:
            if not PROVES:
                with pytest.raises(AssertionError, match="did not end"):
                    followed(place, gateway, standing.job.id, within_s=PAUSE_S)
                assert vendor.looks.total() == looks
                place.end_job_leases()
            job, content = followed(place, gateway, standing.job.id, within_s=REAL_LEASE_S)
        assert place.only_job().owner != standing.owner
        assert_made(vendor, job, content)
        assert_booked_once(place, standing.job.id, cost_nanos=NANOS)


@proved
@pytest.mark.parametrize("moment", HALTS)
def test_a_gateway_that_was_halted_undoes_nothing(moment, vendor, tmp_path):
    """One that comes back after another has taken its job to the end finds it taken, and books nothing besides."""
    with place_for_jobs("sqlite", tmp_path / "data", vendor) as place, place.serving() as halted:
        vendor.strike_at(moment, partial(halt, halted.process))
        caller = Thread(target=hand_in, args=(halted, vendor))
        caller.start()
        try:
            place.wait_for(lambda: vendor.struck, f"{moment} did not come")
            job_id = place.only_job().job.id
            place.end_job_leases()
            with place.serving() as gateway:
                job, content = followed(place, gateway, job_id)
        finally:
            thaw(halted.process)
            caller.join()
        ended = place.only_job()
        time.sleep(PAUSE_S)
        assert place.only_job() == ended
        again, _ = followed(place, halted, job_id)
        assert (again["status"], again["cost"]) == (job["status"], job["cost"])
        if moment == "submission taken":
            assert_unclear(job, content)
        else:
            assert_made(vendor, job, content)
        assert vendor.count(MODEL) == 1
        assert_booked_once(place, job_id, cost_nanos=NANOS)
        assert vendor.words_of(job_id) == [job["status"]]


@proved
def test_a_vendor_that_is_slow_to_take_a_job(vendor, tmp_path):
    """A submission may take longer than a lease: it is the process's own all the while, and ends well."""
    vendor.answers_after_s = SLOW_S
    toml = "[timeouts]\nheaders_s = 100.0\n"
    with place_for_jobs("sqlite", tmp_path / "data", vendor, toml) as place, place.serving() as gateway:
        caller = Thread(target=hand_in, args=(gateway, vendor))
        caller.start()
        seen = []
        end = time.monotonic() + SLOW_S + PAUSE_S
        while time.monotonic() < end:
            if (standing := place.only_job()) is not None and standing.job.status not in seen[-1:]:
                seen.append(standing.job.status)
            time.sleep(0.1)
        caller.join()
        job, content = followed(place, gateway, place.only_job().job.id)
        assert "failed" not in seen, (seen, job["status"], vendor.told)
        assert_made(vendor, job, content)
        assert_booked_once(place, job["id"], cost_nanos=NANOS)
        assert vendor.words_of(job["id"]) == ["succeeded"]
