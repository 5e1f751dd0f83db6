"""The rules of the ledger: what is held is what is open, everything ends once, and nothing is let in beyond a cap."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from llm_gate.domain.book import Balance, Book, charge
from llm_gate.domain.ledger import (
    Advance,
    Call,
    Ended,
    Expire,
    Granted,
    Hold,
    Intent,
    Missing,
    Outcome,
    Refused,
    Release,
    Reserve,
    Settle,
)
from llm_gate.domain.windows import FOREVER_MS
from support.figures import property_of

CAP = 1_000
METERS = {
    "requests_per_minute": ("requests", None),
    "text_calls": ("calls", None),
    "alpha_tokens": ("tokens", "alpha"),
    "beta_tokens": ("tokens", "beta"),
    "monthly_cost_usd": ("cost", None),
    "parallel_jobs": ("jobs", None),
}


def hold(name, amount, *, cap=CAP, start_ms=0, end_ms=10_000, user="u1"):
    meter, provider = METERS[name]
    return Hold(
        account=f"user:t/{user}|{name}|0",
        name=name,
        scope="user",
        subject=user,
        meter=meter,
        provider=provider,
        start_ms=start_ms,
        end_ms=end_ms,
        since_ms=0,
        cap=cap,
        amount=amount,
    )


def call(id_, *, user="u1", tenant="t", count=1, quote=None, at_ms=100):
    return Call(
        id=id_, tenant=tenant, application="a", user=user, key_id=None, request_id=f"req_{id_}", operation="chat",
        bucket="text", endpoint="/", made_ms=at_ms, owner="me", plan="pro", count=count, quote_id=quote,
    )  # fmt: skip


def intent(number=1, provider="alpha", tokens=100, cost=50):
    return Intent(
        number=number,
        provider=provider,
        model="m",
        started_ms=100,
        bound_tokens=tokens,
        bound_cost_nanos=cost,
    )


def outcome(number=1, provider="alpha", tokens=60, cost=30, status="ok", **more):
    return Outcome(
        number=number, provider=provider, model="m", started_ms=100, ended_ms=200, status=status, tokens=tokens,
        cost_nanos=cost, **more,
    )  # fmt: skip


class Ledger:
    """A book whose balances are made where a step needs them, and which is checked after every step."""

    def __init__(self):
        self.book = Book({})

    def __call__(self, step):
        for place, each in self.book.places([step]).items():
            self.book.balances.setdefault(place, Balance(end_ms=each.end_ms))
        result = self.book.apply(step)
        self.check()
        return result

    def check(self):
        held = defaultdict(int)
        for reservation in self.book.reservations.values():
            for each in reservation.holds:
                assert each.amount >= 0
                held[each.place] += each.amount
        used = defaultdict(int)
        for record in self.book.records:
            for each, amount in record.charges:
                assert amount >= 0
                used[each.place] += amount
        for place, balance in self.book.balances.items():
            assert (balance.held, balance.used) == (held[place], used[place])
        ended = [record.call.id for record in self.book.records]
        assert len(ended) == len(set(ended))
        assert not set(ended) & set(self.book.reservations)

    def now(self, name, user="u1"):
        balance = self.book.balances.get((f"user:t/{user}|{name}|0", 0), Balance())
        return (balance.used, balance.held)

    @property
    def state(self):
        return (
            {
                place: both
                for place, each in self.book.balances.items()
                if any(both := (each.used, each.held))
            },
            dict(self.book.reservations),
            list(self.book.records),
        )


def settle(id_, end=None, status="ok"):
    return Settle(id=id_, outcome=end, status=status, ended_ms=200)


def reserve(id_, *holds, made=None, quote=None):
    return Reserve(call=made or call(id_, quote=quote), holds=holds, intent=intent())


# --- One after the other


def test_a_call_holds_its_bound_and_pays_what_it_used():
    """What was held and not used is free again, and the record says what was charged."""
    ledger = Ledger()
    holds = [hold("text_calls", 1), hold("alpha_tokens", 100), hold("monthly_cost_usd", 50)]

    assert ledger(reserve("a", *holds)) == Granted()
    assert [ledger.now(each.name) for each in holds] == [(0, 1), (0, 100), (0, 50)]
    ended = ledger(settle("a", outcome()))

    assert ended.was_open
    assert [amount for _, amount in ended.record.charges] == [1, 60, 30]
    assert [ledger.now(each.name) for each in holds] == [(1, 0), (60, 0), (30, 0)]


def test_all_or_nothing():
    """Where one quota has no room, none is touched, and the refusal names each without, the latest reset first."""
    ledger = Ledger()
    ledger(reserve("a", hold("text_calls", 1, cap=1)))
    before = ledger.state
    minute = hold("requests_per_minute", 1, cap=0, end_ms=60_000)

    refused = ledger(reserve("b", hold("monthly_cost_usd", 5), hold("text_calls", 1, cap=1), minute))

    assert isinstance(refused, Refused)
    assert [each.hold.name for each in refused.shortages] == ["requests_per_minute", "text_calls"]
    assert [(each.used, each.held, each.wanted) for each in refused.shortages] == [(0, 0, 1), (0, 1, 1)]
    assert ledger.state == before


def test_the_last_of_a_cap_is_let_in():
    """What fits exactly is let in, and one more is not; what is free again can be held again."""
    ledger = Ledger()

    assert ledger(reserve("a", hold("monthly_cost_usd", 600))) == Granted()
    assert ledger(reserve("b", hold("monthly_cost_usd", 400))) == Granted()
    assert isinstance(ledger(reserve("c", hold("monthly_cost_usd", 1))), Refused)
    ledger(settle("a", outcome(cost=599)))
    assert ledger(reserve("c", hold("monthly_cost_usd", 1))) == Granted()


def test_a_repeated_reservation_holds_once():
    """A step that is handed in again, before or after the call's end, holds nothing more."""
    ledger = Ledger()
    step = reserve("a", hold("text_calls", 1))
    ledger(step)

    assert ledger(step) == Granted()
    assert ledger.now("text_calls") == (0, 1)
    ledger(settle("a", outcome()))
    assert ledger(step) == Granted()
    assert ledger.now("text_calls") == (1, 0)


