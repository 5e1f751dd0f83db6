"""What gateways tell each other through Redis: which places are left alone, and how much a deployment was given.

Nothing depends on it: where Redis does not answer, each process goes by what it knows itself. Time is that of Redis, so
that clocks of machines do not matter.
"""

from collections.abc import Mapping
from itertools import count
from secrets import token_hex

import msgspec

from llm_gate.domain.conditions import Cooling
from llm_gate.storage.redis import RedisLink

WINDOW_MS = 60_000
MAX_COOLING = 1_024
"""How many places are kept; what is told beyond that stays where it is known."""

_LONGEST_S = 86_400.0
_KNOWN_CHARS = 300
_PREFIX = "llm-gate:"
_MS_PER_S = 1_000

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
# One hash holds all that cools: what ends later replaces what ends sooner.
_TELL = (
    _NOW
    + """
local till = now + tonumber(ARGV[2])
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and tonumber(string.match(known, '^%d+') or '0') >= till then return 0 end
if not known and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', till) .. ' ' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], 172800000)
return 1
"""
)
_HEARD = (
    _NOW
    + """
local found = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local till, said = string.match(all[i + 1], '^(%d+) (.*)$')
  if not till or tonumber(till) <= now then
    redis.call('HDEL', KEYS[1], all[i])
  else
    table.insert(found, all[i])
    table.insert(found, string.format('%.0f', tonumber(till) - now))
    table.insert(found, said)
  end
end
return found
"""
)
# Requests stand one by one, tokens by tenths of a second, so that neither grows beyond its limit.
_TAKE = (
    _NOW
    + """
local window, rpm, tpm, tokens = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local wait = 0
if rpm == 0 or (tpm >= 0 and tokens > tpm) then return -1 end
if rpm >= 0 then
  -- A millisecond more, since instants are cut to it; what is from the future tells of a clock that was set back.
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window - 1)
  redis.call('ZREMRANGEBYSCORE', KEYS[1], now + window, '+inf')
  local had = redis.call('ZCARD', KEYS[1])
  if had >= rpm then
    local oldest = redis.call('ZRANGE', KEYS[1], had - rpm, had - rpm, 'WITHSCORES')
    wait = tonumber(oldest[2]) + window + 1 - now
  end
end
local slice = math.floor(now / 100)
if tpm >= 0 then
  local all = redis.call('HGETALL', KEYS[2])
  local slices, sum = {}, 0
  for i = 1, #all, 2 do
    local number = tonumber(all[i])
    if number * 100 + 100 <= now - window or number * 100 >= now + window then
      redis.call('HDEL', KEYS[2], all[i])
    else
      table.insert(slices, {number, tonumber(all[i + 1])})
      sum = sum + tonumber(all[i + 1])
    end
  end
  local missing = sum + tokens - tpm
  if missing > 0 then
    table.sort(slices, function(a, b) return a[1] < b[1] end)
    for _, each in ipairs(slices) do
      missing = missing - each[2]
      if missing <= 0 then
        wait = math.max(wait, each[1] * 100 + 100 + window - now)
        break
      end
    end
  end
end
if wait > 0 then return wait end
if rpm >= 0 then
  redis.call('ZADD', KEYS[1], now, ARGV[5])
  redis.call('PEXPIRE', KEYS[1], window + 1000)
end
if tpm >= 0 then
  redis.call('HINCRBY', KEYS[2], string.format('%.0f', slice), ARGV[4])
  redis.call('PEXPIRE', KEYS[2], window + 1000)
end
return 0
"""
)


class _Said(msgspec.Struct, frozen=True):
    code: str
    message: str
    status: int | None = None


class RedisConditions:
    """The port `SharedConditions` over Redis. `window_ms` is what limits per minute are counted in."""

    def __init__(self, link: RedisLink, *, prefix: str = _PREFIX, window_ms: int = WINDOW_MS) -> None:
        self._link = link
        self._cooling = f"{prefix}cooling"
        self._prefix = prefix
        self._window_ms = window_ms
        self._tell = link.script(_TELL)
        self._heard = link.script(_HEARD)
        self._take = link.script(_TAKE)
        self._owner = token_hex(6)
        self._serial = count()

    async def tell(self, key: str, cooling: Cooling) -> None:
        """Tell the others that a place is left alone; a shorter time changes nothing."""
        if not cooling.for_s > 0:
            return
        said = msgspec.json.encode(_Said(cooling.code, cooling.message[:_KNOWN_CHARS], cooling.status))
        for_ms = int(min(cooling.for_s, _LONGEST_S) * _MS_PER_S)
        arguments = [key, for_ms, said, MAX_COOLING]
        await self._link.guarded(lambda: self._tell(keys=[self._cooling], args=arguments))

    async def heard(self) -> Mapping[str, Cooling] | None:
        """Return what is left alone now, by key; None where Redis does not answer."""
        answer = await self._link.guarded(lambda: self._heard(keys=[self._cooling], args=[]))
        if answer is None:
            return None
        found: dict[str, Cooling] = {}
        for key, for_ms, said in zip(answer[::3], answer[1::3], answer[2::3], strict=True):
            try:
                name, known = key.decode(), msgspec.json.decode(said, type=_Said)
            except (UnicodeDecodeError, msgspec.DecodeError):
                continue  # another version may say it otherwise
            found[name] = Cooling(
                for_s=int(for_ms) / _MS_PER_S, code=known.code, message=known.message, status=known.status
            )
        return found

    async def take(self, key: str, *, rpm: int | None, tpm: int | None, tokens: int) -> float | None:
        """Count a request and its tokens within the last minute of everybody.

        Returns 0 where it was counted, else after how many seconds there is room (infinity where a request is too
        large by itself); None where Redis does not answer.
        """
        keys = [f"{self._prefix}requests:{key}", f"{self._prefix}tokens:{key}"]
        limits = [-1 if limit is None else limit for limit in (rpm, tpm)]
        arguments = [self._window_ms, *limits, tokens, f"{self._owner}-{next(self._serial)}"]
        wait_ms = await self._link.guarded(lambda: self._take(keys=keys, args=arguments))
        if wait_ms is None:
            return None
        return float("inf") if wait_ms < 0 else wait_ms / _MS_PER_S

    async def close(self) -> None:
        """Close every connection."""
        await self._link.close()
