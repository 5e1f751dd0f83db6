"""How many input tokens a request has: asked of the vendor, counted by a public tokenizer, or estimated.

Whoever asks for the vendor's own count makes a call to it: it goes through the pipeline like any other, and is recorded
as a call without tokens that costs nothing. The other two ask nobody.
"""

from msgspec import structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.counting import CountSource, TokenCount, Tokenizers
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import CountCodec, Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.usage import Usage
from llm_gate.engine.admission import Booking
from llm_gate.engine.answer import Admitted, Answer, Asking, Attempted
from llm_gate.engine.attempts import Call
from llm_gate.engine.estimate import Bound, bound, size_of_chat
from llm_gate.engine.exchanges import Traced, framed, marked, send, shown_headers
from llm_gate.engine.fleet import Turn
from llm_gate.engine.gate import Gate
from llm_gate.engine.likely import around, counting, likely_input_tokens, read, tool_texts
from llm_gate.engine.working import Working

# Tools and forms are written shorter to the model than they are in JSON, as recorded usage shows.
_TOOLS_PERCENT, _FORM_PERCENT, _CALL_TOKENS = 90, 75, 8
_NOTHING = Cost(lines=())


class Counting:
    """Counts for callers, at the first target their name leads to."""

    def __init__(self, gate: Gate, tokenizers: Tokenizers) -> None:
        self._gate = gate
        self._admission = gate.admission
        self._tokenizers = tokenizers

    async def count(
        self, request: ChatRequest, context: CallContext, source: CountSource | None = None
    ) -> Answer[TokenCount]:
        """Count, by `source` where it is given and there, else by the next best; the count says which it was.

        Raises:
            CallerError: the name leads nowhere, or the caller's plan does not allow it.
            QuotaExceeded: the caller has no call left for asking the vendor.
            ProviderError: the vendor was to be asked, and failed.
        """
        # What only says how the answer is to be made is no part of what is counted.
        request = structs.replace(request, stream=False, n=None, logprobs=None, top_logprobs=None, stop=())
        working = self._gate.working.enter()
        try:
            with Traced(context, "chat", request.model) as traced:
                return await self._count(working, request, traced, source)
        finally:
            working.leave()

    async def _count(
        self, working: Working, request: ChatRequest, context: CallContext, source: CountSource | None
    ) -> Answer[TokenCount]:
        asks = source == "vendor"
        if asks and working.guards is not None:
            await working.guards.check_input(request, "chat", context)
        holds, route = await self._gate.pipeline.routed(working, "chat", request, context, request.needs)
        targets = [each.target for each in route.candidates]
        if not asks:
            return await self._count_here(request, targets[0], source)
        bounds = [_likely_bound(working, request, target, context) for target in targets]
        usable, tried = self._gate.pipeline.choose(route, bounds, holds.standing, context)
        target = usable[0].target
        if _counter(target) is None:
            return await self._count_here(request, target, source)
        booking = await self._admission.book(context, "chat", holds, [_free(target)])
        admitted = Admitted(
            request=request, bounds=(_free(target),), holds=holds, booking=booking, tried=tried
        )

        def calls(booking: Booking) -> Call[Attempted[TokenCount]]:
            asking = Asking(working=working, request=request, booking=booking, context=context)
            return lambda target, turn: self._ask(asking, target, turn)

        return await self._gate.pipeline.answer(working, admitted, calls, context)

    async def _ask(self, asking: Asking, target: Target, turn: Turn) -> Attempted[TokenCount]:
        codec, booking = _counter(target), asking.booking
        if codec is None:
            raise InvalidRequest(f"provider {target.provider!r} counts nothing", param="model")
        built = codec.encode(asking.request.at(target.provider), target)
        async with framed(booking, target):
            sent = marked(built, asking.context, self._gate.instance_id, turn.span)
            reply = await send(asking.working.transport, sent, target)
            tokens = codec.decode(reply, target)
        booking.answered(Usage(), _NOTHING)
        return Attempted(
            result=_counted(tokens, "vendor", target),
            usages=(Usage(),),
            costs=(_NOTHING,),
            dropped=(),
            shown_headers=shown_headers(reply.headers, target),
            booking=booking,
        )

    async def _count_here(
        self, request: ChatRequest, target: Target, source: CountSource | None
    ) -> Answer[TokenCount]:
        request = request.at(target.provider)
        tokens = None if source == "estimate" else await tokenized(self._tokenizers, request, target)
        found = (
            _counted(likely_input_tokens(request, target), "estimate", target)
            if tokens is None
            else _counted(tokens, "tokenizer", target)
        )
        return Answer(
            result=found, target=target, usage=None, cost=None, attempts=0, dropped=(), upstream_s=0.0
        )


async def tokenized(tokenizers: Tokenizers, request: ChatRequest, target: Target) -> int | None:
    """Count by the model's tokenizer; None where it is not known, is not here, or there is more than text."""
    rules = counting(target)
    if rules.encoding is None:
        return None
    found = read(request)
    if found.media:
        return None
    tools = "".join(each.decode() for each in tool_texts(request))
    form = (request.answer_schema or b"").decode()
    counts = await tokenizers.count(rules.encoding, (*found.texts, tools, form))
    if counts is None:
        return None
    written = -(-(counts[-2] * _TOOLS_PERCENT + counts[-1] * _FORM_PERCENT) // 100)
    calls = found.calls * _CALL_TOKENS
    return sum(counts[:-2]) + written + calls + around(request, rules, found.messages)


def _counter(target: Target) -> CountCodec | None:
    return target.deployment.codecs.count if counting(target).asks else None


def _counted(tokens: int, source: CountSource, target: Target) -> TokenCount:
    return TokenCount(input_tokens=tokens, source=source, provider=target.provider, model=target.model.name)


def _likely_bound(working: Working, request: ChatRequest, target: Target, context: CallContext) -> Bound:
    rates = working.rates.of(target.model, context.received_at.date(), reads_only=False)
    return bound(target, size_of_chat(request.at(target.provider), target), rates, strict=False)


def _free(target: Target) -> Bound:
    return Bound(target=target, input_tokens=0, tokens=0, cost_nanos=0, most_tokens=0, most_cost_nanos=0)
