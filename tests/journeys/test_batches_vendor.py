"""Batches at their vendor, a fake that speaks the recorded wire format: handed in, followed, fetched, settled."""

import json
import time

import openai
import pytest

from support.batch_vendor import (
    CACHED_TOKENS,
    COMPLETION_TOKENS,
    EMBEDDED_TOKENS,
    PROMPT_TOKENS,
    THOROUGH,
    BatchVendor,
    line_answer,
)
from support.batches import (
    EMBEDDINGS,
    both,
    chat_line,
    chat_lines,
    client_of,
    embedding_lines,
    followed,
    hand_in,
    marks,
    place_for_batches,
)

MODEL = "gpt-5-nano"
LINE_NANOS = 200 * 2_5 // 10 + 800 * 25 + 50 * 200
"""A line at the batch price: 200 cached tokens at 0.0025 dollars a million, 800 at 0.025, and 50 at 0.2 out."""


PLANS = """
[plans.custom.tight]
mode = "strict"
[plans.custom.tight.limits]
monthly_cost_usd = "0.0005"
[plans.custom.counted.limits]
requests_per_day = 100
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Run a gateway whose vendor is a fake; return that, the place of its store, and the official client."""
    with (
        BatchVendor() as made,
        place_for_batches("sqlite", tmp_path_factory.mktemp("house"), made, PLANS) as place,
        place.serving() as gateway,
        client_of(gateway.url) as client,
    ):
        yield made, place, client


@pytest.fixture
def vendor(house):
    """Return the vendor: its batches are done at the first look, and it remembers nothing."""
    house[0].forget()
    return house[0]


@pytest.fixture
def place(house):
    """Return the place of the store."""
    return house[1]


@pytest.fixture
def client(house):
    """Return the official client of the gateway."""
    return house[2]


def test_a_batch_goes_to_its_vendor_and_comes_back(vendor, place, client):
    """Upload, create, looks, download; our own ids, names and shape; one record at the batch price."""
    vendor.states = THOROUGH
    batch = hand_in(client, chat_lines(5, f"openai/{MODEL}", max_tokens=60), metadata={"job": "a"})
    assert (batch.status, batch.metadata) == ("validating", {"job": "a"})
    batch = followed(client, batch)
    output, errors = both(client, batch)
    assert (batch.status, batch.request_counts.completed, batch.model) == ("completed", 5, MODEL)
    assert (errors, marks(output)) == ([], [f"line-{number}" for number in range(5)])
    first = output[0]["response"]
    assert (first["status_code"], first["request_id"]) == (200, f"{batch.id}-1")
    assert first["body"]["choices"][0]["message"]["content"] == "You said: Hello line-0"
    assert first["body"]["usage"]["cost"] == LINE_NANOS / 10**9
    (sent,) = vendor.batches.values()
    assert sent.endpoint == "/v1/chat/completions"
    assert sent.lines[0] == {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Hello line-0"}],
            "max_tokens": 60,
        },
    }
    assert {headers["authorization"] for _, _, headers in vendor.seen} == {"Bearer sk-fake-openai-0123456789"}
    assert vendor.calls == []
    assert batch.usage.total_tokens == 5 * (PROMPT_TOKENS + COMPLETION_TOKENS)
    assert batch.usage.input_tokens_details.cached_tokens == 5 * CACHED_TOKENS


def test_what_a_batch_cost_is_the_sum_of_its_lines(vendor, place, client):
    """Record, attempt and batch show the same: each line at the batch price, added up."""
    batch = followed(client, hand_in(client, chat_lines(7, f"openai/{MODEL}")))
    lines, _ = both(client, batch)
    (record,), (attempt,) = place.records_of(batch.id)
    checked = place.command("ledger", "check")
    total = sum(round(line["response"]["body"]["usage"]["cost"] * 10**9) for line in lines)
    assert total == 7 * LINE_NANOS
    assert (record.cost_nanos, attempt.cost_nanos, record.status) == (total, total, "ok")
    assert round(batch.usage.model_extra["cost"] * 10**9) == total
    assert (record.input_tokens, record.output_tokens, record.count) == (7_000, 350, 7)
    assert json.loads(attempt.units)["cached_input_tokens"] == 7 * CACHED_TOKENS
    assert len(json.loads(attempt.prices)) == 3
    assert (checked["drift_nanos"], checked["open_reservations"]) == (0, 0)


