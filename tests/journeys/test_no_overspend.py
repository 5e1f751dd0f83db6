"""No overspend: however many callers, processes, aborts and fallbacks, a capped user never gets more than the cap."""

import asyncio
import json
import random

import pytest

from support.figures import full, proved
from support.oracle import running_oracle
from support.spending import (
    Callers,
    billed_nanos,
    callers_session,
    differences,
    most_nanos,
    place_to_spend,
    request_of,
    spent_nanos,
)
from support.stores import KINDS

ROUNDS = full(8, 100)
CALLERS = full(60, 500)
WORKERS = full(2, 4)
CALLS = 3 * CALLERS
BOUNDS_WITHIN_CAP = CALLERS // 10
"""So little that most callers have to be refused, whatever the calls under way turn out to cost."""

PATIENCE_S = 30.0


@proved
@pytest.mark.parametrize("kind", KINDS)
def test_a_cap_is_used_up_and_never_exceeded(kind, tmp_path):
    """In every round: billed and recorded stay within it, and a call is refused only when its bound has no room."""
    bound = most_nanos(json.dumps(request_of("r00-last-00", "whole")).encode())
    cap = bound * BOUNDS_WITHIN_CAP
    chance = random.Random(kind)  # noqa: S311 - to be the same again
    with running_oracle(tmp_path) as oracle, place_to_spend(kind, tmp_path / "data", oracle.url) as place:
        place.set_cap(cap)
        with place.serving(workers=WORKERS) as gateway:
            seen = asyncio.run(_rounds(place, gateway.url, chance))
        book = oracle.ended_attempts()
        found = differences(place, book, seen)
        wrong = []
        for number in range(ROUNDS):
            user = f"r{number:02}"
            recorded = spent_nanos(place, user)
            billed = sum(billed_nanos(each) for each in book if each.call.startswith(f"{user}-"))
            if not (billed <= recorded <= cap and cap - recorded < bound):
                wrong.append((user, billed, recorded, cap, bound))
        assert wrong == []
        assert found == []
        checked = place.command("ledger", "check")

    assert (checked["drift_nanos"], checked["open_reservations"]) == (0, 0)
    assert {"answered", "refused", "broken"} <= set(seen.values())


async def _rounds(place, url, chance):
    """Let everybody call at once, then one after the other until the cap is used up, with a new user each time."""
    seen = {}
    for number in range(ROUNDS):
        user = f"r{number:02}"
        async with callers_session() as session:
            callers = Callers(session, url)
            names = [f"{user}-{n}" for n in range(CALLS)]
            await callers.many(user, names, chance=chance, most_at_once=CALLERS)
            await place.settled(PATIENCE_S)
            last = 0
            while await callers.call(user, f"{user}-last-{last:02}", "whole") != "refused":
                last += 1
                assert last < 1000 * BOUNDS_WITHIN_CAP
            seen.update(callers.seen)
    return seen