@pytest.mark.parametrize(
    "again",
    [settle("a", outcome(cost=900)), Release(id="a"), Expire(id="a", at_ms=300)],
    ids=["settle", "release", "expire"],
)
def test_a_second_end_changes_nothing(again):
    """Whatever ends a call that has ended finds nothing to end, and says so."""
    ledger = Ledger()
    ledger(reserve("a", hold("monthly_cost_usd", 50)))
    ledger(settle("a", outcome(cost=30)))
    before = ledger.state

    assert ledger(again) == Ended(was_open=False)
    assert ledger.state == before


def test_what_was_never_sent_leaves_no_trace():
    """A release gives everything back and writes no record."""
    ledger = Ledger()
    ledger(reserve("a", hold("requests_per_minute", 1)))

    assert ledger(Release(id="a")) == Ended(was_open=True)
    assert ledger.now("requests_per_minute") == (0, 0)
    assert ledger.book.records == []


def test_a_failed_call_counts_as_a_request_and_as_no_call():
    """What came to nothing is a request all the same; its tokens and money are those it had."""
    ledger = Ledger()
    ledger(reserve("a", hold("requests_per_minute", 1), hold("text_calls", 1), hold("monthly_cost_usd", 50)))
    ledger(settle("a", outcome(tokens=0, cost=0, status="failed"), status="failed"))

    assert [ledger.now(name)[0] for name in ("requests_per_minute", "text_calls", "monthly_cost_usd")] == [
        1,
        0,
        0,
    ]


