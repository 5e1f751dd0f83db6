"""Batches that the gateway itself works through, line by line, at a vendor that takes none."""

import time
from contextlib import ExitStack

import pytest

from support.batch_vendor import COMPLETION_TOKENS, PROMPT_TOKENS, BatchVendor
from support.batches import both, chat_lines, client_of, followed, hand_in, marks, place_for_batches
from support.issued import issuer_at

MODEL = "anthropic/claude-haiku-4-5"
LINE_NANOS = PROMPT_TOKENS * 1_000 + COMPLETION_TOKENS * 5_000
"""A line at the normal price: 1 dollar a million in, 5 dollars out."""

PLANS = """
[plans.custom.paced.limits]
requests_per_minute = 5
[plans.custom.wide.limits]
requests_per_minute = 1000
[plans.custom.poor.limits]
monthly_cost_usd = "0.006"
[plans.custom.closed.limits]
text_calls = 0
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Run a gateway whose vendors are one fake; return that, the place of its store, the operator, the clients."""
    folder = tmp_path_factory.mktemp("house")
    with (
        BatchVendor() as made,
        place_for_batches("sqlite", folder, made, PLANS) as place,
        issuer_at(folder) as issuer,
        ExitStack() as stack,
    ):
        keys = {
            name: issuer.issue("inference", user=name) for name in ("free", "paced", "poor", "closed", "gone")
        }
        with place.serving() as gateway:
            clients = {
                name: stack.enter_context(client_of(gateway.url, key.text.reveal()))
                for name, key in keys.items()
            }
            yield made, place, (issuer, keys), clients


@pytest.fixture
def vendor(house):
    """Return the vendor, which remembers nothing."""
    house[0].forget()
    return house[0]


@pytest.fixture
def place(house):
    """Return the place of the store."""
    return house[1]


@pytest.fixture
def clients(house):
    """Return the official clients by the names of their users."""
    return house[3]


def test_a_batch_at_a_vendor_of_another_format(vendor, place, clients):
    """Each line is an ordinary call: its own record, at the normal price; the answers are in the caller's format."""
    client = clients["free"]
    batch = followed(client, hand_in(client, chat_lines(20, MODEL)))
    output, errors = both(client, batch)
    assert (batch.status, batch.model_extra["processed_by"], errors) == ("completed", "gateway", [])
    assert marks(output) == [f"line-{number}" for number in range(20)]
    body = output[7]["response"]["body"]
    assert (body["object"], body["choices"][0]["message"]["content"]) == (
        "chat.completion",
        "You said: Hello line-7",
    )
    assert body["usage"]["cost"] == LINE_NANOS / 10**9
    records = [each for each in place.records() if each.request_id.startswith(batch.id)]
    assert len({each.request_id for each in records}) == len(records) == 20
    assert {(each.cost_nanos, each.user_id, each.endpoint) for each in records} == {
        (LINE_NANOS, "free", "/v1/chat/completions")
    }
    assert round(batch.usage.model_extra["cost"] * 10**9) == 20 * LINE_NANOS
    assert vendor.most_at_once <= 8


def test_lines_that_a_vendor_refuses(vendor, clients):
    """A refusal is told in its line at once; what a vendor fails to do now and then is tried again."""
    client, tries = clients["free"], {}

    def refusal(body):
        text = str(body["messages"][-1]["content"])
        tries[text] = tries.get(text, 0) + 1
        if "line-1" in text:
            return (
                400,
                {"type": "error", "error": {"type": "invalid_request_error", "message": "not this"}},
                {},
            )
        if "line-2" in text and tries[text] == 1:
            return 529, {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, {}
        return None

    vendor.refusal = refusal
    batch = followed(client, hand_in(client, chat_lines(4, MODEL)))
    output, errors = both(client, batch)
    assert (marks(output), marks(errors)) == (["line-0", "line-2", "line-3"], ["line-1"])
    assert errors[0]["response"]["status_code"] == 400
    assert "not this" in errors[0]["response"]["body"]["error"]["message"]
    assert len(vendor.calls) == 5


def test_a_vendor_that_asks_for_patience(vendor, clients):
    """A vendor's 429 slows the batch down; no line is lost to it, and none becomes an error."""
    client, since = clients["free"], time.monotonic()

    def refusal(_):
        if time.monotonic() - since < 2.0:
            return (
                429,
                {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}},
                {"retry-after": "1"},
            )
        return None

    vendor.refusal = refusal
    batch = followed(client, hand_in(client, chat_lines(12, MODEL)))
    output, errors = both(client, batch)
    assert (batch.status, errors, len(output)) == ("completed", [], 12)
    assert len(vendor.calls) < 12 + 24


