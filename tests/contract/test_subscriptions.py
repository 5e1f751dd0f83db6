"""Who holds which plan since when, and the history of it, on every store."""

from asyncio import run
from datetime import UTC, datetime
from itertools import count

import pytest

from llm_gate.domain.access import VirtualKey
from llm_gate.domain.errors import InvalidRequest, NotAllowed, NotFound
from llm_gate.domain.plans import Plan
from llm_gate.domain.windows import milliseconds
from llm_gate.engine.keys import Authority
from llm_gate.engine.subscriptions import Subscriptions, renewal_kind
from llm_gate.storage.administration import StoredAdministration
from llm_gate.storage.directives import StoredDirectives
from llm_gate.storage.plans import seed_plans
from llm_gate.storage.reports import StoredReports
from support.stores import KINDS, any_database


def at(*date):
    return milliseconds(datetime(*date, tzinfo=UTC))


class Subscribing:
    def __init__(self, database):
        seed_plans(database, 1)
        self.now_ms = at(2027, 1, 31, 10)
        self.directives = StoredDirectives(database)
        self.administration = StoredAdministration(database)
        serial = count()
        self.use = Subscriptions(
            directives=self.directives,
            administration=self.administration,
            usage=StoredReports(database),
            default_plan="unlimited",
            now_ms=lambda: self.now_ms,
            new_id=lambda: f"{next(serial):06d}",
        )

    def history(self, user):
        lines, total = run(self.administration.renewals("default", user))
        assert total == len(lines)
        return lines


@pytest.fixture(params=KINDS)
def it(request, tmp_path):
    with any_database(request.param, tmp_path) as database:
        yield Subscribing(database)


def test_a_first_subscription_begins_now(it):
    """A monthly term ends on the same day of the next month, or its last; the user was told what applied before."""
    assert run(it.use.status("ann")).plan.name == "unlimited"
    change = run(it.use.subscribe("ann", "pro"))
    status = run(it.use.status("ann"))

    assert change.subscription.start_ms == it.now_ms
    assert change.subscription.term_end_ms == at(2027, 2, 28, 10)
    assert (change.renewal.kind, change.renewal.number, change.renewal.previous_plan) == ("new", 0, None)
    assert change.renewal.payment_nanos == 79 * 10**9
    assert change.renewal.usage_before is None
    assert (status.plan.name, status.subscription, status.has_lapsed) == ("pro", change.subscription, False)
    assert (status.period_start_ms, status.period_end_ms) == (it.now_ms, at(2027, 2, 28, 10))


def test_each_change_makes_a_line_of_history(it):
    """Kinds follow the order of the tiers, the count grows, and each line knows what it followed and its price."""
    for plan, cycle in (
        ("basic", "monthly"),
        ("basic", "monthly"),
        ("enterprise", "yearly"),
        ("free", "monthly"),
        ("unlimited", "monthly"),
    ):
        run(it.use.subscribe("ann", plan, cycle=cycle))
        it.now_ms += 86_400_000
    lines = it.history("ann")[::-1]

    assert [line.kind for line in lines] == ["new", "renewal", "upgrade", "downgrade", "renewal"]
    assert [line.number for line in lines] == [0, 1, 2, 3, 4]
    assert [line.previous_plan for line in lines] == [None, "basic", "basic", "enterprise", "free"]
    assert [line.payment_nanos // 10**9 for line in lines] == [29, 29, 1990, 0, 0]
    assert lines[2].end_ms == at(2028, 2, 2, 10)
    assert (lines[3].previous_start_ms, lines[3].previous_end_ms) == (lines[2].start_ms, lines[3].start_ms)
    assert lines[3].usage_before["requests"] == 0
    assert lines[3].previous_plan_tier == "enterprise"


def test_a_cancelled_subscription_ends_with_its_term(it):
    """It holds until then, lapses after, and can be resumed; it is still the same subscription, and no new line."""
    made = run(it.use.subscribe("ann", "basic")).subscription
    it.now_ms = at(2027, 3, 5)
    cancelled = run(it.use.set_renewal("ann", auto_renew=False))

    assert (cancelled.id, cancelled.start_ms, cancelled.auto_renew) == (made.id, made.start_ms, False)
    assert cancelled.term_end_ms == at(2027, 3, 31, 10)
    assert not run(it.use.status("ann")).has_lapsed
    it.now_ms = at(2027, 3, 31, 10)
    assert run(it.use.status("ann")).has_lapsed
    run(it.use.set_renewal("ann", auto_renew=True))
    assert not run(it.use.status("ann")).has_lapsed
    assert len(it.history("ann")) == 1


def test_what_cannot_be_is_refused(it):
    """An unknown plan is answered with those there are; a user's id must be one; nobody cancels what is not held."""
    with pytest.raises(NotFound, match=r"'gold'; there are free, unlimited, basic, pro, enterprise"):
        run(it.use.subscribe("ann", "gold"))
    for user in ("", " ", "a\nb", "x" * 257):
        with pytest.raises(InvalidRequest):
            run(it.use.subscribe(user, "pro"))
    with pytest.raises(NotFound):
        run(it.use.set_renewal("ann", auto_renew=False))
    admin = VirtualKey(
        id="k", digest=b"", prefix="", tenant="t", application="a", scopes=frozenset({"admin"})
    )
    with pytest.raises(NotAllowed):
        run(it.use.subscribe("ann", "pro", authority=Authority(key=admin)))
    change = run(it.use.subscribe("ann", "pro", tenant="t", authority=Authority(key=admin)))
    assert change.subscription.tenant == "t"
    assert run(it.administration.audit("t"))[0].actor == "k"
    assert run(it.use.status("ann")).subscription is None


def test_plans_outside_the_known_tiers_are_compared_by_price():
    """Where a tier has no place in the order, the dearer plan is the upgrade."""

    def plan(name, tier, nanos):
        return Plan(name=name, label=name, tier=tier, price_monthly_nanos=nanos)

    own = plan("own", "custom", 50)
    assert renewal_kind(own, plan("x", "pro", 60)) == "upgrade"
    assert renewal_kind(own, plan("x", "enterprise", 40)) == "downgrade"
    assert renewal_kind(own, plan("x", "custom", 50)) == "renewal"
    assert renewal_kind(plan("x", "pro", 1), plan("y", "basic", 99)) == "downgrade"
    assert renewal_kind(None, own) == "renewal"