def test_a_call_counts_as_often_as_it_says():
    """Four pictures are four calls."""
    ledger = Ledger()
    ledger(reserve("a", hold("text_calls", 4), made=call("a", count=4)))
    ledger(settle("a", outcome()))

    assert ledger.now("text_calls") == (4, 0)


def test_a_dead_call_is_charged_at_the_bound_of_what_may_be_under_way():
    """An expired call pays its bound, and its record says that nobody saw the end."""
    ledger = Ledger()
    ledger(reserve("a", hold("alpha_tokens", 100), hold("monthly_cost_usd", 70)))

    record = ledger(Expire(id="a", at_ms=900)).record

    assert (record.status, record.quality, record.cost_nanos) == ("unconfirmed", "upper_bound", 50)
    assert (ledger.now("alpha_tokens"), ledger.now("monthly_cost_usd")) == ((100, 0), (50, 0))


# --- Fallback


def test_another_attempt_keeps_what_the_last_one_used():
    """Tokens stay with the provider that made them; money of both attempts is held together."""
    ledger = Ledger()
    ledger(reserve("a", hold("alpha_tokens", 100), hold("monthly_cost_usd", 80)))
    step = Advance(
        id="a",
        outcome=outcome(tokens=7, cost=3, status="failed"),
        intent=intent(2, "beta", 90, 40),
        holds=(hold("beta_tokens", 90), hold("monthly_cost_usd", 40)),
    )

    assert ledger(step) == Granted()
    assert [ledger.now(name)[1] for name in ("alpha_tokens", "beta_tokens", "monthly_cost_usd")] == [
        7,
        90,
        43,
    ]
    before = ledger.state
    assert ledger(step) == Granted()
    assert ledger.state == before
    ledger(settle("a", outcome(2, "beta", 20, 10)))
    assert [ledger.now(name) for name in ("alpha_tokens", "beta_tokens", "monthly_cost_usd")] == [
        (7, 0),
        (20, 0),
        (13, 0),
    ]


def test_an_attempt_without_room_ends_the_call_at_what_it_cost():
    """A refused fallback keeps what was held, notes how the last attempt ended, and starts nothing."""
    ledger = Ledger()
    ledger(reserve("a", hold("monthly_cost_usd", 80)))
    ledger(reserve("b", hold("monthly_cost_usd", 900)))
    step = Advance(
        id="a",
        outcome=outcome(tokens=7, cost=70, status="failed"),
        intent=intent(2, "beta", 90, 60),
        holds=(hold("monthly_cost_usd", 60), hold("beta_tokens", 5)),
    )

    refused = ledger(step)

    assert [each.hold.name for each in refused.shortages] == ["monthly_cost_usd"]
    assert ledger.now("monthly_cost_usd") == (0, 980)
    record = ledger(Expire(id="a", at_ms=900)).record
    assert (record.cost_nanos, len(record.outcomes)) == (70, 1)
    assert ledger.now("monthly_cost_usd") == (70, 900)


def test_a_fallback_of_a_call_that_has_ended_is_refused():
    """Nothing is sent for a call that the ledger does not know any more."""
    ledger = Ledger()
    step = Advance(id="a", outcome=outcome(), intent=intent(2), holds=())

    assert ledger(step) == Missing(id="a")


# --- Quotes


def quoted(ledger, amount=100, *, cap=CAP, until_ms=1_000, **who):
    made = structs.replace(call("q", **who), made_ms=0)
    holds = (hold("monthly_cost_usd", amount, cap=cap),)
    assert ledger(Reserve(call=made, holds=holds, intent=None, expires_ms=until_ms)) == Granted()


