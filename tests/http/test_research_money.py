"""What a research costs: one quote for the whole, held before anything is sent, and settled to the nano-dollar."""

import asyncio
import json
from decimal import Decimal

import httpx
import pytest

from llm_gate import LLMGate, QuotaExceeded
from llm_gate.client.calls import caller_of, context_of
from llm_gate.domain.errors import NotAllowed
from llm_gate.domain.research import ResearchRequest
from llm_gate.engine.drafts import estimate
from llm_gate.engine.research_quote import planned
from support.figures import full
from support.researching import (
    INPUT_NANOS,
    OUTPUT_NANOS,
    PATH,
    SEARCH_NANOS,
    events_of,
    found,
    headers_of,
    page,
    research_bench,
    research_inside,
    says,
    streams,
)
from support.upstream import Answer

QUESTION = "Which licence does CPython have?"
PLAIN = {"question": QUESTION, "search": {"provider": {"name": "tavily"}, "maxResults": 2}, "maxTokens": 50}
RESEARCHES = full(50, 400)


def nanos_of(money):
    """Return an amount of a body in nano-dollars; bodies are read so that no digit is lost."""
    return int(Decimal(str(money["total"])) * 10**9)


def exact(reply):
    return json.loads(reply.content, parse_float=Decimal)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Run a gateway whose plan is strict, with room for much."""
    limits = 'monthly_cost_usd = "0.3"\ntext_calls = 100000\nsearch_calls = 100000\ntavily_calls = 100000'
    with research_bench(tmp_path_factory.mktemp("money"), limits=limits) as running:
        yield running


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_total_is_that_of_the_records(bench, is_streamed):
    """Each step's cost is its record's, and the total their sum, with nothing held afterwards."""
    user = f"sum-{is_streamed}"
    planned, answered = says("one\ntwo", read=70, written=8), ("Yes [1].", 321, 17)
    bench.search.will(found(page(1)))
    bench.chat.will(
        planned,
        streams(answered[0], read=answered[1], written=answered[2]) if is_streamed else says(*answered),
    )
    reply = bench.ask({**PLAIN, "queries": 2, "stream": is_streamed}, user=user)
    body = events_of(reply.text)[-1][1] if is_streamed else exact(reply)
    bench.settled()

    assert [(step["step"], nanos_of(step["cost"])) for step in body["steps"]] == [
        ("planning", 70 * INPUT_NANOS + 8 * OUTPUT_NANOS),
        ("searching", SEARCH_NANOS),
        ("searching", SEARCH_NANOS),
        ("answering", 321 * INPUT_NANOS + 17 * OUTPUT_NANOS),
    ]
    assert nanos_of(body["cost"]) == bench.spent_nanos(user) == 2_000_000 + 391 * 100 + 25 * 400
    assert body["usage"] == {"promptTokens": 391, "completionTokens": 25, "totalTokens": 416}
    assert [record.endpoint for record in bench.records(user)] == [PATH] * 4
    if not is_streamed:
        assert reply.headers["x-llm-gate-cost-usd"] == "0.0020491"


def test_failed_attempts_are_in_the_total(bench):
    """What a fallback's first attempt may have cost is part of its step, as it is of its record."""
    broken = Answer(headers={"content-type": "application/json"}, body=b'{"choices": ', cut=True)
    bench.search.will(found(page(1)))
    bench.chat.will(broken)
    body = exact(bench.ask({**PLAIN, "fallbacks": ["sandbox"]}, user="fallback"))
    records = bench.records("fallback")

    assert body["provider"]["name"] == "sandbox"
    assert nanos_of(body["cost"]) == bench.spent_nanos("fallback") > SEARCH_NANOS
    assert nanos_of(body["steps"][-1]["cost"]) == records[-1].cost_nanos > 0


def test_a_chat_that_fails_leaves_the_search_charged(bench):
    """What was searched is paid, the rest is given back, and the error is the vendor's."""
    bench.search.will(found(page(1)))
    bench.chat.will(Answer.json({"error": {"message": "overloaded"}}, 503))
    reply = bench.ask(PLAIN, user="fails")
    bench.settled()

    assert reply.status_code == 503
    assert [(record.operation, record.status) for record in bench.records("fails")] == [
        ("search", "ok"),
        ("chat", "failed"),
    ]
    assert bench.spent_nanos("fails") == SEARCH_NANOS


def test_a_search_that_fails_leaves_nothing_charged(bench):
    """Nobody answered: the reservation of all steps is gone."""
    bench.search.will(Answer.json({"detail": {"error": "down"}}, 500))
    bench.chat.will(says("never"))
    reply = bench.ask(PLAIN, user="unsearched")
    bench.settled()

    assert reply.status_code == 503
    assert bench.chat.seen == []
    assert bench.spent_nanos("unsearched") == 0