def test_a_batch_keeps_to_its_plan(vendor, place, clients):
    """With five requests a minute five lines go out, the rest wait without an error, and go on when there is room."""
    client = clients["paced"]
    place.command("users", "subscribe", "paced", "--plan", "paced")
    time.sleep(1)
    batch = hand_in(client, chat_lines(9, MODEL))
    deadline = time.monotonic() + 10
    while len(vendor.calls) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)
    waiting = client.batches.retrieve(batch.id)
    assert waiting.status == "in_progress"
    assert 5 <= len(vendor.calls) <= 10  # a minute may have ended meanwhile
    place.command("users", "subscribe", "paced", "--plan", "wide")
    batch = followed(client, waiting)
    output, errors = both(client, batch)
    assert (batch.status, errors, len(output), len(vendor.calls)) == ("completed", [], 9, 9)


def test_what_a_plan_does_not_include(vendor, place, clients):
    """Where no waiting helps, each line says so, and no vendor is asked."""
    client = clients["closed"]
    place.command("users", "subscribe", "closed", "--plan", "closed")
    time.sleep(1)
    batch = followed(client, hand_in(client, chat_lines(3, MODEL)))
    _, errors = both(client, batch)
    assert (batch.status, {line["response"]["status_code"] for line in errors}) == ("completed", {403})
    assert vendor.calls == []


def test_a_batch_that_runs_out_of_time(vendor, place, clients):
    """After a day the rest is given up: what is done is kept, and the rest is told as expired."""
    client = clients["poor"]
    place.command("users", "subscribe", "poor", "--plan", "poor")
    time.sleep(1)
    batch = hand_in(client, chat_lines(8, MODEL, max_tokens=50))
    deadline = time.monotonic() + 25
    while client.batches.retrieve(batch.id).request_counts.completed < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    place.bring_forward(batch.id)
    batch = followed(client, batch)
    output, errors = both(client, batch)
    assert (batch.status, batch.expired_at is not None) == ("expired", True)
    assert len(output) >= 1
    assert sorted(marks(output) + marks(errors)) == [f"line-{number}" for number in range(8)]
    assert {line["error"]["code"] for line in errors} == {"batch_expired"}


def test_a_batch_is_called_off(vendor, clients):
    """What is under way comes to its end, no other call begins, and what was done is readable."""
    client = clients["free"]
    vendor.delay_s = 0.3
    batch = hand_in(client, chat_lines(100, MODEL))
    while len(vendor.calls) < 10:
        time.sleep(0.02)
    shown = client.batches.cancel(batch.id)
    assert (shown.status, shown.cancelling_at is not None) == ("cancelling", True)
    batch = followed(client, shown)
    output, errors = both(client, batch)
    assert (batch.status, batch.cancelled_at is not None) == ("cancelled", True)
    assert 10 <= len(output) == len(vendor.calls) < 60
    assert len(output) + len(errors) == 100
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert batch.request_counts.completed == len(output)


def test_a_key_that_is_revoked_meanwhile(vendor, house, clients):
    """The batch stops within seconds and has failed; what was done is readable by the tenant."""
    client, (issuer, keys) = clients["gone"], house[2]
    vendor.delay_s = 0.3
    batch = hand_in(client, chat_lines(200, MODEL))
    while len(vendor.calls) < 5:
        time.sleep(0.02)
    issuer.revoke(keys["gone"])
    batch = followed(clients["free"], batch)
    output, errors = both(clients["free"], batch)
    assert (batch.status, batch.errors.data[0].code) == ("failed", "key_revoked")
    assert 5 <= len(output) == len(vendor.calls) < 150
    assert len(output) + len(errors) == 200
