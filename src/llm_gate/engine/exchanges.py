"""One exchange with a target: the request that leaves, the answer that comes, and its frame in the ledger."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType

from msgspec import structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import GateError, InvalidRequest, LoopDetected, ProviderError, ProviderTimeout
from llm_gate.domain.ports import Transport
from llm_gate.domain.pricing import Cost, cost_of
from llm_gate.domain.provider import ChatCodec, EmbeddingCodec, HttpReply, HttpRequest, Target
from llm_gate.domain.tracing import Span
from llm_gate.domain.usage import Usage
from llm_gate.engine.admission import Booking
from llm_gate.engine.estimate import Bound

HOP_HEADER = "x-llm-gate-hop"
"""Carries the gateways a request came through, so that a loop is noticed."""

FIRST_FAILURE_STATUS = 300
_LOOP_STATUS = 508
_SHOWN_CHARS = 256


async def send(transport: Transport, request: HttpRequest, target: Target) -> HttpReply:
    """Send a marked request and return its successful answer.

    Raises:
        GateError: there is none.
    """
    reply = await transport.send(request, target.deployment)
    if reply.status >= FIRST_FAILURE_STATUS:
        raise failure_of(reply, target)
    return reply


@asynccontextmanager
async def framed(booking: Booking, target: Target, longer: Bound | None = None) -> AsyncIterator[None]:
    """Frame one exchange with a target: its intent is on disk before, and how it failed is noted after."""
    await booking.begin(target, longer)
    try:
        yield
    except ProviderError as error:
        booking.failed(error)
        raise


def failure_of(reply: HttpReply, target: Target) -> GateError:
    """Return the error that a reply stands for."""
    if reply.status == _LOOP_STATUS:
        # Only another gateway says this: the address of the provider leads back to one of them.
        return LoopDetected(f"the address of provider {target.provider!r} leads back to this gateway")
    return target.deployment.codecs.decode_error(reply, target)


def shown_headers(headers: Mapping[str, str], target: Target) -> Mapping[str, str]:
    """Return what the caller is to see of an answer's headers, under our names."""
    named = target.deployment.spec.reply_headers
    return {
        ours: headers[name][:_SHOWN_CHARS]
        for name, ours in ((vendors.lower(), ours.lower()) for vendors, ours in named.items())
        if name in headers
    }


def priced(target: Target, usage: Usage | None, at: datetime) -> Cost | None:
    """Return the cost of a usage at the price of an instant."""
    return cost_of(target.model.prices, usage, at.date())


def marked(request: HttpRequest, context: CallContext, instance_id: str, span: Span) -> HttpRequest:
    """Return the request with the marks that travel on with it: whose hop it is, and the attempt's trace."""
    hops = ",".join((*context.hops, instance_id))
    return structs.replace(request, headers={**request.headers, HOP_HEADER: hops, **span.headers})


class Traced:
    """Frames a model call with its span; inside, the call's context carries that."""

    __slots__ = ("_context",)

    def __init__(self, context: CallContext, operation: Operation, model: str) -> None:
        span = context.span.call(operation, model)
        self._context = context if span is context.span else structs.replace(context, span=span)

    def __enter__(self) -> CallContext:
        return self._context

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        span = self._context.span
        if error is not None:
            span.failed(error.code if isinstance(error, GateError) else "left")
        span.end()


def chat_codec(target: Target) -> ChatCodec:
    """Return the codec of a target's chat.

    Raises:
        InvalidRequest: it has none.
    """
    codec = target.deployment.codecs.chat
    if codec is None:
        raise InvalidRequest(f"provider {target.provider!r} offers no chat", param="model")
    return codec


def embedding_codec(target: Target) -> EmbeddingCodec:
    """Return the codec of a target's embeddings.

    Raises:
        InvalidRequest: it has none.
    """
    codec = target.deployment.codecs.embedding
    if codec is None:
        raise InvalidRequest(f"provider {target.provider!r} offers no embeddings", param="model")
    return codec


def late_error(target: Target) -> ProviderTimeout:
    """Return the error of a target that took too long."""
    return ProviderTimeout(f"provider {target.provider!r} did not answer in time", provider=target.provider)
