"""Counters of minutes and hours in Redis, shared by all processes that know its address.

Theory of operation: they stand before the ledger and save it work, but nothing depends on them. Whoever is let in here
is still asked for there; what is lost here (Redis restarted, emptied, away) is still known there. So every operation
has a tenth of a second, and after a failure Redis is left alone for a while.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from llm_gate.domain.secret import Secret

OPERATION_S = 0.1
"""How long anything may take."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 10.0
"""How long Redis is left alone after a failure: doubling, as long as it fails."""

_SLACK_MS = 60_000  # clocks differ; a counter that outlives its window harms nobody
_CONNECTIONS = 16
_PREFIX = "llm-gate:window:"

_TAKE = """
for i, key in ipairs(KEYS) do
  local used = tonumber(redis.call('GET', key) or '0')
  if used + tonumber(ARGV[3 * i - 2]) > tonumber(ARGV[3 * i - 1]) then return i end
end
for i, key in ipairs(KEYS) do
  redis.call('INCRBY', key, ARGV[3 * i - 2])
  redis.call('PEXPIREAT', key, ARGV[3 * i])
end
return 0
"""
_GIVE_BACK = """
for i, key in ipairs(KEYS) do
  local used = redis.call('GET', key)
  if used then
    local back = math.min(tonumber(used), tonumber(ARGV[i]))
    redis.call('DECRBY', key, string.format('%.0f', back))
  end
end
return 0
"""

T = TypeVar("T")

_logger = logging.getLogger("llm_gate.redis")


class RedisLink:
    """The connections to one Redis, and when it is left alone. They belong to the event loop that first uses them.

    `without` ends the log line that says it does not answer: what becomes of the work then.
    """

    def __init__(
        self,
        address: Secret,
        *,
        operation_s: float = OPERATION_S,
        clock: Callable[[], float] = monotonic,
        without: str = "the database alone counts minutes and hours",
    ) -> None:
        self._away = f"Redis does not answer: {without}"
        self._operation_s = operation_s
        self._clock = clock
        pool = BlockingConnectionPool.from_url(
            address.reveal(),
            max_connections=_CONNECTIONS,
            timeout=operation_s,
            socket_timeout=operation_s,
            socket_connect_timeout=operation_s,
            # A connection that was closed while nobody used it is noticed only when it is used.
            retry=Retry(NoBackoff(), 1),
        )
        self._redis = Redis.from_pool(pool)
        self._pause_s = 0.0
        self._skip_until_s = 0.0

    def script(self, text: str) -> Callable[..., Awaitable[Any]]:
        """Return a script as a function of its `keys` and `args`."""
        made: Callable[..., Awaitable[Any]] = self._redis.register_script(text)
        return made

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def guarded(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Ask Redis, unless it failed a moment ago; None where there is no answer."""
        now_s, pause_s = self._clock(), self._pause_s
        if now_s < self._skip_until_s:
            return None
        # Of those that come after a failure, one asks and the others go on without.
        self._skip_until_s = now_s + pause_s
        try:
            async with asyncio.timeout(self._operation_s):
                answer = await ask()
        except (RedisError, OSError, TimeoutError) as error:
            if self._pause_s == pause_s:  # else one that began with this one has noted it
                self._note_failure(error)
            return None
        if self._pause_s:
            _logger.info("Redis answers again")
        self._pause_s = self._skip_until_s = 0.0
        return answer

    def _note_failure(self, error: Exception) -> None:
        if not self._pause_s:
            _logger.warning(self._away, extra={"error": type(error).__name__})
        self._pause_s = min(max(FIRST_PAUSE_S, self._pause_s * 2), LONGEST_PAUSE_S)
        self._skip_until_s = self._clock() + self._pause_s


class RedisWindows:
    """The port `ShortWindows` over Redis."""

    def __init__(self, link: RedisLink, *, prefix: str = _PREFIX) -> None:
        self._link = link
        self._prefix = prefix
        self._take = link.script(_TAKE)
        self._give_back = link.script(_GIVE_BACK)

    async def take(self, wanted: Mapping[str, tuple[int, int, int]]) -> str | None:
        """Add amounts to counters, all or none: name → (amount, cap, end of its window in ms since 1970).

        Returns the name of the first without room, in which case nothing is added; None when all is added, or when
        Redis does not answer in time.
        """
        if not wanted:
            return None
        keys = [self._prefix + name for name in wanted]
        numbers = [
            number for amount, cap, end_ms in wanted.values() for number in (amount, cap, end_ms + _SLACK_MS)
        ]
        full = await self._link.guarded(lambda: self._take(keys=keys, args=numbers))
        return list(wanted)[full - 1] if full else None

    async def give_back(self, taken: Mapping[str, int]) -> None:
        """Take amounts off counters that are still there; none falls below zero."""
        if taken:
            keys = [self._prefix + name for name in taken]
            await self._link.guarded(lambda: self._give_back(keys=keys, args=list(taken.values())))

    async def close(self) -> None:
        """Close every connection."""
        await self._link.close()
