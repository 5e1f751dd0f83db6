"""Whatever a vendor does not do, nobody waits longer than a deadline says: each silence of a vendor has its own."""

import asyncio
import itertools
from collections import defaultdict

from support.faulty import running_faulty
from support.figures import PROVES, full, proved
from support.gateway import running_gateway
from support.traffic import SURFACES, quantile, say, traffic

HEADERS_S, FIRST_S, TOTAL_S = 0.5, 0.3, 1.0
IDLE_S = 0.3
CALLS = full(120, 2_000)
AT_ONCE = full(12, 20)
SLACK_S = 0.25 if PROVES else 2.0
"""What may be added to a deadline; in every run only that there is an end."""

WAITS = [
    # Surface, what the vendor does, and the deadline that ends it.
    *((surface, {"fault": "no_headers"}, HEADERS_S) for surface in SURFACES),
    ("chat stream", {"fault": "stall"}, FIRST_S),
    ("messages stream", {"fault": "comments"}, FIRST_S),
    ("native stream", {"fault": "trickle", "pause_s": 0.05}, FIRST_S),
    ("responses stream", {"fault": "stall", "after": 3}, IDLE_S),
    ("native stream", {"fault": "comments", "after": 3}, IDLE_S),
    ("chat stream", {"fault": "trickle", "after": 3, "pause_s": 0.05}, 3 * 0.05 + IDLE_S),
    ("chat", {"fault": "stall"}, HEADERS_S),
    ("messages", {"fault": "comments"}, IDLE_S),
    ("native", {"fault": "trickle", "pause_s": 0.05}, IDLE_S),
    ("chat stream", {"pause_s": 0.1, "words": 1000}, TOTAL_S),
    ("chat", {"fault": "late", "delay_s": 30}, HEADERS_S),
]


@proved
def test_every_wait_has_an_end():
    """U4 to U7 and U14, whole and streamed: the call ends with an error by its deadline."""
    waits = list(itertools.islice(itertools.cycle(WAITS), CALLS))
    with running_faulty("first") as faulty:
        toml = (
            f"[timeouts]\nheaders_s = {HEADERS_S}\nfirst_event_s = {FIRST_S}\nidle_s = {IDLE_S}\n"
            f"total_s = {TOTAL_S}\nstream_total_s = {TOTAL_S}\n" + faulty.table("first")
        )
        with running_gateway(toml=toml) as gateway:
            told = asyncio.run(_wait_for_all(gateway.url, waits))
    late_s = [each.took_s - waits[number][2] for number, each in told.items()]
    wrong = [
        (waits[number], each.outcome, each.status, each.took_s, each.body[-200:])
        for number, each in told.items()
        if each.outcome not in {"refused", "told"}
        or each.has_finish
        or each.took_s > waits[number][2] + SLACK_S
    ]
    by_kind = defaultdict(list)
    for number, each in told.items():
        surface, orders, deadline_s = waits[number]
        kind = f"{surface}: {orders.get('fault', 'slow')} {orders.get('after', '')}".strip()
        by_kind[kind].append(each.took_s - deadline_s)
    for kind, beyond_s in by_kind.items():
        say("wait", kind=kind, median_beyond_s=quantile(beyond_s, 0.5), longest_beyond_s=max(beyond_s))
    say("waits", calls=CALLS, longest_beyond_s=max(late_s), p99_s=quantile(late_s, 0.99), wrong=len(wrong))
    assert wrong[:5] == []


async def _wait_for_all(url, waits):
    async with traffic(url) as load:
        await load.together(
            len(waits),
            AT_ONCE,
            lambda n: load.call(f"wait-{n}", waits[n][0], model="first/m", **waits[n][1]),
        )
        return {int(each.name.partition("-")[2]): each for each in load.told}
