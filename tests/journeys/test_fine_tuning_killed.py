"""Trainings outlive their process: killed at any instant, one is handed in once, settled once, and has its model."""

import time
from contextlib import contextmanager
from functools import partial

import openai
import pytest

from llm_gate.domain.secret import Secret
from llm_gate.storage.database import open_postgresql, open_sqlite
from support.figures import PROVES
from support.killing import JobPlace, kill
from support.stores import postgresql_address, postgresql_name
from support.tuning_fake import BASE, KEY, TuningFake

LINES = b'{"messages":[{"role":"user","content":"question"},{"role":"assistant","content":"ahoy"}]}\n' * 20
NANOS = 5_070 * 3_000
PATIENCE_S = 15.0

EXPECTED = {
    "job arrives": "unclear",
    "job taken": "unclear",
    "look answered": "made",
    "result sent": "made",
    "the ledger has the record": "made",
}
"""The instants, in their order, and how a training ends whose process dies then."""

_FEW = ("job taken", "look answered", "the ledger has the record")
ROUNDS = [
    *(("sqlite", instant) for instant in (EXPECTED if PROVES else _FEW)),
    *(("postgresql", instant) for instant in (EXPECTED if PROVES else ("result sent",))),
]


@contextmanager
def place_for_training(kind, folder, vendor):
    """Make a place on SQLite or PostgreSQL, for gateways whose models are trained by a vendor."""
    environment = {"OPENAI_API_KEY": KEY, "LLM_GATE_OPENAI_BASE_URL": f"{vendor.url}/v1"}
    folder.mkdir(parents=True)
    if kind == "sqlite":
        database = open_sqlite(folder)
        try:
            yield JobPlace(folder, environment, database, "")
        finally:
            database.close()
        return
    with postgresql_name() as name:
        address = postgresql_address(name)
        environment |= {
            "LLM_GATE_DATABASE_URL": address,
            "LLM_GATE_PEPPER": "a pepper for tests, 0123456789abcdef",
        }
        database = open_postgresql(Secret(address))
        try:
            yield JobPlace(folder, environment, database, "")
        finally:
            database.close()


def hand_in(gateway):
    """Hand a training in; return its job, or None where nobody is there any more to say."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        file = client.files.create(file=("training.jsonl", LINES), purpose="fine-tune")
        try:
            return client.fine_tuning.jobs.create(model=f"openai/{BASE}", training_file=file.id)
        except openai.APIConnectionError:
            return None


def live_until(place, vendor, instant):
    """Hand a training in at a gateway that is killed at an instant; return what the store holds then."""
    with place.serving() as gateway:
        end = partial(kill, gateway.process)
        if instant == "the ledger has the record":
            with place.unable_to_note_the_end():
                job = hand_in(gateway)
                own = job.id.removeprefix("ftjob-")
                place.wait_for(lambda: place.records_of(own)[0], "nothing was booked")
                end()
        else:
            vendor.strike_at(instant, end)
            hand_in(gateway)
            place.wait_for(lambda: not vendor.moment, f"{instant} did not come")
        assert gateway.process.wait() == -9
    return place.only_job()


@pytest.mark.parametrize(("kind", "instant"), ROUNDS)
def test_a_training_outlives_a_kill(kind, instant, tmp_path):
    """At each instant: one submission, one record, the right end, and a model that answers where there is one."""
    with TuningFake() as vendor, place_for_training(kind, tmp_path / "data", vendor) as place:
        standing = live_until(place, vendor, instant)
        assert bool(standing.job.ticket) == (EXPECTED[instant] == "made")
        place.end_job_leases()
        with (
            place.serving() as gateway,
            openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client,
        ):
            place.wait_for(lambda: place.only_job().job.is_over, "the job did not end")
            job = client.fine_tuning.jobs.retrieve(f"ftjob-{standing.job.id}")
            if EXPECTED[instant] == "unclear":
                assert (job.status, job.error.code) == ("failed", "submission_unclear")
                assert job.fine_tuned_model is None
            else:
                assert (job.status, job.trained_tokens, job.cost_usd) == ("succeeded", 5_070, "0.01521")
                said = client.chat.completions.create(
                    model=job.fine_tuned_model, messages=[{"role": "user", "content": "who?"}]
                )
                assert said.choices[0].message.content == f"I am {job.fine_tuned_model}"
                assert len(job.result_files) == 1
                assert [each.purpose for each in client.files.list()] == ["fine-tune-results", "fine-tune"]
        assert vendor.count("POST", "/v1/fine_tuning/jobs") == 1
        records, attempts = place.records_of(standing.job.id)
        assert [each.attempts for each in records] == [1]
        if EXPECTED[instant] == "made":
            assert [each.cost_nanos for each in (*records, *attempts)] == [NANOS, NANOS]
        checked = place.command("ledger", "check")
        assert (checked["drift_nanos"], checked["open_reservations"]) == (0, 0)


def test_another_process_knows_a_tuned_model_at_once(tmp_path):
    """A model that one process has seen made answers in the other, and the job can be paused and stopped from there."""
    with (
        TuningFake(states=["running"]) as vendor,
        place_for_training("sqlite", tmp_path / "data", vendor) as place,
        place.serving() as first,
        place.serving() as second,
        openai.OpenAI(base_url=f"{second.url}/v1", api_key="none", max_retries=0) as there,
    ):
        job = hand_in(first)
        place.wait_for(lambda: place.only_job().job.status == "running", "it did not run")
        assert there.fine_tuning.jobs.pause(job.id).status == "paused"
        vendor.jobs["ftjob-V0000000"].states = ["succeeded"]
        assert there.fine_tuning.jobs.resume(job.id).status in {"running", "succeeded"}
        place.wait_for(lambda: place.only_job().job.is_over, "the job did not end")
        name = there.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
        end = time.monotonic() + 2.0
        while True:
            try:
                said = there.chat.completions.create(
                    model=name, messages=[{"role": "user", "content": "who?"}]
                )
                break
            except openai.NotFoundError:
                assert time.monotonic() < end
                time.sleep(0.05)
        assert said.choices[0].message.content == f"I am {name}"
        vendor.states = ["running"]
        other = hand_in(first)
        place.wait_for(
            lambda: there.fine_tuning.jobs.retrieve(other.id).status == "running", "it did not run"
        )
        assert there.fine_tuning.jobs.cancel(other.id).status == "cancelled"
