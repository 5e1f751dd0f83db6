"""Carries messages to the operator's webhook: no redirects, no cookies, a few seconds at most."""

from collections.abc import Mapping
from functools import cached_property

import aiohttp

from llm_gate import __version__

_TIMEOUT_S = 5.0
_CONNECTIONS = 16


class WebhookMessenger:
    """The engine's Messenger over HTTP. Its connections belong to the event loop in which it is first used."""

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            headers={"user-agent": f"llm-gate/{__version__}"},
            trust_env=False,
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int | None:
        """Send a message and return the status of the answer, of which nothing is read; None when there was none."""
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    async def close(self) -> None:
        """Close the connections."""
        if "_session" in self.__dict__:
            await self._session.close()
