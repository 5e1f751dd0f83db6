"""Whatever is asked of the ledger in whatever order, it says and keeps what the plainest ledger would."""

import asyncio
import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from llm_gate.domain.ledger import Ended, Expire, Granted, Missing, Refused, Release, hold_on
from llm_gate.storage.schema import balance
from support.figures import full, proved
from support.ledger import (
    NOW_MS,
    Place,
    a_call,
    advance,
    an_intent,
    an_outcome,
    new_id,
    quotas,
    reserve,
    settle,
)
from support.plain_ledger import PlainLedger
from support.stores import KINDS, openings

EXAMPLES, STEPS = full(12, 400), full(25, 60)
PROVIDERS = ("acme", "other")
AMOUNTS = st.integers(0, 60)
BOUND_COST, BOUND_TOKENS = 25, 12
NEVER_MS = 2**50


class Machine(RuleBasedStateMachine):
    """Steps against a real store and the plain ledger; every example has a tenant of its own."""

    place: Place
    calls = Bundle("calls")
    quotes = Bundle("quotes")

    @initialize()
    def begin(self):
        self.runner = asyncio.Runner()
        self.plain = PlainLedger()
        self.tenant = new_id()
        self.at_ms = NOW_MS
        self.steps = {}
        self.numbers = {}
        self.touched = set()
        self.ledger = None
        self.start()

    def start(self):
        self.ledger = self.place.make(new_id(), sweep_s=3600.0)
        self.runner.run(self.ledger.start())

    def holds_of(self, user, provider, cost, tokens, count):
        """Return holds on everything that binds a call, and the same for the plain ledger."""
        amounts = {"cost": cost, "tokens": tokens, "calls": count, "requests": 1, "jobs": 1}
        bound = [
            *quotas(user, tenant=self.tenant, monthly_cost_usd=150, text_calls=6, parallel_jobs=3),
            *quotas(user, tenant=self.tenant, requests_per_minute=4, **{f"{provider}_tokens": 90}),
            *quotas(self.tenant, scope="tenant", tenant=self.tenant, monthly_cost_usd=220),
        ]
        held = [hold_on(quota, quota.window(self.at_ms), amounts[quota.limit.meter]) for quota in bound]
        self.touched |= {hold.place for hold in held}
        return held, {hold.place: (hold.amount, hold.cap, hold.meter, hold.provider) for hold in held}

    def submit(self, *steps):
        async def all_of_them():
            return await asyncio.gather(*(self.ledger.submit(step) for step in steps))

        return self.runner.run(all_of_them())

    def said(self, result):
        if isinstance(result, Granted):
            return "granted"
        if isinstance(result, Missing):
            return "missing"
        if isinstance(result, Ended):
            return result.was_open
        assert isinstance(result, Refused)
        for shortage in result.shortages:
            place = shortage.hold.place
            assert (shortage.used, shortage.held) == (self.plain.used(place), self.plain.held(place))
        return {shortage.hold.place for shortage in result.shortages}

    @rule(
        target=calls,
        user=st.sampled_from(["ann", "bob"]),
        provider=st.sampled_from(PROVIDERS),
        cost=AMOUNTS,
        tokens=AMOUNTS,
        count=st.integers(1, 2),
        times=st.integers(1, 3),
        quote=st.none() | quotes,
    )
    def reserve(self, user, provider, cost, tokens, count, times, quote):
        call = a_call(
            self.ledger.owner, tenant=self.tenant, user=user, count=count, made_ms=self.at_ms, quote_id=quote
        )
        held, plain = self.holds_of(user, provider, cost, tokens, count)
        intent = an_intent(1, cost=BOUND_COST, tokens=BOUND_TOKENS, provider=provider)
        step = reserve(call, held, intent=intent)
        self.steps[call.id], self.numbers[call.id] = step, (1, provider)
        # The plain ledger goes first and is asked again for each repetition, as the steps of one batch are.
        for result in self.submit(*[step] * times):
            expected = self.plain.reserve(call.id, user, count, plain, attempt=1, quote=quote)
            assert self.said(result) == expected
        return call.id

    @rule(target=quotes, user=st.sampled_from(["ann", "bob"]), cost=AMOUNTS)
    def quote(self, user, cost):
        call = a_call(self.ledger.owner, tenant=self.tenant, user=user, made_ms=self.at_ms)
        held, plain = self.holds_of(user, "acme", cost, 5, 1)
        (result,) = self.submit(reserve(call, held, intent=None, expires_ms=NEVER_MS))
        assert self.said(result) == self.plain.reserve(call.id, user, 1, plain, attempt=None)
        return call.id

    @rule(id_=calls, cost=AMOUNTS, tokens=AMOUNTS, next_cost=AMOUNTS, provider=st.sampled_from(PROVIDERS))
    def advance(self, id_, cost, tokens, next_cost, provider):
        number, before = self.numbers[id_]
        call = self.steps[id_].call
        held, plain = self.holds_of(call.user, provider, next_cost, 7, call.count)
        outcome = an_outcome(number, cost=cost, tokens=tokens, provider=before, status="failed")
        intent = an_intent(number + 1, cost=BOUND_COST, tokens=BOUND_TOKENS, provider=provider)
        step = advance(id_, outcome, intent, held)
        (result,) = self.submit(step)
        expected = self.plain.advance(id_, number, (before, tokens, cost, False), number + 1, plain)
        assert self.said(result) == expected
        self.numbers[id_] = (number + 1, provider)
        if expected == "granted":
            assert self.submit(step) == [Granted()]

    @rule(id_=calls, cost=AMOUNTS, tokens=AMOUNTS, is_ok=st.booleans(), times=st.integers(1, 2))
    def settle(self, id_, cost, tokens, is_ok, times):
        number, provider = self.numbers[id_]
        known = self.plain.calls.get(id_)
        outcome = None
        use = None
        if known is not None and known.attempt is not None:
            status = "ok" if is_ok else "failed"
            outcome = an_outcome(number, cost=cost, tokens=tokens, provider=provider, status=status)
            use = (provider, tokens, cost, is_ok)
        for result in self.submit(*[settle(id_, outcome)] * times):
            assert self.said(result) == self.plain.end(id_, "settled", number, use)

    @rule(id_=calls | quotes)
    def release(self, id_):
        (result,) = self.submit(Release(id=id_))
        assert self.said(result) == self.plain.end(id_, "released")

    @rule(id_=calls | quotes)
    def expire(self, id_):
        (result,) = self.submit(Expire(id=id_, at_ms=self.at_ms))
        assert self.said(result) == self.expire_plainly(id_)

    def expire_plainly(self, id_):
        known = self.plain.calls.get(id_)
        if known is None:
            return False
        if known.attempt is None:
            return self.plain.end(id_, "settled" if known.used else "released")
        number, provider = known.attempt, self.numbers[id_][1]
        return self.plain.end(id_, "settled", number, (provider, BOUND_TOKENS, BOUND_COST, False))

    @rule(id_=calls)
    def again(self, id_):
        """A reservation that is handed in again holds nothing more, also when the call is over."""
        step = self.steps[id_]
        known = self.plain.calls.get(id_)
        if known is None or known.state == "released":
            return
        assert self.submit(step) == [Granted()]

    @rule(minutes=st.sampled_from([1, 60 * 24 * 31]))
    def time_passes(self, minutes):
        self.at_ms += minutes * 60_000

    @rule(ids=st.lists(calls, min_size=2, max_size=6))
    def all_at_once(self, ids):
        steps = [settle(id_, None) if n % 2 else Release(id=id_) for n, id_ in enumerate(ids)]
        for n, result in enumerate(self.submit(*steps)):
            assert self.said(result) == self.plain.end(ids[n], "settled" if n % 2 else "released")

    @rule()
    def crash(self):
        """The process is gone, with its connection and its lock; the next one ends what it left."""
        self.kill()
        self.start()
        for id_, call in list(self.plain.calls.items()):
            if call.state == "open" and id_ in self.steps:
                self.expire_plainly(id_)

    def kill(self):
        writer = self.ledger._writer
        writer._leave = lambda: (writer._lose_session(), os.close(writer._files._own))
        self.runner.run(self.ledger.close())

    @invariant()
    def balances_are_the_sums(self):
        if not hasattr(self, "touched"):
            return
        question = select(balance).where(balance.c.account.contains(self.tenant))
        rows = self.place.database.ask(lambda link: list(link.execute(question)))
        kept = {(row.account, row.start_ms): (row.used, row.held) for row in rows}
        for place in self.touched | kept.keys():
            assert kept.get(place, (0, 0)) == (self.plain.used(place), self.plain.held(place)), place

    def teardown(self):
        if getattr(self, "ledger", None) is None:
            return
        open_ids = [id_ for id_, call in self.plain.calls.items() if call.state == "open"]
        self.submit(*(Release(id=id_) for id_ in open_ids))
        check = self.place.check()
        self.runner.run(self.ledger.close())
        self.ledger._database.close()
        self.runner.close()
        assert check.is_sound, check.drifts
        assert check.open_reservations == 0


@proved
@pytest.mark.parametrize("kind", KINDS)
def test_the_ledger_is_the_plain_ledger(kind, tmp_path):
    """Reserve, advance, settle, release, expire, crash, repeat, reset: always the same as the sums over lists."""
    with openings(kind, tmp_path) as again:
        place = Place(tmp_path, again)
        machine = type("OnePlace", (Machine,), {"place": place})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
