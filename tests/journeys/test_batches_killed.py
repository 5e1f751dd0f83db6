"""Batches outlive their process: another one goes on behind what is stored, and hands nothing in twice."""

import time
from functools import partial

import pytest

from llm_gate.engine.batch_held import LEASE_MS
from support.batch_vendor import BatchVendor
from support.batches import both, chat_lines, client_of, followed, hand_in, marks, place_for_batches
from support.figures import PROVES, full, proved
from support.killing import halt, kill, thaw

MODEL = "anthropic/claude-haiku-4-5"
AT_VENDOR = "openai/gpt-5-nano"
LINES = full(30, 300)
KINDS = ("sqlite", "postgresql")
MOMENTS = ("creation arrives", "creation answered")


@pytest.fixture
def vendor():
    """Return a vendor that takes its time over a call."""
    with BatchVendor(delay_s=0.1) as made:
        yield made


def wait_for(holds, within_s=20.0):
    """Look until something holds."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@proved
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_is_worked_on_outlives_a_kill(kind, vendor, tmp_path):
    """Killed in the middle, another process goes on: every line is there once, few are asked twice."""
    lines = chat_lines(LINES, MODEL)
    with place_for_batches(kind, tmp_path / "data", vendor) as place:
        with place.serving() as gateway, client_of(gateway.url) as client:
            batch = hand_in(client, lines)
            wait_for(lambda: len(place.stored_lines()) >= LINES // 3)
            kill(gateway.process)
        stored = place.stored_lines()
        assert 0 < len(stored) < LINES
        assert not any(b"You said" in sealed or b"Hello" in sealed for _, sealed in stored)
        asked_before = len(vendor.calls)
        place.end_batch_leases()
        place.end_leases()
        with place.serving() as gateway, client_of(gateway.url) as client:
            batch = followed(client, batch)
            output, errors = both(client, batch)
        assert place.stored_lines() == []
        records = [each for each in place.records() if each.request_id.startswith(batch.id)]
    assert (batch.status, errors) == ("completed", [])
    assert marks(output) == [f"line-{number}" for number in range(LINES)]
    assert [line["response"]["body"]["choices"][0]["message"]["content"] for line in output] == [
        f"You said: Hello line-{number}" for number in range(LINES)
    ]
    twice = len(vendor.calls) - LINES
    assert 0 <= twice <= 8
    assert asked_before >= len(stored)
    # What was under way at the kill is in the ledger: as unconfirmed, where its answer was not booked yet. One that was
    # announced there need not have reached the vendor.
    unconfirmed = [each for each in records if each.status == "unconfirmed"]
    assert len(vendor.calls) <= len(records) <= LINES + 8
    assert len(unconfirmed) <= 8


@proved
def test_two_processes_that_both_think_it_is_theirs(vendor, tmp_path):
    """One that was halted and comes back after another took over adds nothing: every line is there once."""
    with (
        place_for_batches("sqlite", tmp_path / "data", vendor) as place,
        place.serving() as halted,
        client_of(halted.url) as client,
    ):
        batch = hand_in(client, chat_lines(LINES, MODEL))
        wait_for(lambda: len(place.stored_lines()) >= LINES // 3)
        # Whoever is halted while it writes would keep SQLite from everybody: it is to wait for its vendor then.
        vendor.delay_s = 2.0
        time.sleep(0.7)
        halt(halted.process)
        vendor.delay_s = 0.1
        try:
            place.end_batch_leases()
            with place.serving() as gateway, client_of(gateway.url) as other:
                wait_for(lambda: len(place.stored_lines()) >= LINES // 2 or place.only_batch().is_over)
                thaw(halted.process)
                ended = followed(other, batch)
                output, errors = both(other, ended)
                time.sleep(1.5)
                again = client.batches.retrieve(batch.id)
        finally:
            thaw(halted.process)
    assert (ended.status, again.status, errors) == ("completed", "completed", [])
    assert marks(output) == [f"line-{number}" for number in range(LINES)]


@proved
@pytest.mark.parametrize(
    ("kind", "moment"), [("sqlite", "creation arrives"), ("postgresql", "creation answered")]
)
def test_a_batch_at_its_vendor_outlives_a_kill(kind, moment, vendor, tmp_path):
    """Killed over the handing in, it is not handed in twice and is charged at its bound; killed later, it ends well."""
    vendor.states = ("in_progress", "completed")
    with place_for_batches(kind, tmp_path / "data", vendor) as place:
        with place.serving() as gateway, client_of(gateway.url) as client:
            if moment == "creation arrives":
                vendor.on_create = partial(kill, gateway.process)
            batch = hand_in(client, chat_lines(4, AT_VENDOR, max_tokens=100))
            if moment == "creation arrives":
                wait_for(lambda: gateway.process.poll() is not None)
            else:
                wait_for(lambda: place.only_batch().phase == "waiting")
                kill(gateway.process)
        vendor.on_create = lambda: None
        place.end_batch_leases()
        place.end_leases()
        with place.serving() as gateway, client_of(gateway.url) as client:
            batch = followed(client, batch)
            output, _ = both(client, batch)
        records, _ = place.records_of(batch.id)
        (record,) = records
        checked = place.command("ledger", "check")
    assert len(vendor.batches) == 1
    assert (checked["drift_nanos"], checked["open_reservations"]) == (0, 0)
    if moment == "creation arrives":
        assert (batch.status, batch.errors.data[0].code) == ("failed", "submission_unclear")
        assert (record.status, record.quality) == ("unconfirmed", "upper_bound")
        assert record.cost_nanos >= 4 * 100 * 200
    else:
        assert (batch.status, len(output), record.status) == ("completed", 4, "ok")
        assert record.cost_nanos == 4 * (200 * 5 // 2 + 800 * 25 + 50 * 200)


def test_a_gateway_that_is_stopped_in_good_order(vendor, tmp_path):
    """What is under way comes to its end and is stored, the rest is left at once: nothing is asked twice."""
    with place_for_batches("sqlite", tmp_path / "data", vendor) as place:
        with place.serving() as gateway, client_of(gateway.url) as client:
            batch = hand_in(client, chat_lines(LINES, MODEL))
            wait_for(lambda: len(place.stored_lines()) >= LINES // 3)
            gateway.process.terminate()
            assert gateway.process.wait(20) in {0, -15}
        began_s = time.monotonic()
        with place.serving() as gateway, client_of(gateway.url) as client:
            batch = followed(client, batch)
            output, errors = both(client, batch)
    assert (batch.status, len(output), errors, len(vendor.calls)) == ("completed", LINES, [], LINES)
    assert PROVES or time.monotonic() - began_s < LEASE_MS / 1000
