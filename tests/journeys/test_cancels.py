"""Callers that leave, by the thousand, while they compete for few places: nothing is left behind."""

import asyncio
import json
import random
import time
from pathlib import Path

import aiohttp
import httpx

from support.figures import full, proved
from support.gateway import running_gateway
from support.upstream import Answer, fake_upstream

ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
AT_ONCE = 60
PLACES = 12


def descriptors(process_id: int) -> int:
    return len(list(Path(f"/proc/{process_id}/fd").iterdir()))


def status(url: str) -> dict:
    found = httpx.get(f"{url}/llm-gate/v1/status", timeout=10).json()
    provider = next(each for each in found["providers"] if each["name"] == "first")
    return provider["deployments"][0]["models"][0]


async def leave_early(session: aiohttp.ClientSession, url: str, chance: random.Random) -> None:
    """Ask, and leave after a while that may end anywhere: in the queue, before the head, in the body."""
    stream = chance.random() < 0.5
    body = {"model": "first/m", "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    call = asyncio.ensure_future(_ask(session, url, body))
    await asyncio.wait({call}, timeout=chance.uniform(0.0, 0.12))
    call.cancel()
    await asyncio.wait({call})
    if not call.cancelled():
        call.exception()


async def _ask(session: aiohttp.ClientSession, url: str, body: dict) -> int:
    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
        await answer.read()
        return answer.status


async def storm(url: str, count: int) -> None:
    chance = random.Random(5)  # noqa: S311 - the same storm every time
    left = iter(range(count))

    async def caller(session: aiohttp.ClientSession) -> None:
        for _ in left:
            await leave_early(session, url, chance)

    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(caller(session) for _ in range(AT_ONCE)))


@proved
def test_cancelled_calls_leave_nothing_behind():
    count = full(500, 10_000)
    body = json.dumps(ANSWER).encode()
    with fake_upstream() as first:
        first.will(Answer(body=body, delay_s=0.05, headers={"content-type": "application/json"}))
        toml = f"""
            [providers.first]
            dialect = "openai"
            base_url = "{first.url}/v1"
            auth = {{ kind = "none" }}
            max_concurrent = {PLACES}
            max_waiting = 40
            models = [{{ name = "m" }}]
        """
        with running_gateway(toml=toml) as gateway:
            asyncio.run(storm(gateway.url, 100))
            time.sleep(1.0)
            before = descriptors(gateway.process.pid)
            asyncio.run(storm(gateway.url, count))
            deadline = time.monotonic() + 20
            while (now := status(gateway.url))["under_way"] or now["waiting"]:
                assert time.monotonic() < deadline, now
                time.sleep(0.05)
            # Connections that were kept for later calls close by themselves after a quarter of a minute.
            deadline = time.monotonic() + 30
            while descriptors(gateway.process.pid) > before + 5:
                assert time.monotonic() < deadline, descriptors(gateway.process.pid)
                time.sleep(0.2)
            answers = [
                httpx.post(
                    f"{gateway.url}/v1/chat/completions",
                    json={"model": "first/m", "messages": [{"role": "user", "content": "Hello"}]},
                    timeout=10,
                )
                for _ in range(PLACES + 3)
            ]
            assert [each.status_code for each in answers] == [200] * (PLACES + 3)
            assert not any("Traceback" in line for line in gateway.log)
            assert not (Path(gateway.folder) / "core").exists()
