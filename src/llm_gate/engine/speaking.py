"""Voices as they are spoken: the pieces of a vendor's answer are handed on as they come, under the same pipeline.

A voice has no words of its own for an error: one that breaks off is cut, never ended as if it were whole. Its end goes
out only after the call is settled.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import date

from llm_gate.domain.access import CallContext
from llm_gate.domain.conditions import Tried
from llm_gate.domain.errors import ProviderError
from llm_gate.domain.media import SpeechRequest
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import HttpReply, Target, VoiceCodec
from llm_gate.engine.admission import Booking
from llm_gate.engine.answer import Admitted
from llm_gate.engine.attempts import Call
from llm_gate.engine.exchanges import FIRST_FAILURE_STATUS, Traced, failure_of, framed, late_error, marked
from llm_gate.engine.fleet import Turn
from llm_gate.engine.media import Fitting, MediaDesk, Offered
from llm_gate.engine.media_bounds import Priced, priced_draft
from llm_gate.engine.pipeline import left_s
from llm_gate.engine.stream import Silence
from llm_gate.engine.working import Working

_HEAD_BYTES = 512


class Voice:
    """A voice whose first bytes have arrived. Iterate `pieces` once, and `close` in any case.

    `cost` is what it comes to where that is known beforehand. `attempts` and `tried` are as in an Answer.
    """

    def __init__(
        self, *, type_: str, target: Target, booking: Booking, turn: Turn, priced: Priced, first: bytes
    ) -> None:
        self.type = type_
        self.target = target
        self.attempts = 1
        self.tried: tuple[Tried, ...] = ()
        self.cost: Cost | None = priced.cost
        self.is_complete = False
        self.booking = booking
        self._turn = turn
        self._units = priced.units
        self._first = first
        self._rest: AsyncIterator[bytes] | None = None
        self._silence: Silence | None = None
        self._stack: AsyncExitStack | None = None

    def goes_on(self, rest: AsyncIterator[bytes], silence: Silence) -> None:
        """Read on from here."""
        self._rest, self._silence = rest, silence

    def on_close(self, stack: AsyncExitStack) -> None:
        """Give these back at the end."""
        self._stack = stack

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come; the last of them only when the call is settled.

        Raises:
            ProviderError: the vendor broke off or fell silent; what came so far is no whole voice.
        """
        held = self._first
        assert self._rest is not None  # noqa: S101 - set when it was opened
        assert self._silence is not None  # noqa: S101 - set with it
        try:
            while (piece := await self._silence.wait(self._rest)) is not None:
                self._silence.touch()
                if piece:
                    yield held
                    held = piece
        except ProviderError as error:
            self.booking.failed(error)
            self._turn.failed(error)
            await self.booking.settle_failed(error)
            raise
        self.booking.answered(None, self.cost, self._units)
        await self.booking.settle()
        self.is_complete = True
        yield held

    async def close(self) -> None:
        """Close the connection to the vendor, and end the call if nothing else has."""
        if self._stack is not None:
            stack, self._stack = self._stack, None
            await stack.aclose()


class Speaking:
    """Opens voices. What a vendor cannot speak piece by piece is none of its business."""

    def __init__(self, desk: MediaDesk) -> None:
        self._desk = desk

    async def open(self, working: Working, request: SpeechRequest, context: CallContext) -> Voice | None:
        """Begin to speak; returns when the first bytes have arrived. None where the first choice does not stream.

        Raises:
            GateError: as every call of the gate.
        """
        desk, pipeline = self._desk, self._desk.pipeline
        async with AsyncExitStack() as stack:
            working.enter()
            stack.callback(working.leave)
            context = stack.enter_context(Traced(context, "speech", request.model))
            offered = await desk.offered(working, request, context)
            if _codec(offered.bounds[0].target) is None:
                # Whoever makes it in one piece shows it to the guards.
                return None
            request = await desk.prepared(working, request, context)
            able = [bound for bound in offered.bounds if _codec(bound.target) is not None]
            usable, tried = pipeline.choose(offered.route, able, offered.holds.standing, context)
            booking = await pipeline.admission.book(context, "speech", offered.holds, usable)
            stack.callback(booking.close)
            admitted = Admitted(
                request=request, bounds=usable, holds=offered.holds, booking=booking, tried=tried
            )
            success = await pipeline.run(
                working, admitted, self._calls(working, offered, context), context, discard=None
            )
            voice = success.value
            voice.attempts, voice.tried = success.attempts, (*tried, *success.tried)
            opened = voice._stack  # noqa: SLF001 - handed from the attempt to the voice as a whole
            if opened is not None:
                stack.push_async_callback(opened.aclose)
            voice.on_close(stack.pop_all())
        return voice

    def _calls(
        self, working: Working, offered: Offered, context: CallContext
    ) -> Callable[[Booking], Call[Voice]]:
        def calls(booking: Booking) -> Call[Voice]:
            async def once(target: Target, turn: Turn) -> Voice:
                fitting = offered.fittings[id(target)]
                return await self._begin(working, fitting, booking, (target, turn), context)

            return once

        return calls

    async def _begin(
        self,
        working: Working,
        fitting: Fitting,
        booking: Booking,
        place: tuple[Target, Turn],
        context: CallContext,
    ) -> Voice:
        target, turn = place
        codec, deadlines = _codec(target), target.deployment.deadlines
        assert codec is not None  # noqa: S101 - only those that have one are asked
        request = fitting.request
        sent = marked(codec.encode(request, target), context, self._desk.pipeline.instance_id, turn.span)
        async with framed(booking, target), AsyncExitStack() as stack:
            stack.callback(turn.leave_room)
            try:
                async with asyncio.timeout(deadlines.headers_s):
                    reply = await stack.enter_async_context(working.transport.stream(sent, target.deployment))
                    if reply.status >= FIRST_FAILURE_STATUS:
                        whole = HttpReply(status=reply.status, headers=reply.headers, body=await reply.read())
                        raise failure_of(whole, target)
            except TimeoutError:
                raise late_error(target) from None
            silence = Silence(
                first_s=deadlines.first_event_s,
                idle_s=deadlines.idle_s,
                total_s=left_s(context, deadlines.stream_total_s),
                provider=target.provider,
            )
            stack.callback(silence.stop)
            rest = reply.chunks()
            first = b""
            # Enough to tell a voice from a page or an error.
            while len(first) < _HEAD_BYTES and (piece := await silence.wait(rest)) is not None:
                first += piece
            silence.touch()
            head = HttpReply(status=reply.status, headers=reply.headers, body=first)
            voice = Voice(
                type_=codec.begin(head, request, target),
                target=target,
                booking=booking,
                turn=turn,
                priced=_priced(fitting, target, context.received_at.date()),
                first=first,
            )
            voice.goes_on(rest, silence)
            voice.on_close(stack.pop_all())
        return voice


def _codec(target: Target) -> VoiceCodec | None:
    return target.deployment.codecs.voice


def _priced(fitting: Fitting, target: Target, on: date) -> Priced:
    """Price a voice by what is known before it is spoken: its characters, or the run."""
    return priced_draft(fitting.draft, target, on, None)
