"""The vendor's side of batches against what a real vendor sent: every recorded exchange is read."""

import json
from datetime import date
from fractions import Fraction
from functools import partial

import pytest

from llm_gate.catalog.loader import load_catalog
from llm_gate.dialects.openai import provider
from llm_gate.domain.errors import BadProviderResponse, InvalidRequest
from llm_gate.domain.pricing import Price, batch_prices
from llm_gate.domain.provider import BatchLine, Facts, HttpReply, HttpRequest, Ticket
from llm_gate.providers import azure_openai
from support.recorded import parametrize, recordings
from support.targets import make_target

CODEC = provider.batches
ROOT = "https://api.openai.com"
FACTS = Facts(now_s=0.0, token="f" * 32)
RECORDED = recordings("openai", "batches")
RUNS = [each for each in RECORDED if len(each.interactions) > 5]


@pytest.fixture
def target():
    """Return a place at the vendor."""
    return make_target(provider="openai", base_url=f"{ROOT}/v1", model="gpt-5-nano")


def reply_of(interaction):
    """Return the recorded answer."""
    return HttpReply(status=interaction.status, headers=interaction.headers, body=interaction.body)


def ask(exchanges, interaction):
    """Drive an exchange with one recorded answer; return the request and the result."""
    sent = next(exchanges).request
    with pytest.raises(StopIteration) as end:
        exchanges.send(reply_of(interaction))
    return sent, end.value.value


def lines_of(interaction):
    """Return the lines of a recorded upload, as we would send them."""
    texts = [line for line in interaction.request["body"].splitlines() if line.startswith('{"custom_id"')]
    found = [json.loads(text) for text in texts]
    return found, [
        BatchLine(
            mark=each["custom_id"],
            call=HttpRequest(method="POST", url=ROOT + each["url"], body=json.dumps(each["body"]).encode()),
        )
        for each in found
    ]


@parametrize("recording", RUNS)
def test_a_whole_run(recording, target):
    """What we send is what the recorded client sent, and what came back is understood, from the first look on."""
    upload, create, *looks, content = recording.interactions
    asked, lines = lines_of(upload)
    sent, file_id = ask(CODEC.upload(lines, target, FACTS), upload)
    assert (sent.method, sent.url) == ("POST", upload.request["url"])
    ours = [json.loads(line) for line in sent.body.decode().splitlines() if line.startswith('{"custom_id"')]
    assert ours == asked
    sent, ticket = ask(CODEC.create(file_id, lines, target, FACTS), create)
    assert (sent.method, sent.url) == ("POST", create.request["url"])
    assert json.loads(sent.body) == create.request["body"]
    states = []
    for look in looks:
        sent, view = ask(CODEC.look(ticket, target, FACTS), look)
        assert (sent.method, sent.url) == ("GET", look.request["url"])
        states.append(view.status)
    assert (states[0], states[-1], view.counts) == ("queued", "completed", (2, 2, 0))
    assert set(states) <= {"queued", "running", "finalizing", "completed"}
    (output,) = view.files
    fetched = CODEC.fetch(output, target)
    assert (fetched.method, fetched.url) == ("GET", content.request["url"])
    answers = [CODEC.read(line, target) for line in content.body.splitlines() if line.strip()]
    assert [(each.mark, each.reply.status) for each in answers] == [("0", 200), ("1", 200)]
    assert {json.loads(each.reply.body)["object"] for each in answers} <= {"response", "list"}


@parametrize("recording", [each for each in RECORDED if len(each.interactions) == 1])
def test_single_exchanges(recording, target):
    """A creation, a look and a cancel are understood."""
    (interaction,) = recording.interactions
    batch_id = json.loads(interaction.body)["id"]
    ticket = Ticket(id=batch_id)
    if interaction.request["url"].endswith("/batches"):
        lines = [
            BatchLine(
                mark="1", call=HttpRequest(method="POST", url="https://h/v1/chat/completions", body=b"{}")
            )
        ]
        sent, made = ask(CODEC.create("file-x", lines, target, FACTS), interaction)
        assert made.id == batch_id
    elif interaction.request["url"].endswith("/cancel"):
        sent, _ = ask(CODEC.cancel(ticket, target, FACTS), interaction)
    else:
        sent, view = ask(CODEC.look(ticket, target, FACTS), interaction)
        assert view.status == "queued"
    assert (sent.method, sent.url) == (interaction.request["method"], interaction.request["url"])