def test_a_caller_who_leaves_stops_everything(bench):
    """In the middle of the answer: the vendor is hung up on, what came is charged, nothing stays held."""
    bench.search.will(found(page(1)))
    bench.chat.will(streams(*["word "] * 200, pause_s=0.05))
    with httpx.stream(
        "POST",
        bench.url + PATH,
        json={**PLAIN, "stream": True},
        headers=headers_of("leaver"),
        timeout=20,
    ) as reply:
        for text in reply.iter_text():
            if '"word ' in text:
                break
    bench.settled()
    records = bench.records("leaver")

    assert [(record.operation, record.status) for record in records] == [("search", "ok"), ("chat", "cut")]
    assert records[1].cost_nanos > 0
    assert bench.chat.sent_pieces < 200


def test_a_caller_who_leaves_during_the_search(bench):
    """No answer is asked for any more, and nothing stays held."""
    bench.search.will(Answer(body=b"{}", delay_s=1.5))
    bench.chat.will(says("never"))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(bench.url + PATH, json=PLAIN, headers=headers_of("hasty"), timeout=0.4)
    bench.settled()

    assert bench.chat.seen == []
    assert [(record.operation, record.status) for record in bench.records("hasty")] == [("search", "cut")]


def test_the_call_has_one_deadline(bench):
    """What the caller gives is for all steps together."""
    bench.search.will(
        Answer(
            headers={"content-type": "application/json"},
            body=b'{"results": [{"url": "https://a.example"}]}',
            delay_s=0.5,
        )
    )
    bench.chat.will(Answer(body=says("late").body, delay_s=3.0))
    reply = bench.ask(PLAIN, user="late", x_llm_gate_timeout_ms="1000")
    bench.settled()

    assert reply.status_code == 504
    assert reply.elapsed.total_seconds() < 2.5


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_refusal_is_the_usual_one(bench, is_streamed):
    """What does not fit is a 429 that says which limit it meets with, also where a stream was asked for."""
    bench.search.will(found(page(1)))
    reply = bench.ask({**PLAIN, "maxTokens": 1_000_000, "stream": is_streamed}, user="wants")
    body = reply.json()

    assert reply.status_code == 429
    assert body["errorDetails"][0]["details"] == "quota_exceeded"
    assert (body["usageInfo"]["type"], body["usageInfo"]["operationType"]) == ("monthly_cost_usd", "chat")
    assert (bench.search.seen, bench.records("wants")) == ([], [])


@pytest.fixture
def keys(monkeypatch):
    """Give the library the vendors' keys."""
    monkeypatch.setenv("TAVILY_API_KEY", "tvly-0123456789abcdef")
    monkeypatch.setenv("TALKER_API_KEY", "talker-0123456789")


def ask_inside(inside, times=1, **options):
    """Ask for researches in this process, all at once; returns what came of each."""
    said = {"search": "tavily/", "max_results": 2, "max_tokens": 50, **options}

    async def work():
        async with LLMGate(inside.source) as gate:
            asks = [gate.research(QUESTION, user_id="ann", **said) for _ in range(times)]
            return await asyncio.gather(*asks, return_exceptions=True)

    return asyncio.run(work())


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ('monthly_cost_usd = "0.0031"', "monthly_cost"),
        ("text_calls = 1", "ai_text_generation_calls"),
        ("tavily_calls = 1", "tavily_calls"),
        ("requests_per_minute = 3", "requests_per_minute"),
        ("talker_tokens = 600", "talker_tokens"),
    ],
)
def test_what_does_not_fit_as_a_whole_is_refused_before(tmp_path, limits, name):
    """Two searches and two calls of the model need room together, or nothing is sent and nothing held."""
    with research_inside(tmp_path, limits=limits) as inside:
        (error,) = ask_inside(inside, queries=2)

        assert isinstance(error, QuotaExceeded), error
        assert error.detail["usage_info"]["type"] == name
        assert (inside.search.seen, inside.chat.seen) == ([], [])
        assert inside.left() == (0, [])


@pytest.mark.usefixtures("keys")
def test_what_a_plan_does_not_include_is_refused(tmp_path):
    """A plan without searches has no research either."""
    with research_inside(tmp_path, limits="search_calls = 0") as inside:
        (error,) = ask_inside(inside)

    assert isinstance(error, QuotaExceeded)
    assert error.detail["usage_info"]["limit"] == 0


@pytest.mark.usefixtures("keys")
def test_the_answer_is_bounded_by_what_the_model_gives(tmp_path):
    """Where nobody says how long the answer may be, it is what is usual, and no more than the model can give."""
    with research_inside(tmp_path, limits="monthly_cost_usd = 5") as inside:
        inside.search.will(found(page(1)))
        inside.chat.will(says("Yes [1]."))
        (answer,) = ask_inside(inside, max_tokens=None)
        sent = inside.chat.only.json

    assert answer.text == "Yes [1]."
    assert sent["max_tokens" if "max_tokens" in sent else "max_completion_tokens"] == 2_000