def test_calls_spend_what_their_quote_holds():
    """A call takes over what the quote holds, and only what goes beyond needs room; the rest stays held."""
    ledger = Ledger()
    quoted(ledger, 100, cap=120)

    assert isinstance(ledger(reserve("x", hold("monthly_cost_usd", 21, cap=120))), Refused)
    assert ledger(reserve("a", hold("monthly_cost_usd", 60, cap=120), quote="q")) == Granted()
    assert ledger.now("monthly_cost_usd") == (0, 100)
    assert ledger(reserve("b", hold("monthly_cost_usd", 50, cap=120), quote="q")) == Granted()
    assert ledger.now("monthly_cost_usd") == (0, 110)
    assert isinstance(ledger(reserve("c", hold("monthly_cost_usd", 11, cap=120), quote="q")), Refused)
    ledger(settle("a", outcome(cost=10)))
    ledger(Expire(id="q", at_ms=2_000))
    assert ledger.now("monthly_cost_usd") == (10, 50)
    assert [record.call.id for record in ledger.book.records] == ["a"]


def test_what_a_quote_holds_is_spendable_though_the_rest_is_overdrawn():
    """A promise stands: others' calls that cost more than was expected do not take it away."""
    ledger = Ledger()
    quoted(ledger, 100, cap=200)
    ledger(reserve("x", hold("monthly_cost_usd", 100, cap=200)))
    ledger(settle("x", outcome(cost=150)))

    assert ledger.now("monthly_cost_usd") == (150, 100)
    assert ledger(reserve("a", hold("monthly_cost_usd", 100, cap=200), quote="q")) == Granted()
    assert isinstance(ledger(reserve("b", hold("monthly_cost_usd", 1, cap=200), quote="q")), Refused)


@pytest.mark.parametrize(
    "who", [{"user": "u2"}, {"tenant": "t2"}, {"at_ms": 1_000}, {"quote": "other"}], ids=str
)
def test_a_quote_is_for_its_user_and_its_time(who):
    """Of somebody else's, unknown or overdue quotes the same is said: there is none."""
    ledger = Ledger()
    quoted(ledger)
    made = call("a", **{"quote": "q", **who})

    assert ledger(reserve("a", hold("monthly_cost_usd", 1), made=made)) == Missing(id=made.quote_id)
    assert ledger.now("monthly_cost_usd") == (0, 100)


def test_a_call_is_no_quote():
    """A call under way cannot be spent from."""
    ledger = Ledger()
    ledger(reserve("a", hold("monthly_cost_usd", 100)))

    assert ledger(reserve("b", hold("monthly_cost_usd", 1), quote="a")) == Missing(id="a")


# --- Any steps whatever

NAMES = st.sampled_from(sorted(METERS))
IDS = st.sampled_from("abcdefgh")
AMOUNTS = st.one_of(st.integers(0, 120), st.integers(0, 2 * CAP))
PROVIDERS = st.sampled_from(["alpha", "beta"])
USUAL_CAP = st.just(CAP)


@st.composite
def holds_of(draw, amounts=AMOUNTS, caps=USUAL_CAP):
    names = draw(st.lists(NAMES, unique=True, max_size=len(METERS)))
    starts = draw(st.sampled_from([0, 10_000]))
    return tuple(
        hold(name, draw(amounts), cap=draw(caps), start_ms=starts, end_ms=starts + 10_000) for name in names
    )


@st.composite
def steps(draw, amounts=AMOUNTS, caps=USUAL_CAP):
    id_, number, provider = draw(IDS), draw(st.integers(1, 3)), draw(PROVIDERS)
    kind = draw(
        st.sampled_from(["reserve", "reserve", "quote", "advance", "settle", "settle", "release", "expire"])
    )
    status = draw(st.sampled_from(["ok", "failed", "cut"]))
    end = outcome(number, provider, draw(amounts), draw(st.one_of(st.none(), amounts)), status)
    meant = intent(number, provider, draw(amounts), draw(amounts))
    match kind:
        case "reserve":
            made = call(id_, count=draw(st.integers(1, 3)), quote=draw(st.one_of(st.none(), st.none(), IDS)))
            return Reserve(call=made, holds=draw(holds_of(amounts, caps)), intent=meant)
        case "quote":
            return Reserve(
                call=call(id_),
                holds=draw(holds_of(amounts, caps)),
                intent=None,
                expires_ms=draw(st.sampled_from([50, 5_000])),
            )
        case "advance":
            return Advance(
                id=id_,
                outcome=end,
                intent=structs.replace(meant, number=number + 1),
                holds=draw(holds_of(amounts, caps)),
            )
        case "settle":
            return settle(id_, draw(st.one_of(st.none(), st.just(end))), status)
        case "release":
            return Release(id=id_)
        case _:
            return Expire(id=id_, at_ms=300)


