"""Sends requests to providers over HTTP: one pooled client, no redirects, bounded answers, no cookies."""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import formatdate
from functools import cached_property
from math import inf
from time import monotonic
from typing import TypeVar

import aiohttp

from llm_gate import __version__
from llm_gate.domain.errors import (
    BadProviderResponse,
    GateFault,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
)
from llm_gate.domain.ports import StreamReply
from llm_gate.domain.provider import Deployment, HttpReply, HttpRequest
from llm_gate.transport.auth import auth_headers
from llm_gate.transport.local import now_s, open_local

E = TypeVar("E", bound=ProviderError)

MAX_REPLY_BYTES = 64 * 1024 * 1024
"""The largest complete answer that is taken; streams are bounded per event by their parser instead."""

# Shorter than the idle time of the vendors' own load balancers, so that a pooled connection is rarely stale.
_KEEP_ALIVE_S = 15.0
_MAX_TIMEOUTS = 1_000


class Upstream:
    """The Transport of a running gateway. Must be made inside the event loop that uses it."""

    def __init__(self, *, max_reply_bytes: int = MAX_REPLY_BYTES) -> None:
        self._timeouts: dict[tuple[float, float | None], aiohttp.ClientTimeout] = {}
        self._max_reply_bytes = max_reply_bytes
        self._contexts: dict[str, ssl.SSLContext] = {}

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": f"llm-gate/{__version__}", "accept-encoding": "identity"},
            raise_for_status=False,
            trust_env=False,
        )

    async def send(self, request: HttpRequest, deployment: Deployment) -> HttpReply:
        """Send a request and read the complete answer."""
        if deployment.codecs.respond is not None:
            async with self.stream(request, deployment) as reply:
                return HttpReply(status=reply.status, headers=reply.headers, body=await reply.read())
        response = await self._open(request, deployment, silence_s=deployment.deadlines.headers_s)
        try:
            reply = _Reply(response, deployment.provider, self._max_reply_bytes)
            # A body that drips is never silent: it has as long as a stream may be without content.
            body = await reply.read(within_s=deployment.deadlines.idle_s)
            return HttpReply(status=response.status, headers=_dated(response), body=body)
        finally:
            response.close()

    @asynccontextmanager
    async def stream(self, request: HttpRequest, deployment: Deployment) -> AsyncIterator[StreamReply]:
        """Send a request and hand out the answer as it arrives; leaving the context closes the connection."""
        respond = deployment.codecs.respond
        if respond is not None:
            yield await open_local(respond(request, now_s()), deployment)
            return
        # How long a stream may be silent is the engine's, which knows content from signs of life.
        response = await self._open(request, deployment, silence_s=None)
        try:
            yield _Reply(response, deployment.provider, self._max_reply_bytes)
        finally:
            # A body that was read to its end has given its connection back already; any other is cut here.
            response.close()

    async def _open(
        self, request: HttpRequest, deployment: Deployment, *, silence_s: float | None
    ) -> aiohttp.ClientResponse:
        headers = {**request.headers, **auth_headers(deployment.auth)}
        provider = deployment.provider
        try:
            return await self._session.request(
                request.method,
                request.url,
                # What aiohttp makes of bytes after looking through all that a body can be.
                data=aiohttp.BytesPayload(request.body),
                headers=headers,
                allow_redirects=False,
                ssl=self._tls(deployment),
                timeout=self._timeout(deployment.deadlines.connect_s, silence_s),
            )
        except aiohttp.SocketTimeoutError:
            raise _silent(provider) from None
        except aiohttp.ServerTimeoutError:
            raise _unsent(
                ProviderTimeout(
                    f"provider {provider!r} did not take the connection in time", provider=provider
                )
            ) from None
        except aiohttp.ClientConnectorCertificateError:
            raise _unsent(
                ProviderUnavailable(
                    f"the certificate of provider {provider!r} is not trusted (a ca_file can be configured)",
                    provider=provider,
                )
            ) from None
        except aiohttp.InvalidURL:
            raise GateFault(f"the address of provider {provider!r} is not a valid URL") from None
        except aiohttp.ClientConnectorError:
            raise _unsent(_unreachable(provider)) from None
        except aiohttp.ClientConnectionError:
            # The connection broke: what was sent over it may have arrived.
            raise _unreachable(provider) from None
        except (aiohttp.ClientError, ValueError):
            raise BadProviderResponse(
                f"the answer of provider {provider!r} is not valid HTTP", provider=provider
            ) from None

    def _timeout(self, connect_s: float, silence_s: float | None) -> aiohttp.ClientTimeout:
        """Return the deadlines of the connection and of each wait for bytes; those of whole calls are the engine's."""
        known = self._timeouts.get((connect_s, silence_s))
        if known is None:
            if len(self._timeouts) > _MAX_TIMEOUTS:
                self._timeouts.clear()
            known = aiohttp.ClientTimeout(total=None, connect=connect_s, sock_read=silence_s)
            self._timeouts[connect_s, silence_s] = known
        return known

    def _tls(self, deployment: Deployment) -> ssl.SSLContext | bool:
        if not deployment.verify_tls:
            return False
        if deployment.ca_file is None:
            return True
        if deployment.ca_file not in self._contexts:
            self._contexts[deployment.ca_file] = ssl.create_default_context(cafile=deployment.ca_file)
        return self._contexts[deployment.ca_file]

    async def close(self) -> None:
        """Close all connections."""
        if "_session" in self.__dict__:
            await self._session.close()


def _unreachable(provider: str) -> ProviderUnavailable:
    return ProviderUnavailable(f"provider {provider!r} cannot be reached", provider=provider)


def _dated(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    """Return the headers, with the time of arrival where a date to wait for would mean nothing without."""
    headers = response.headers
    if "retry-after" not in headers or "date" in headers:
        return headers
    return {**{name.lower(): value for name, value in headers.items()}, "date": formatdate(usegmt=True)}


def _silent(provider: str) -> ProviderTimeout:
    return ProviderTimeout(f"provider {provider!r} did not answer in time", provider=provider)


def _unsent(error: E) -> E:
    """Mark an error of a request that certainly never left."""
    error.was_sent = False
    return error


class _Reply:
    """A reply whose head has arrived."""

    def __init__(self, response: aiohttp.ClientResponse, provider: str, max_bytes: int) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = _dated(response)
        self._response = response
        self._provider = provider
        self._max_bytes = max_bytes

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives."""
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
        except (aiohttp.ClientError, ConnectionError):
            raise self._broken() from None

    def _broken(self) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"the connection to provider {self._provider!r} broke in the middle of the answer",
            provider=self._provider,
            status=self.status,
        )

    async def read(self, *, within_s: float = inf) -> bytes:
        """Return the whole body, bounded in size and, where it keeps coming, in time."""
        ends_s = monotonic() + within_s
        pieces: list[bytes] = []
        size = 0
        content = self._response.content
        try:
            while chunk := await content.readany():
                pieces.append(chunk)
                size += len(chunk)
                if len(pieces) > 1 and monotonic() > ends_s:
                    raise _silent(self._provider)
                if size > self._max_bytes:
                    raise BadProviderResponse(
                        f"the answer of provider {self._provider!r} is larger than {self._max_bytes} bytes",
                        provider=self._provider,
                        status=self.status,
                    )
        except aiohttp.SocketTimeoutError:
            raise _silent(self._provider) from None
        except (aiohttp.ClientError, ConnectionError):
            raise self._broken() from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
