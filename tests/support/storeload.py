"""A steady load on a gateway whose store fails meanwhile, and what its callers are told.

Calls begin at a fixed rate, whatever becomes of those before: a store that is away must not slow down the others. Every
fourth call is made for a user nobody has seen, so that what the operator decided has to be read as well, and every
fifth carries an idempotency key, which has to be written. Beside them `/healthz` is asked again and again: it needs no
store, so its slowest answer shows how long the event loop was held up.
"""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp

from support.figures import full
from support.spending import Seen, callers_session, request_of

RATE = 50
"""Calls in a second."""

RETURN_S = full(15, 5)
"""Within so long a call must be answered once the store is back; the goal is 5, the rest is for busy machines."""

LONGEST_WAIT_S = 25.0
"""Less than the longest time a store is away under `make prove`. Each step has a patience of its own: 10 seconds for an
idempotency key, 3 for a reservation, 10 for a record."""

NOTICE_S = 20
SETTLE_S = 60.0
SLOWEST_HEALTH_S = 2.0
"""Far less than any wait for a store, far more than what a busy machine adds."""

KINDS = ("whole", "stream", "fall back", "whole", "leave", "cut")
_NEW_USER_EVERY = 4
_KEYED_EVERY = 5
_HEALTH_EVERY_S = 0.05
_CALM_S = 0.4
_AWAY_STATUS = 503
_PATIENCE_S = 60.0
_LEAVE_AFTER_BYTES = 300


@dataclass
class Told:
    """What a caller was told."""

    name: str
    status: int
    retry_after: str | None
    code: str | None
    after_s: float


@dataclass
class Load:
    """Callers of a gateway. `seen` is for support.spending.differences, `told` has every answer in its order.

    `returned_s` are the times it took until calls were answered again, in seconds.
    """

    session: aiohttp.ClientSession
    url: str
    keys: list[str]
    seen: dict[str, Seen] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    returned_s: list[float] = field(default_factory=list)
    slowest_health_s: float = 0.0
    health: Counter = field(default_factory=Counter)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _calls: set[asyncio.Task] = field(default_factory=set)

    @property
    def refused(self) -> list[Told]:
        """Who was not answered."""
        return [each for each in self.told if each.status != 200]

    async def call(self, kind: str = "whole", user: str = "steady") -> Told | None:
        """Make one call; None where it ended without an answer."""
        number = next(self._numbers)
        name = f"c{number:05}"
        self.seen[name] = "broken"
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        headers = {
            "content-type": "application/json",
            "authorization": f"Bearer {self.keys[-1]}",
            "x-user-id": user,
            "client_id": "load",
            "x-request-id": name,
        }
        if number % _KEYED_EVERY == 0:
            headers["idempotency-key"] = name
        body = json.dumps(request_of(name, kind))
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self.session.post(
                f"{self.url}/v1/chat/completions",
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=_PATIENCE_S),
            ) as answer:
                found = Told(name, answer.status, answer.headers.get("retry-after"), None, 0.0)
                if kind == "leave" and answer.status == 200:
                    await answer.content.read(_LEAVE_AFTER_BYTES)
                    answer.close()
                else:
                    self.seen[name] = _ended(answer, await answer.read(), found)
                found.after_s = loop.time() - began_s
                self.told.append(found)
                return found
        return None

    async def answered(self, patience_s: float) -> None:
        """Call until a call is answered."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while True:
            told = await self.call()
            if told is not None and told.status == 200:
                self.returned_s.append(loop.time() - began_s)
                return
            assert loop.time() - began_s < patience_s, f"still not answered: {told}"
            await asyncio.sleep(0.05)

    async def ready(self) -> int:
        """Return the status of `/readyz`."""
        async with self.session.get(f"{self.url}/readyz") as answer:
            return answer.status

    async def until_ready_is(self, status: int, patience_s: float) -> None:
        """Wait until `/readyz` says so."""
        async with asyncio.timeout(patience_s):
            while await self.ready() != status:
                await asyncio.sleep(0.05)

    async def _begin_calls(self) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in itertools.count():
            user = f"new-{number}" if number % _NEW_USER_EVERY == 0 else "steady"
            call = loop.create_task(self.call(KINDS[number % len(KINDS)], user))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            await asyncio.sleep(max(0.0, began_s + (number + 1) / RATE - loop.time()))

    async def _ask_health(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            async with self.session.get(f"{self.url}/healthz") as answer:
                self.health[answer.status] += 1
            self.slowest_health_s = max(self.slowest_health_s, loop.time() - began_s)
            await asyncio.sleep(_HEALTH_EVERY_S)


def _ended(answer: aiohttp.ClientResponse, data: bytes, told: Told) -> Seen:
    if answer.status != 200:
        with suppress(ValueError):
            told.code = json.loads(data)["error"]["code"]
        return "refused" if answer.status == 429 else "failed"
    if answer.content_type == "text/event-stream" and not data.endswith(b"data: [DONE]\n\n"):
        return "broken"
    return "answered"


@asynccontextmanager
async def steady_load(url: str, keys: list[str]) -> AsyncIterator[Load]:
    """Keep a load up meanwhile, and wait in the end until everybody has an answer. The last of the keys is used."""
    async with callers_session() as session:
        load = Load(session, url, keys)
        going_on = [asyncio.create_task(load._begin_calls()), asyncio.create_task(load._ask_health())]
        try:
            yield load
        finally:
            for task in going_on:
                task.cancel()
            ends = await asyncio.gather(*going_on, return_exceptions=True)
            if load._calls:
                await asyncio.wait(load._calls)
        # Whoever asks for health is never refused.
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


async def away(load: Load, fault: AbstractContextManager[object], seconds: float) -> None:
    """Let the store be away until that is told to callers and probes, and for so long; see that it goes on after."""
    await asyncio.sleep(_CALM_S)
    before = len(load.told)
    await asyncio.to_thread(fault.__enter__)
    try:
        await load.until_ready_is(503, NOTICE_S)
        async with asyncio.timeout(NOTICE_S):
            while not any(each.status == _AWAY_STATUS for each in load.told[before:]):
                await asyncio.sleep(0.05)
        await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(fault.__exit__, None, None, None)
    await load.answered(RETURN_S)
    await load.until_ready_is(200, RETURN_S)
    await asyncio.sleep(_CALM_S)


def check_told(load: Load) -> None:
    """Refusals are those of a store that is away, said to be short; the gateway's own life went on."""
    others = [each for each in load.refused if each.status != _AWAY_STATUS]
    assert others == []
    assert {each.code for each in load.refused} == {"store_unavailable"}
    assert all(each.retry_after and int(each.retry_after) >= 1 for each in load.refused)
    assert max(each.after_s for each in load.refused) < LONGEST_WAIT_S
    assert set(load.health) == {200}
    assert load.slowest_health_s < SLOWEST_HEALTH_S