def test_a_batch_of_embeddings(vendor, place, client):
    """Embeddings have a batch price of their own: half of 0.02 dollars a million."""
    lines = embedding_lines(3, "openai/text-embedding-3-small")
    batch = followed(client, hand_in(client, lines, EMBEDDINGS))
    output, _ = both(client, batch)
    (record,), _ = place.records_of(batch.id)
    assert output[2]["response"]["body"]["data"][1]["embedding"] == [0.5, -0.25]
    assert (record.operation, record.cost_nanos) == ("embedding", 3 * EMBEDDED_TOKENS * 10)
    assert [batch.endpoint for batch in vendor.batches.values()] == ["/v1/embeddings"]


def test_other_endpoints_are_asked_as_chats(vendor, place, client):
    """Completions and Responses have their own shape for the caller, whatever the vendor was asked in."""
    lines = [
        {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/responses",
            "body": {"model": f"openai/{MODEL}", "input": "Hello"},
        }
    ]
    (line,), _ = both(client, followed(client, hand_in(client, lines, "/v1/responses")))
    lines[0] |= {"url": "/v1/completions", "body": {"model": f"openai/{MODEL}", "prompt": "Hello"}}
    (old,), _ = both(client, followed(client, hand_in(client, lines, "/v1/completions")))
    answer = line["response"]["body"]
    assert (answer["object"], answer["output"][0]["content"][0]["text"]) == ("response", "You said: Hello")
    assert old["response"]["body"]["choices"][0]["text"] == "You said: Hello"
    assert {batch.endpoint for batch in vendor.batches.values()} == {"/v1/chat/completions"}


def test_lines_that_fail_or_expire_at_the_vendor(vendor, place, client):
    """What is answered is paid, the rest is told in the error file; nothing is lost and nothing is there twice."""
    vendor.states = ("in_progress", "expired")
    vendor.answered = lambda lines: [line_answer(line) for line in lines[:2]]
    refused = {"error": {"message": "no such thing", "type": "invalid_request_error", "code": None}}
    vendor.errored = lambda lines: [
        {
            "custom_id": lines[2]["custom_id"],
            "response": {"status_code": 400, "body": refused},
            "error": None,
        },
        {
            "custom_id": lines[3]["custom_id"],
            "response": None,
            "error": {"code": "batch_expired", "message": "It was too late."},
        },
    ]
    batch = followed(client, hand_in(client, chat_lines(5, f"openai/{MODEL}")))
    output, errors = both(client, batch)
    (record,), _ = place.records_of(batch.id)
    assert (batch.status, batch.expired_at is not None) == ("expired", True)
    assert (marks(output), marks(errors)) == (["line-0", "line-1"], ["line-2", "line-3", "line-4"])
    assert errors[0]["response"]["status_code"] == 400
    assert [line["error"] and line["error"]["code"] for line in errors] == [
        None,
        "batch_expired",
        "batch_expired",
    ]
    assert (record.cost_nanos, record.status) == (2 * LINE_NANOS, "ok")


def test_a_batch_that_its_vendor_finds_faulty(vendor, place, client):
    """The vendor's faults are shown with their lines, and nothing is charged."""
    vendor.states = ("validating", "failed")
    vendor.faults = [
        {"code": "model_not_found", "message": "no such model", "line": 2, "param": "body.model"}
    ]
    batch = followed(client, hand_in(client, chat_lines(3, f"openai/{MODEL}")))
    (record,), _ = place.records_of(batch.id)
    assert place.open_reservations() == 0
    assert (batch.status, batch.output_file_id) == ("failed", None)
    (fault,) = batch.errors.data
    assert (fault.code, fault.message, fault.line) == ("model_not_found", "no such model", 2)
    assert (record.cost_nanos, record.status) == (0, "failed")


def test_a_batch_that_its_vendor_refuses(vendor, place, client):
    """A refusal at the creation ends the batch with the vendor's words; what was held is given back."""
    vendor.create_refusal = (400, {"error": {"message": "no batches today", "type": "invalid_request_error"}})
    batch = followed(client, hand_in(client, chat_lines(3, f"openai/{MODEL}")))
    assert place.open_reservations() == 0
    (record,), _ = place.records_of(batch.id)
    assert (record.cost_nanos, record.status) == (0, "failed")
    assert batch.status == "failed"
    assert "no batches today" in batch.errors.data[0].message


