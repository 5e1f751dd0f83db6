"""All vendors fail: callers are told so in order, nobody makes it worse, and no wish for patience is undercut."""

import asyncio
import time

import pytest

from support.faulty import running_faulty
from support.figures import full, proved
from support.gateway import running_gateway
from support.traffic import STREAMS, WHOLE, quantile, say, traffic

RATE = full(60, 100)
SECONDS = full(3, 60)
MOST_ATTEMPTS = 1.1
ASKED = (*WHOLE, *STREAMS)
HEADERS_S, TOTAL_S = 0.3, 10.0

OUTAGES = {
    "500": ({"fault": "status", "status": 500}, {503}),
    "529 and silence": ({"fault": "no_headers"}, {503, 504}),
    "limited": ({"fault": "limited", "forms": ["seconds"], "wish_s": 20}, {429}),
    "broken answers": ({"fault": "rst"}, {502, 503}),
}
WITH_PATIENCE = {"limited"}


@proved
@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_of_everybody_is_not_made_worse(outage):
    """At most 1.1 attempts for each request, and each answer is a typed error, with Retry-After where known."""
    orders, statuses = OUTAGES[outage]
    with running_faulty("first", "second") as faulty:
        toml = (
            f"[retries]\nbudget_floor = 0\n[timeouts]\nheaders_s = {HEADERS_S}\ntotal_s = {TOTAL_S}\n"
            + faulty.table("first")
            + faulty.table("second", dialect="anthropic")
            + '\n[aliases.both]\ntargets = ["first/m", "second/m"]\n'
        )
        with running_gateway(toml=toml, resilient=True) as gateway:
            faulty.will("first", **({"fault": "status", "status": 529} if "529" in outage else orders))
            faulty.will("second", **orders)
            told = asyncio.run(_ask(gateway.url))
        counts = faulty.counts()
    attempts = counts["first"]["asked"] + counts["second"]["asked"]
    wrong = [
        (each.surface, each.outcome, each.status, each.code, each.retry_after, each.body[-200:])
        for each in told
        if each.outcome != "refused" or each.status not in statuses or not each.code
    ]
    impatient = [each.retry_after for each in told if not (each.retry_after or "").isdigit()]

    say(
        "outage",
        kind=outage,
        requests=len(told),
        attempts=attempts,
        ratio=attempts / len(told),
        slowest_s=max(each.took_s for each in told),
        median_s=quantile([each.took_s for each in told], 0.5),
        without_retry_after=len(impatient),
    )
    assert wrong[:3] == []
    assert attempts <= MOST_ATTEMPTS * len(told)
    assert outage not in WITH_PATIENCE or not impatient
    assert max(each.took_s for each in told) <= TOTAL_S + 2
    assert counts["first"]["undercut"] == counts["second"]["undercut"] == 0


async def _ask(url):
    async with traffic(url) as load:
        return await load.at_rate(
            RATE, SECONDS, lambda n: load.call(f"outage-{n}", ASKED[n % len(ASKED)], model="both")
        )


WISHES = full(150, 10_000)
MODELS = full(8, 60)
CALLERS = full(60, 200)
SHARE = 0.5
FORMS = ("seconds", "ms", "date", "google", "ms", "garbage", "hours")
PAUSE_S = 0.1
LONG_S = full(40, 1200)


@proved
def test_no_wish_for_patience_is_undercut():
    """By the vendor's own clock, in every form, from 429 and 503, for each model on its own, under load."""
    models = [f"m{number}" for number in range(MODELS)]
    with running_faulty("first", "second", "third") as faulty:
        toml = (
            "[timeouts]\ntotal_s = 4.0\n"
            + faulty.table("first", models=models)
            + faulty.table("second", models=models, dialect="gemini")
            + faulty.table("third", models=models, dialect="anthropic")
        )
        limited = {"fault": "limited", "share": SHARE, "wish_s": 0.7}
        faulty.will("first", **limited, forms=["seconds", "ms", "date", "garbage"])
        faulty.will("second", **limited, forms=["google", "ms"])
        faulty.will("third", **limited, status=503, forms=["ms", "date"])
        with running_gateway(toml=toml, resilient=True) as gateway:
            told = asyncio.run(_wish(faulty, gateway.url, models))
            # What takes hours comes last, since no call comes through after that.
            faulty.will("first", fault="limited", forms=["hours"])
            told += asyncio.run(_insist(gateway.url, models[:5]))
        counts = faulty.counts()
    figures = {
        name: sum(counts[each][name] for each in ("first", "second", "third"))
        for name in ("asked", "wishes", "crossed", "undercut")
    }

    say("wishes for patience", **figures, answered=sum(each.outcome == "answered" for each in told))
    assert figures["wishes"] >= WISHES
    assert figures["undercut"] == 0
    assert {each.outcome for each in told} <= {"answered", "refused", "told"}


async def _wish(faulty, url, models):
    """Call every model of every vendor until enough wishes were said."""
    end_s = time.monotonic() + LONG_S
    async with traffic(url) as load:
        numbers = iter(range(10**9))

        async def caller():
            while (number := next(numbers)) >= 0 and time.monotonic() < end_s and not enough.is_set():
                vendor = ("first", "second", "third")[number % 3]
                model = models[number // 3 % len(models)]
                await load.call(
                    f"wish-{number}", ("chat", "chat stream")[number % 2], model=f"{vendor}/{model}"
                )
                await asyncio.sleep(PAUSE_S)

        async def count():
            while not enough.is_set():
                counts = await asyncio.to_thread(faulty.counts)
                if sum(counts[each]["wishes"] for each in ("first", "second", "third")) >= WISHES:
                    enough.set()
                await asyncio.sleep(0.2)
                if time.monotonic() > end_s:
                    return

        enough = asyncio.Event()
        await asyncio.gather(count(), *(caller() for _ in range(CALLERS)))
        return load.told


async def _insist(url, models):
    async with traffic(url) as load:
        await load.at_rate(
            RATE, 2, lambda n: load.call(f"insist-{n}", model=f"first/{models[n % len(models)]}")
        )
        return load.told