@pytest.mark.usefixtures("keys")
def test_many_at_once_never_exceed_the_cap(tmp_path):
    """Of many researches on one budget, each is done in full or refused in full; the sum stays below the cap."""
    most, each = 40_000_000, SEARCH_NANOS + 3_000 * INPUT_NANOS + 50 * OUTPUT_NANOS
    with research_inside(tmp_path, limits='monthly_cost_usd = "0.04"') as inside:
        inside.search.will(found(page(1, "x" * 1_500), page(2, "y" * 1_500)))
        inside.chat.will(says("Yes [1].", read=3_000, written=50))
        outcomes = ask_inside(inside, RESEARCHES)
        held, records = inside.left()
        done = [each for each in outcomes if not isinstance(each, Exception)]
        refused = [each for each in outcomes if isinstance(each, QuotaExceeded)]

        assert len(done) + len(refused) == RESEARCHES
        assert done
        assert refused
        assert held == 0
        assert sum(record.cost_nanos for record in records) == len(done) * each <= most
        assert sum(answer.cost_nanos for answer in done) == len(done) * each
        # Nobody who was refused had been let in halfway.
        assert len(inside.search.seen) == len(inside.chat.seen) == len(done)


@pytest.mark.usefixtures("keys")
def test_a_plan_may_allow_an_alias_alone(tmp_path):
    """What may be asked for by its alias may be researched by it, and by no other name."""
    mode = 'strict"\nallowed_models = ["good", "find"] #'
    aliases = '[aliases.good]\ntargets = ["talker/m"]\n[aliases.find]\ntargets = ["tavily/tavily-search"]\n'
    with research_inside(tmp_path, limits=f"monthly_cost_usd = 5\n{aliases}", mode=mode) as inside:
        inside.search.will(found(page(1)))
        inside.chat.will(says("Yes [1]."))
        (answer,) = ask_inside(inside, model="good", search="find")
        (refused,) = ask_inside(inside, model="talker/m", search="find")

    assert (answer.text, answer.cost_nanos > SEARCH_NANOS) == ("Yes [1].", True)
    assert isinstance(refused, NotAllowed)


@pytest.mark.usefixtures("keys")
def test_what_is_quoted_is_enough(tmp_path):
    """A budget of just what all steps are quoted at lets the largest pages through, one nano-dollar less nothing."""
    huge = "\U0001f600" * 20_000
    with research_inside(tmp_path / "any", limits='monthly_cost_usd = "1"') as inside:
        quoted = quote_of(inside)
    for cap, is_enough in ((quoted, True), (quoted - Decimal("0.000000001"), False)):
        folder = tmp_path / str(is_enough)
        with research_inside(folder, limits=f'monthly_cost_usd = "{cap}"') as inside:
            inside.search.will(found(*(page(number, huge, title=huge) for number in range(1, 3))))
            inside.chat.will(says("a" * 900 + "\nb\nc"), says("Yes [1]."))
            (outcome,) = ask_inside(inside, queries=3)
            assert isinstance(outcome, QuotaExceeded) != is_enough, outcome
            assert bool(inside.chat.seen) == is_enough


def quote_of(inside):
    """Return what a research of three queries is quoted at, in dollars."""

    async def work():
        async with LLMGate(inside.source) as gate:
            engine = gate.gateway.gate
            request = ResearchRequest(
                question=QUESTION, search_model="tavily/", max_results=2, max_output_tokens=50, queries=3
            )
            context = context_of(caller_of("ann"), "test")
            plan = await planned(engine, request, "0" * 32, context)
            standing = await engine.access.standing(context.caller)
            on = context.received_at.date()
            return sum(
                estimate(each, engine.directory, standing.plan, on).cost.max_nanos for each in plan.asked
            )

    return Decimal(asyncio.run(work())) / 10**9


def test_the_callers_own_quote_is_spent_from(bench):
    """With `x-llm-gate-quote` nothing else is held, and what is left stays in that quote."""
    asked = {
        "operations": [
            {"operation": "search", "provider": {"name": "tavily"}},
            {"operation": "chat", "provider": {"name": "talker"}, "inputTokens": 20_000, "maxTokens": 50},
        ],
        "reserve": True,
    }
    quoted = httpx.post(
        f"{bench.url}/llm-gate/v1/quotes", json=asked, headers=headers_of("quoter"), timeout=10
    ).json()
    bench.search.will(found(page(1)))
    bench.chat.will(says("Yes [1]."))
    reply = bench.ask(PLAIN, user="quoter", x_llm_gate_quote=quoted["quoteId"])
    left = httpx.get(
        f"{bench.url}/llm-gate/v1/quotes/{quoted['quoteId']}", headers=headers_of("quoter"), timeout=10
    )

    assert reply.status_code == 200
    assert left.status_code == 200
    assert {hold["limit"]: hold["amount"] for hold in left.json()["holds"]}["tavily_calls"] == 0
    assert bench.open_reservations() == 1
    httpx.delete(
        f"{bench.url}/llm-gate/v1/quotes/{quoted['quoteId']}", headers=headers_of("quoter"), timeout=10
    )
    bench.settled()


@pytest.mark.parametrize("user", ["nobody", "ann"])
def test_a_quote_that_is_not_open_is_refused(bench, user):
    """Before anything is sent."""
    bench.search.will(found(page(1)))
    reply = bench.ask(PLAIN, user=user, x_llm_gate_quote="not-a-quote")

    assert (reply.status_code, bench.search.seen) == (404, [])