def test_lines_that_have_no_answer(target):
    """An error in a reply's place is told with its code; what is no line at all is the vendor's fault."""
    lost = {"custom_id": "7", "response": None, "error": {"code": "batch_expired", "message": "too late"}}
    answer = CODEC.read(json.dumps(lost).encode(), target)
    assert (answer.mark, answer.reply, answer.code, answer.message) == (
        "7",
        None,
        "batch_expired",
        "too late",
    )
    for text in (b"{}", b"<html>", b'{"custom_id": 5}'):
        with pytest.raises(BadProviderResponse):
            CODEC.read(text, target)


def test_lines_of_two_kinds(target):
    """Chats and embeddings do not go into one batch."""
    call = partial(HttpRequest, method="POST", body=b"{}")
    lines = [
        BatchLine(mark="1", call=call(url="https://h/v1/chat/completions")),
        BatchLine(mark="2", call=call(url="https://h/v1/embeddings")),
    ]
    with pytest.raises(InvalidRequest):
        next(CODEC.upload(lines, target, FACTS))


def test_how_azure_writes_it():
    """Under a dated version the addresses carry it and belong to no deployment; calls are named without a version."""
    azure = make_target(
        provider="azure_openai",
        codecs=azure_openai.provider,
        base_url="https://r.openai.azure.com",
        model="gpt-4o",
        api_version="2024-10-21",
    )
    codec = azure.deployment.codecs.batches
    lines = [
        BatchLine(mark="1", call=HttpRequest(method="POST", url="https://h/chat/completions?a=b", body=b"{}"))
    ]
    sent = next(codec.upload(lines, azure, FACTS)).request
    assert sent.url.endswith("/openai/files?api-version=2024-10-21")
    assert b'"url":"/chat/completions"' in sent.body
    created = next(codec.create("file-x", lines, azure, FACTS)).request
    assert created.url.endswith("/openai/batches?api-version=2024-10-21")
    assert json.loads(created.body)["endpoint"] == "/chat/completions"
    looked = next(codec.look(Ticket(id="batch_1"), azure, FACTS)).request
    assert looked.url.endswith("/openai/batches/batch_1?api-version=2024-10-21")


def test_how_azure_writes_it_without_a_date():
    """Under the v1 API the addresses have no date."""
    azure = make_target(
        provider="azure_openai", codecs=azure_openai.provider, base_url="https://r.openai.azure.com/openai/v1"
    )
    looked = next(azure_openai.provider.batches.look(Ticket(id="batch_1"), azure, FACTS)).request
    assert looked.url == "https://r.openai.azure.com/openai/v1/batches/batch_1"


def test_prices_of_batches():
    """Models with a published batch price have it, in full; those without are priced as any call."""
    models = load_catalog().providers["openai"].models
    prices = {
        (each.unit, each.condition): each.nanos / each.per for each in models["gpt-5-nano"].batch_prices
    }
    assert prices == {
        ("input_tokens", None): 25,
        ("cached_input_tokens", None): 2.5,
        ("output_tokens", None): 200,
    }
    assert {each.nanos / each.per for each in models["gpt-4o"].batch_prices} == {1_250, 5_000}
    assert [each.nanos / each.per for each in models["text-embedding-3-large"].batch_prices] == [65]
    assert models["text-embedding-ada-002"].batch_prices == ()
    assert all(
        each.condition is None or not each.condition.batch for each in models["gpt-6-luna"].batch_prices
    )
    long = [each for each in models["gpt-6-luna"].batch_prices if each.condition is not None]
    assert {each.condition.above_input_tokens for each in long} == {272_000}
    assert not load_catalog().providers["azure_openai"].spec.batches
    assert load_catalog().providers["openai"].spec.batches


def test_which_price_holds_in_a_batch():
    """Its own from its first day on, unit by unit; before that day, and for other units, the usual one."""

    def price(name, unit, since=None):
        return Price(id=name, unit=unit, per=1, nanos=Fraction(1), since=since)

    usual = (
        price("in", "input_tokens"),
        price("cached", "cached_input_tokens"),
        price("out", "output_tokens"),
    )
    cheap = (price("cheap", "input_tokens", date(2026, 10, 14)),)
    before = {each.id for each in batch_prices(usual, cheap, date(2026, 10, 13))}
    after = {each.id for each in batch_prices(usual, cheap, date(2026, 10, 14))}
    assert (before, after) == ({"in", "cached", "out"}, {"cheap", "cached", "out"})
