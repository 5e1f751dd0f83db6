"""Embeddings: let in, looked up, asked, settled, kept; and the vectors by which questions are compared."""

import asyncio
from collections.abc import Sequence
from math import sqrt

from msgspec import Struct, structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.errors import GateError
from llm_gate.domain.provider import Target
from llm_gate.domain.requests import EmbeddingRequest
from llm_gate.domain.results import EmbeddingResult
from llm_gate.engine.admission import Booking
from llm_gate.engine.answer import Admitted, Answer, Attempted
from llm_gate.engine.attempts import Call
from llm_gate.engine.cached_stream import NO_COST
from llm_gate.engine.caching import Caching, Hit
from llm_gate.engine.chatting import giver
from llm_gate.engine.choice import Route
from llm_gate.engine.estimate import bound, size_of_embedding
from llm_gate.engine.exchanges import embedding_codec, framed, marked, priced, send, shown_headers
from llm_gate.engine.fleet import Turn
from llm_gate.engine.holds import Holds
from llm_gate.engine.kept_answers import KeptEmbedding, read_embedding, write_embedding
from llm_gate.engine.pipeline import Pipeline, left_s
from llm_gate.engine.working import Working

COMPARE_PATIENCE_S = 5.0
"""How long a chat waits at most for the vector of its question; then it is not compared."""


class _Prepared(Struct, frozen=True, kw_only=True):
    holds: Holds
    route: Route


class Embedding:
    """Answers embedding requests. `instance_id` names this gateway in the hop header."""

    def __init__(self, *, pipeline: Pipeline, instance_id: str, caching: Caching) -> None:
        self._pipeline = pipeline
        self._admission = pipeline.admission
        self._instance_id = instance_id
        self._caching = caching

    async def answer(
        self, working: Working, request: EmbeddingRequest, context: CallContext
    ) -> Answer[EmbeddingResult]:
        """Turn texts into vectors."""
        if working.guards is not None:
            await working.guards.check_input(request, "embedding", context)
        holds, route = await self._pipeline.routed(working, "embedding", request, context)
        prepared = _Prepared(holds=holds, route=route)
        targets = [each.target for each in route.candidates]
        question = self._caching.ask_embedding(
            request, targets, holds.standing, context, within_s=left_s(context, working.deadlines.total_s)
        )
        if question is None:
            return await self._ask(working, request, prepared, context)
        turn = await self._caching.turn(question, read_embedding)
        if isinstance(turn, Hit):
            return await self._kept(prepared, turn, context)
        with turn:
            answer = await self._ask(working, request, prepared, context)
            cost_nanos = None if answer.cost is None else answer.cost.nanos
            body = None
            if turn.keeps:
                body = write_embedding(answer.result, answer.target, answer.usage, cost_nanos)
            await turn.keep(body, cost_nanos)
        self._caching.meters.cached("embedding", turn.word, None)
        return structs.replace(answer, cache=turn.word)

    async def vector(self, working: Working, text: str, context: CallContext) -> Sequence[float] | None:
        """Return the vector of a text, of length one, on the caller's account; None where there is none to be had."""
        request = EmbeddingRequest(model=self._caching.rules.model, inputs=(text,))
        # What was said of the chat is not said of this.
        own = structs.replace(
            context, headers={}, quote_id=None, fallbacks=(), sticky=None, policy=None, watch=None
        )
        try:
            async with asyncio.timeout(COMPARE_PATIENCE_S):
                answer = await self.answer(working, request, own)
        except (GateError, TimeoutError):
            # The chat goes on without being compared; what failed is counted and logged where it did.
            return None
        found = answer.result.vectors[0]
        length = sqrt(sum(each * each for each in found))
        return [each / length for each in found] if length > 0 else None

    async def _kept(
        self, prepared: _Prepared, hit: Hit[KeptEmbedding], context: CallContext
    ) -> Answer[EmbeddingResult]:
        kept = hit.kept
        target = giver(kept.provider, kept.wire_model, [each.target for each in prepared.route.candidates])
        await self._admission.book_kept(
            context, "embedding", prepared.holds, target, saved_nanos=kept.cost_nanos
        )
        self._caching.meters.cached("embedding", hit.word, kept.cost_nanos)
        return Answer(
            result=kept.result,
            target=target,
            usage=kept.usage,
            cost=NO_COST,
            attempts=0,
            dropped=(),
            upstream_s=0.0,
            cache=hit.word,
            age_s=hit.age_ms // 1000,
        )

    async def _ask(
        self, working: Working, request: EmbeddingRequest, prepared: _Prepared, context: CallContext
    ) -> Answer[EmbeddingResult]:
        admitted = await self._book(working, request, prepared, context)

        def calls(booking: Booking) -> Call[Attempted[EmbeddingResult]]:
            async def attempt(target: Target, turn: Turn) -> Attempted[EmbeddingResult]:
                codec = embedding_codec(target)
                encoded = codec.encode(request, target)
                async with framed(booking, target):
                    sent = marked(encoded.request, context, self._instance_id, turn.span)
                    reply = await send(working.transport, sent, target)
                    result = codec.decode(reply, request, target)
                cost = priced(target, result.usage, context.received_at)
                booking.answered(result.usage, cost)
                turn.used(result.usage, result.model)
                return Attempted(
                    result=result,
                    usages=(result.usage,),
                    costs=(cost,),
                    dropped=encoded.dropped,
                    shown_headers=shown_headers(reply.headers, target),
                    booking=booking,
                )

            return attempt

        return await self._pipeline.answer(working, admitted, calls, context)

    async def _book(
        self, working: Working, request: EmbeddingRequest, prepared: _Prepared, context: CallContext
    ) -> Admitted[EmbeddingRequest]:
        holds, route = prepared.holds, prepared.route
        standing = holds.standing
        size = size_of_embedding(request)
        on = context.received_at.date()
        is_strict = standing.is_strict and standing.is_capped
        bounds = [
            bound(
                each.target, size, working.rates.of(each.target.model, on, reads_only=True), strict=is_strict
            )
            for each in route.candidates
        ]
        usable, tried = self._pipeline.choose(route, bounds, standing, context)
        booking = await self._admission.book(context, "embedding", holds, usable)
        return Admitted(request=request, bounds=usable, holds=holds, booking=booking, tried=tried)
