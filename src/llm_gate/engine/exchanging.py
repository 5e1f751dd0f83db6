"""Drives the codecs of media: makes the exchanges they ask for, under marks, guards and deadlines."""

import asyncio
from secrets import token_hex
from time import monotonic, time
from typing import TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from llm_gate.domain.access import CallContext
from llm_gate.domain.blobs import Fetcher, FetchFailed
from llm_gate.domain.errors import BadProviderResponse, ProviderError, ProviderTimeout, ProviderUnavailable
from llm_gate.domain.ports import Transport
from llm_gate.domain.provider import (
    Deployment,
    Exchanges,
    Facts,
    Fetch,
    HttpReply,
    HttpRequest,
    Send,
    Target,
    Wait,
)
from llm_gate.domain.tracing import Span
from llm_gate.engine.exchanges import FIRST_FAILURE_STATUS, failure_of, marked

T = TypeVar("T")

MOST_FILM_BYTES, MOST_MADE_BYTES = 512 * 1024 * 1024, 64 * 1024 * 1024
"""The largest film, and the largest picture or voice, that is taken from a vendor's own address."""

FETCH_S = 180.0
"""How long fetching one of them may take, in seconds."""

MOST_KEPT = 1_000
"""How many replies are kept at most."""

_OK = 200


class KeptReplies:
    """Replies that are good for a while, by deployment and address; each process has its own."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[float, HttpReply]] = {}

    def find(self, deployment: Deployment, url: str) -> HttpReply | None:
        """Return a reply that is still good."""
        until_s, reply = self._kept.get((deployment.key, url), (0.0, None))
        return reply if monotonic() < until_s else None

    def keep(self, deployment: Deployment, url: str, reply: HttpReply, for_s: float) -> None:
        """Keep a reply for so many seconds."""
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[deployment.key, url] = (monotonic() + for_s, reply)


class Road(Struct, frozen=True, kw_only=True):
    """What exchanges with a target are made over, and on whose behalf (None: nobody waits for it).

    `most_bytes` bounds what is fetched from an address that the vendor names; `kept` are replies that may be used
    again.
    """

    transport: Transport
    fetcher: Fetcher
    target: Target
    instance_id: str
    span: Span
    context: CallContext | None = None
    most_bytes: int = MOST_MADE_BYTES
    kept: KeptReplies | None = None


def facts() -> Facts:
    """Return what codecs cannot know by themselves, as it is now."""
    return Facts(now_s=time(), token=token_hex(16))


async def drive(exchanges: Exchanges[T], road: Road) -> T:
    """Make the exchanges of one operation and return what comes of it.

    An error after a request that is billed, or of one whose end nobody saw, is marked: another try at the same place
    could be paid twice.

    Raises:
        ProviderError: an exchange failed, or its answer is not what it should be.
        InvalidRequest: the codec cannot carry out what is asked.
    """
    was_accepted = False
    learned: list[tuple[str, HttpReply, float]] = []
    try:
        wanted = next(exchanges)
        while True:
            reply: HttpReply | None = None
            match wanted:
                case Send():
                    try:
                        reply = await _send(wanted, road)
                    except (ProviderUnavailable, ProviderTimeout) as error:
                        if wanted.is_paid or not wanted.reads_failures:
                            raise
                        # Whoever reads failures knows whether this one passes.
                        wanted = exchanges.throw(error)
                        continue
                    if wanted.keep_s:
                        learned.append((wanted.request.url, reply, wanted.keep_s))
                    was_accepted = was_accepted or (wanted.is_paid and reply.status < FIRST_FAILURE_STATUS)
                case Fetch():
                    reply = await _fetch(wanted.url, road)
                case Wait():
                    await asyncio.sleep(wanted.seconds)
            wanted = exchanges.send(reply)
    except StopIteration as end:
        result: T = end.value
        if road.kept is not None:
            # Only what led to a result is worth keeping.
            for url, kept, for_s in learned:
                road.kept.keep(road.target.deployment, url, kept, for_s)
        return result
    except ProviderError as error:
        if was_accepted:
            error.may_repeat, error.was_accepted = False, True
        raise
    finally:
        exchanges.close()


async def _send(wanted: Send, road: Road) -> HttpReply:
    deployment, url = road.target.deployment, wanted.request.url
    if wanted.keep_s and road.kept is not None:
        known = road.kept.find(deployment, url)
        if known is not None:
            return known
    try:
        reply = await road.transport.send(_marked(wanted.request, road), road.target.deployment)
    except ProviderError as error:
        if wanted.is_paid and error.was_sent:
            error.may_repeat = False
        raise
    if reply.status >= FIRST_FAILURE_STATUS and not wanted.reads_failures:
        raise failure_of(reply, road.target)
    return reply


def _marked(request: HttpRequest, road: Road) -> HttpRequest:
    return request if road.context is None else marked(request, road.context, road.instance_id, road.span)


async def _fetch(url: str, road: Road) -> HttpReply:
    provider, model = road.target.provider, road.target.wire_model
    trusted = urlsplit(road.target.deployment.base_url)
    try:
        medium = await road.fetcher.fetch(
            url,
            most_bytes=road.most_bytes,
            trusted=f"{trusted.scheme}://{trusted.netloc}",
            within_s=FETCH_S,
        )
    except FetchFailed as error:
        kind: type[ProviderError] = BadProviderResponse
        if error.reason == "timeout":
            kind = ProviderTimeout
        elif error.reason in {"unreachable", "status"}:
            kind = ProviderUnavailable
        raise kind(
            f"what provider {provider!r} made could not be fetched: {error.message}",
            provider=provider,
            model=model,
        ) from None
    return HttpReply(status=_OK, headers={"content-type": medium.type}, body=medium.data)
