"""Many films in the making are no burden on those who chat: every call is answered, and looks are few and paced."""

import asyncio
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp
import pytest

from support.figures import PROVES, full, proved
from support.gateway import NATIVE_HEADERS
from support.killing import MODEL, NANOS, KillingVendor, order, place_for_jobs
from support.upstream import Answer, fake_upstream
from support.wavespeed_fake import Plan

JOBS = full(80, 500)
ROUNDS, CHATS = full(2, 20), full(40, 400)
CALLERS = 4
CHAT_NANOS = 5 * 1_000 + 7 * 2_000
MOST_LAG_S = 0.25 if PROVES else 0.5
MOST_RATIO = 1.5
END_S = 15 + JOBS / 10
WINDOWS = {1.0: 60, 5.0: 170, 10.0: 310}
"""How many looks there may be within so many seconds: some at once after a rest, and then 25 a second."""

LAG = re.compile(r'^llm_gate_loop_lag_seconds\{.*quantile="0.999".*\} (\S+)$', re.MULTILINE)
SAID = Answer.json(
    {
        "id": "chat-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello."}}
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }
)
TOML = """
    [providers.talker]
    dialect = "openai"
    base_url = "{url}/v1"
    auth = {{ kind = "none" }}
    [[providers.talker.models]]
    name = "m"
    operations = ["chat"]
    prices = [
        {{ unit = "input_tokens", per = 1_000_000, usd = "1" }},
        {{ unit = "output_tokens", per = 1_000_000, usd = "2" }},
    ]
"""


@dataclass
class WatchedVendor(KillingVendor):
    """A vendor that notes when it was asked how a job stands."""

    looked_at: list[float] = field(default_factory=list)

    def look(self, task_id):
        """Note the look, and answer."""
        self.looked_at.append(time.monotonic())
        return super().look(task_id)

    def end_all(self):
        """Let every film be ready."""
        with self.lock:
            for task in self.tasks.values():
                task.plan = Plan(states=("completed",))


def cpu_s(process):
    """Return the processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def most_within(instants, seconds):
    """Return how many instants lie within so many seconds at most."""
    found = first = 0
    for last, instant in enumerate(instants):
        while instant - instants[first] > seconds:
            first += 1
        found = max(found, last - first + 1)
    return found


async def each_of(count, work):
    """Do work so often, a few at once, and return what came of it."""
    left, found = list(range(count)), []

    async def one():
        while left:
            left.pop()
            found.append(await work())

    await asyncio.gather(*(one() for _ in range(CALLERS)))
    return found


async def chatted(session, gateway):
    """Make one chat call, and return its status and text."""
    body = {"model": "talker/m", "messages": [{"role": "user", "content": "Say hello."}]}
    async with session.post(
        f"{gateway.url}/v1/chat/completions", json=body, headers=NATIVE_HEADERS
    ) as answer:
        found = await answer.json()
        return answer.status, found["choices"][0]["message"]["content"] if answer.status == 200 else found


async def handed_in(session, gateway, vendor):
    """Hand a film in, and return its job's id."""
    path, body = "/llm-gate/v1/videos", order(vendor)
    async with session.post(f"{gateway.url}{path}", json=body, headers=NATIVE_HEADERS) as answer:
        assert answer.status == 202, await answer.text()
        return (await answer.json())["id"]


async def round_of_chats(session, gateway):
    """Make a round of chats, all of which must be answered; return the processor time of each, in seconds."""
    before = cpu_s(gateway.process)
    found = await each_of(CHATS, lambda: chatted(session, gateway))
    assert found == [(200, "Hello.")] * CHATS
    return (cpu_s(gateway.process) - before) / CHATS


async def lag_s(session, gateway):
    """Return how late a gateway's event loop was, in seconds."""
    async with session.get(f"{gateway.url}/metrics") as answer:
        return max(map(float, LAG.findall(await answer.text())))


async def compared(busy, idle, vendor):
    """Chat with both gateways in turn while one has films in the making; return times of chats, and lags."""
    times = {"busy": [], "idle": []}
    async with aiohttp.ClientSession() as session:
        jobs = await each_of(JOBS, lambda: handed_in(session, busy, vendor))
        assert len(set(jobs)) == JOBS
        for gateway in (busy, idle):
            await round_of_chats(session, gateway)
        for _ in range(ROUNDS):
            times["busy"].append(await round_of_chats(session, busy))
            times["idle"].append(await round_of_chats(session, idle))
        return times, await lag_s(session, busy), await lag_s(session, idle)


@pytest.fixture
def vendor():
    """Return a vendor whose films are not ready before it is said."""
    with WatchedVendor() as made:
        made.plan(MODEL, states=("processing",))
        yield made


@proved
def test_many_jobs_are_no_burden_on_chats(vendor, tmp_path):
    """Chats are answered as ever, the loop is never late for long, and in the end every film is there and paid."""
    with (
        fake_upstream() as upstream,
        place_for_jobs("sqlite", tmp_path / "busy", vendor, TOML.format(url=upstream.url)) as place,
        place_for_jobs("sqlite", tmp_path / "idle", vendor, TOML.format(url=upstream.url)) as other,
    ):
        upstream.will(SAID)
        with place.serving() as busy, other.serving() as idle:
            times, lag, idle_lag = asyncio.run(compared(busy, idle, vendor))
            in_the_making = len(place.open_jobs())
            vendor.end_all()
            place.wait_for(lambda: not place.open_jobs(), "not every job ended", END_S)
        ratio = median(times["busy"]) / median(times["idle"])
        looks = {seconds: most_within(vendor.looked_at, seconds) for seconds in WINDOWS}
        chat_ms = {name: round(median(each) * 1000, 2) for name, each in times.items()}
        print(f"jobs {JOBS}, cpu of a chat {chat_ms} ms, ratio {ratio:.2f}")  # noqa: T201 - shown by -rP
        print(f"lag {lag:.4f} s ({idle_lag:.4f} s without jobs), most looks {looks}")  # noqa: T201

        # They were all open while the chats went on.
        assert in_the_making == JOBS
        assert lag <= MOST_LAG_S + idle_lag
        assert all(looks[seconds] <= most for seconds, most in WINDOWS.items()), looks
        if PROVES:
            assert ratio <= MOST_RATIO
        assert vendor.count(MODEL) == len(vendor.tasks) == JOBS
        assert min(vendor.looks[task] for task in vendor.tasks) >= 1
        assert sorted(word["status"] for word in vendor.told) == ["succeeded"] * JOBS
        costs = [(record.operation, record.status, record.cost_nanos) for record in place.records()]
        chats = CHATS * (ROUNDS + 1)
        assert sorted(costs) == [("chat", "ok", CHAT_NANOS)] * chats + [("video", "ok", NANOS)] * JOBS
        checked = place.command("ledger", "check")
        assert (checked["drift_nanos"], checked["open_reservations"]) == (0, 0)
