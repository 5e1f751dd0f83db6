"""Places from which keys were not accepted: their guesses cost the store little, their good keys pass."""

import asyncio
from secrets import token_bytes

import pytest

from llm_gate.domain.errors import NotAuthenticated, TooManyFailures
from llm_gate.domain.keys import RANDOM_BYTES, key_text
from llm_gate.engine.access import MAX_FAILURES, MAX_PROBES, Access, AccessRules
from support.issued import issuer_at

NOON_MS = 1_800_000_000_000


class Counted:
    """The real directives, and how often they were asked for a key."""

    def __init__(self, directives):
        self._directives = directives
        self.asked = 0

    def __getattr__(self, name):
        return getattr(self._directives, name)

    async def key_of(self, digest):
        self.asked += 1
        return await self._directives.key_of(digest)


def guess():
    """Return a key in the right form that was never issued."""
    return key_text(token_bytes(RANDOM_BYTES))


def test_guesses_from_a_place_that_is_shut_out_are_bounded(tmp_path):
    """In the right form, too: so many of them are looked up in a second; after a minute the place may try again."""

    async def scenario(issuer, good, late):
        now = [NOON_MS]
        directives = Counted(issuer.store.directives)
        access = Access(
            directives=directives,
            digest=issuer.store.pepper.key_hash,
            rules=AccessRules(),
            now_ms=lambda: now[0],
        )
        await access.start()

        async def refused(count):
            kinds = []
            for _ in range(count):
                with pytest.raises(NotAuthenticated) as told:
                    await access.authenticate(guess(), "there")
                kinds.append(type(told.value))
            return kinds

        assert await refused(MAX_FAILURES) == [NotAuthenticated] * MAX_FAILURES
        assert await refused(200) == [TooManyFailures] * 200
        assert directives.asked == MAX_FAILURES + MAX_PROBES
        with pytest.raises(TooManyFailures):
            await access.authenticate(good, "there")
        assert await access.authenticate(good, "elsewhere")
        assert await access.authenticate(good, "there")

        now[0] += 1_000
        assert await access.authenticate(late, "there")
        before = directives.asked
        assert await refused(200) == [TooManyFailures] * 200
        assert directives.asked == before + MAX_PROBES - 1

        now[0] += 60_000
        assert await refused(1) == [NotAuthenticated]
        await access.close()

    with issuer_at(tmp_path) as issuer:
        good, late = issuer.key("inference"), issuer.key("inference")
        asyncio.run(scenario(issuer, good, late))