def test_a_batch_at_its_vendor_is_called_off(vendor, place, client):
    """The vendor hears of it; what was done is readable and paid, and a second cancel is a conflict."""
    vendor.states = ("in_progress",)
    vendor.answered = lambda lines: [line_answer(lines[0])]
    batch = hand_in(client, chat_lines(3, f"openai/{MODEL}"))
    while not vendor.batches:
        pass
    batch = client.batches.cancel(batch.id)
    assert (batch.status, batch.cancelling_at is not None) == ("cancelling", True)
    batch = followed(client, batch)
    output, errors = both(client, batch)
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)
    (record,), _ = place.records_of(batch.id)
    assert (batch.status, len(vendor.cancelled)) == ("cancelled", 1)
    assert (marks(output), marks(errors)) == (["line-0"], ["line-1", "line-2"])
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert record.cost_nanos == LINE_NANOS


def test_a_line_without_a_count_is_estimated(vendor, place, client):
    """Where the vendor says no usage of a line, it is charged as estimated, and the record says so."""

    def without_usage(lines):
        found = [line_answer(line) for line in lines]
        del found[0]["response"]["body"]["usage"]
        return found

    vendor.answered = without_usage
    batch = followed(client, hand_in(client, chat_lines(2, f"openai/{MODEL}", max_tokens=100)))
    (record,), _ = place.records_of(batch.id)
    assert record.quality == "estimated"
    assert record.cost_nanos > LINE_NANOS + 100 * 200


def test_where_a_batch_is_worked_on_can_be_said(vendor, place, client):
    """The header chooses; a vendor that takes no batches of the model, and mixed models, are refused there."""
    here = {"x-llm-gate-batch": "gateway"}
    batch = followed(client, hand_in(client, chat_lines(2, f"openai/{MODEL}"), extra_headers=here))
    assert (batch.status, batch.model_extra["processed_by"], len(vendor.calls)) == (
        "completed",
        "gateway",
        2,
    )
    there = {"x-llm-gate-batch": "vendor"}
    mixed = [chat_line("a", f"openai/{MODEL}"), chat_line("b", "openai/gpt-5-mini")]
    for lines in (mixed, chat_lines(1, "sandbox/chat")):
        batch = followed(client, hand_in(client, lines, extra_headers=there))
        assert (batch.status, batch.errors.data[0].code) == ("failed", "batch_not_offered")
    batch = followed(client, hand_in(client, mixed))
    assert (batch.status, batch.model_extra["processed_by"]) == ("completed", "gateway")
    with pytest.raises(openai.BadRequestError, match="x-llm-gate-batch"):
        hand_in(client, chat_lines(1), extra_headers={"x-llm-gate-batch": "moon"})
    assert vendor.batches == {}


def test_a_plan_with_little_money(vendor, place, client):
    """What all lines may cost is held before: too much goes line by line, or is refused where the vendor was wanted."""
    place.command("users", "subscribe", "tight", "--plan", "tight")
    time.sleep(1)
    ours = {"X-User-Id": "tight"}
    many = chat_lines(20, f"openai/{MODEL}", max_tokens=200)
    refused = followed(client, hand_in(client, many, extra_headers={**ours, "x-llm-gate-batch": "vendor"}))
    assert (refused.status, refused.errors.data[0].code) == ("failed", "quota_exceeded")
    assert (vendor.files, place.open_reservations()) == ({}, 0)
    few = followed(client, hand_in(client, many[:2], extra_headers=ours))
    (record,), _ = place.records_of(few.id)
    assert (few.status, few.model_extra["processed_by"]) == ("completed", "vendor")
    assert (record.cost_nanos, record.user_id, record.plan) == (2 * LINE_NANOS, "tight", "tight")


def test_a_plan_that_counts_requests(vendor, place, client):
    """Where requests of a day are counted, each line counts: the gateway makes the calls."""
    place.command("users", "subscribe", "counted", "--plan", "counted")
    time.sleep(1)
    ours = {"X-User-Id": "counted"}
    batch = followed(client, hand_in(client, chat_lines(3, f"openai/{MODEL}"), extra_headers=ours))
    assert (batch.status, batch.model_extra["processed_by"], len(vendor.calls)) == ("completed", "gateway", 3)
