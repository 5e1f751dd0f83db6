"""One of two vendors fails, in every way it can: callers do not notice, and it gets its calls back once it is well.

Each fault has two providers of its own, of which the first has it, and an alias that leads to both; the faults of a
group run at the same time, at one gateway.
"""

import asyncio
import itertools
import time

import pytest

from support.certificates import unknown_certificate
from support.faulty import running_faulty
from support.figures import full, proved
from support.gateway import running_gateway
from support.traffic import STREAMS, SURFACES, say, traffic

SECONDS = full(2, 30)
RATE = full(6, 8)
BACK_S = 10.0
HEADS_S, TOTAL_S = 0.5, 10.0
ASKED = ("chat", "chat stream", "messages", "responses stream", "native", "native stream")

GROUPS = {
    "U1 U2": {
        "limited seconds": {"fault": "limited", "forms": ["seconds"]},
        "limited date": {"fault": "limited", "forms": ["date"]},
        "limited garbage": {"fault": "limited", "forms": ["garbage"]},
        "unavailable with patience": {"fault": "limited", "forms": ["ms"], "status": 503},
        **{f"status {status}": {"fault": "status", "status": status} for status in (500, 502, 503, 504, 529)},
    },
    "U3": {
        name: {"fault": name, "tls": name != "refuse"}
        for name in ("refuse", "tls_garbage", "tls_hang", "tls_untrusted")
    },
    "U4 U5 U6 U7": {
        **{name: {"fault": name} for name in ("no_headers", "stall", "comments", "trickle")},
        "slow stream": {"fault": "trickle", "pause_s": 0.1},
    },
    "U8 U9 U10": {name: {"fault": name} for name in ("rst", "fin", "cut", "error_event", "malformed")}
    | {"cut anywhere": {"crlf": True, "split": True}},
    "U11 U12": {
        name: {"fault": name}
        for name in ("html", "empty", "null", "wrong_type", "false_length", "bomb", "giant", "endless")
    },
    "U13 U14 U15": {
        **{f"usage {name}": {"usage": name} for name in ("missing", "null", "negative", "absurd", "twice")},
        "late": {"fault": "late", "delay_s": 2},
        "redirect": {"fault": "redirect"},
    },
}
HEAVY = {"bomb", "giant", "endless"}
HEAVY_RATE = 2
"""What is too much to be swallowed often."""

DIALECTS = ("openai", "anthropic", "gemini")


def failing(faulty, variants):
    """Return the settings: two providers for each fault, of all dialects in turn."""
    text = f"[timeouts]\ntotal_s = {TOTAL_S}\nstream_total_s = {TOTAL_S}\n"
    deadlines = ", ".join(f"{name}_s = {HEADS_S}" for name in ("connect", "headers", "first_event", "idle"))
    for index, orders in enumerate(variants.values()):
        for name in (f"bad{index}", f"good{index}"):
            text += faulty.table(
                name,
                dialect=DIALECTS[index % 3],
                tls=bool(orders.get("tls")),
                more=f"timeouts = {{ {deadlines} }}",
            )
        text += f'\n[aliases.both{index}]\ntargets = ["bad{index}/m", "good{index}/m"]\n'
    return text


@proved
@pytest.mark.parametrize("group", GROUPS)
def test_one_of_two_fails(group, tmp_path):
    """At least 999 of 1,000 calls are answered, and the healed one is asked again within 10 s."""
    variants = GROUPS[group]
    names = [f"{kind}{index}" for index in range(len(variants)) for kind in ("bad", "good")]
    with (
        running_faulty(*names, other_certificate=unknown_certificate(tmp_path)) as faulty,
        running_gateway(toml=failing(faulty, variants), resilient=True) as gateway,
    ):
        missed, back_s, tried = asyncio.run(_rounds(faulty, gateway.url, variants))
        trapped = faulty.counts()["trapped"]
    calls = RATE * SECONDS

    say(
        "masking",
        group=group,
        calls=calls,
        back_s=max(back_s.values()),
        asked=tried,
        missed=sum(map(len, missed.values())),
    )
    assert {name: found for name, found in missed.items() if len(found) > max(1, calls // 1000)} == {}
    assert max(back_s.values()) <= BACK_S
    assert trapped == 0


async def _rounds(faulty, url, variants):
    """Run every variant; return what was missed by it, how long its vendor was away, and how often it was asked."""
    async with traffic(url) as load:
        found = await asyncio.gather(
            *(_round(faulty, load, index, *each) for index, each in enumerate(variants.items()))
        )
    return [dict(zip(variants, column, strict=True)) for column in zip(*found, strict=True)]


async def _round(faulty, load, index, variant, orders):
    bad, both = f"bad{index}", f"both{index}"
    told = {name: value for name, value in orders.items() if name != "tls"}
    await asyncio.to_thread(faulty.will, bad, **told)
    surfaces = itertools.cycle(STREAMS if "stream" in variant else ASKED)
    rate = HEAVY_RATE if variant in HEAVY else RATE
    answers = await load.at_rate(
        rate, SECONDS, lambda number: load.call(f"{both}-{number}", next(surfaces), model=both)
    )
    missed = [
        (each.surface, each.outcome, each.status, each.code, round(each.took_s, 2), each.body[-300:])
        for each in answers
        if each.outcome != "answered" or (SURFACES[each.surface].is_stream and not each.has_finish)
    ]
    tried = await asyncio.to_thread(faulty.asked, bad)
    await asyncio.to_thread(faulty.heal, bad)
    healed_s = time.monotonic()
    while (await load.call(f"{both}-healed", model=both)).provider != bad:
        if time.monotonic() - healed_s > 2 * BACK_S:
            break
        await asyncio.sleep(0.1)
    return missed, time.monotonic() - healed_s, tried


BROKEN = ("rst", "fin", "cut", "error_event", "malformed", "giant", "stall", "comments", "trickle")
ROUNDS = full(1, 20)
AT_ONCE = 40


@proved
def test_what_breaks_after_its_first_event_is_never_shown_as_complete():
    """On every surface, from every dialect, by every fault: an error inside the stream, and no reason to have ended."""
    calls = [*itertools.product(STREAMS, DIALECTS, BROKEN)] * ROUNDS
    timeouts = f"[timeouts]\nheaders_s = 5.0\nfirst_event_s = 5.0\nidle_s = {HEADS_S}\ntotal_s = 20.0\n"

    async def ask_all(url):
        async with traffic(url) as load:
            await load.together(
                len(calls),
                AT_ONCE,
                lambda n: load.call(
                    f"broken-{n}", calls[n][0], model=f"{calls[n][1]}/m", fault=calls[n][2], after=2, words=4
                ),
            )
            return {int(each.name.partition("-")[2]): each for each in load.told}

    with running_faulty(*(f"my{dialect}" for dialect in DIALECTS)) as faulty:
        toml = timeouts + "".join(faulty.table(f"my{dialect}", dialect=dialect) for dialect in DIALECTS)
        calls = [(surface, f"my{dialect}", fault) for surface, dialect, fault in calls]
        with running_gateway(toml=toml) as gateway:
            told = asyncio.run(ask_all(gateway.url))
    wrong = [
        (calls[number], each.outcome, each.status, each.has_finish, each.body[-200:])
        for number, each in told.items()
        if each.outcome != "told" or each.has_finish or "wörd".encode() not in each.body
    ]

    say("broken streams", calls=len(calls), wrong=len(wrong))
    assert wrong == []