@property_of(400, 20_000)
@given(st.lists(steps(), max_size=40))
def test_whatever_comes_held_is_what_is_open(program):
    """After any steps, what is held is what is open, what is used is what is recorded, and nothing is negative."""
    ledger = Ledger()
    for step in program:
        before = ledger.state
        id_ = step.call.id if isinstance(step, Reserve) else step.id
        was_open = id_ in ledger.book.reservations
        ended = {record.call.id for record in ledger.book.records}

        result = ledger(step)

        if isinstance(result, Refused | Missing) and isinstance(step, Reserve):
            assert ledger.state == before
        if isinstance(result, Ended):
            assert result.was_open == was_open
            assert was_open or ledger.state == before
        if isinstance(step, Reserve) and (was_open or id_ in ended):
            assert ledger.state == before


@property_of(300, 10_000)
@given(st.lists(steps(), max_size=40))
def test_whoever_pays_what_was_held_never_passes_a_cap(program):
    """Where no call uses more than it held, used and held together stay within every cap, whatever happens."""
    ledger = Ledger()
    for step in program:
        ledger(_within(step, ledger.book))
        for balance in ledger.book.balances.values():
            assert balance.used + balance.held <= CAP


def _within(step, book):
    """Make the outcome of a step one that no hold of its reservation is too small for."""
    reservation = book.reservations.get(step.id) if isinstance(step, Advance | Settle | Expire) else None
    if isinstance(step, Reserve):
        roomy = tuple(structs.replace(each, amount=max(each.amount, step.call.count)) for each in step.holds)
        return structs.replace(step, holds=roomy)
    if reservation is None or isinstance(step, Release):
        return step
    if isinstance(step, Expire):
        return Release(
            id=step.id
        )  # a bound that is larger than the holds is made up by these steps, not by admission
    if step.outcome is None:
        return step
    left = {
        each.place: each.amount - charge(each, reservation.call, reservation.outcomes)
        for each in reservation.holds
    }
    rooms = defaultdict(lambda: 0)
    for each in reservation.holds:
        if each.meter in {"tokens", "cost"} and each.provider in {None, step.outcome.provider}:
            rooms[each.meter] = left[each.place]
    calls = [left[each.place] for each in reservation.holds if each.meter in {"calls", "requests"}]
    fits = all(room >= 0 for room in calls)
    end = structs.replace(
        step.outcome,
        tokens=max(0, min(step.outcome.tokens, rooms["tokens"])) if fits else 0,
        cost_nanos=max(0, min(step.outcome.cost_nanos or 0, rooms["cost"])) if fits else 0,
    )
    return structs.replace(step, outcome=end)


HUGE = st.integers(0, 2**62)


@property_of(200, 10_000)
@given(st.lists(steps(HUGE, st.integers(0, 2**61)), max_size=30))
def test_arithmetic_is_total(program):
    """With amounts up to 2**62 nothing turns negative, and no sum loses a unit."""
    ledger = Ledger()
    for step in program:
        ledger(step)
    for balance in ledger.book.balances.values():
        assert balance.used >= 0
        assert balance.held >= 0


def test_the_window_that_never_ends_resets_last():
    """A limit of jobs under way has no reset: of several shortages it is named first."""
    ledger = Ledger()
    refused = ledger(
        reserve("a", hold("text_calls", 2, cap=1), hold("parallel_jobs", 1, cap=0, end_ms=FOREVER_MS))
    )

    assert [each.hold.name for each in refused.shortages] == ["parallel_jobs", "text_calls"]
