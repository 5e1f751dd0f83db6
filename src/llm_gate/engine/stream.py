"""One streamed answer on its way through the engine: deadlines, usage, cost, and an honest end.

Theory of operation: the reader's own task pulls pieces from the provider, so a slow reader pauses the provider.
A timer of its own looks at the clock now and then; while the reader waits for the provider, silence beyond the
idle deadline (measured between content events, so that keep-alive comments do not count) or life beyond the total
one cancels that wait and turns it into a ProviderTimeout.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

from msgspec import structs

from llm_gate.domain.cache import CacheWord
from llm_gate.domain.conditions import Tried
from llm_gate.domain.errors import ProviderError, ProviderTimeout
from llm_gate.domain.estimates import BYTES_PER_TOKEN
from llm_gate.domain.events import (
    ChatEvent,
    Ended,
    Finished,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
    Verbatim,
    VerbatimUsage,
)
from llm_gate.domain.ports import StreamReply
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import ChatStream, Target
from llm_gate.domain.results import FinishReason
from llm_gate.domain.tracing import Span
from llm_gate.domain.usage import Usage
from llm_gate.engine.admission import Booking
from llm_gate.engine.attempts import hide_secret, log_failure
from llm_gate.engine.caching import Lead
from llm_gate.engine.fleet import Turn
from llm_gate.engine.guards import StreamedTexts
from llm_gate.engine.kept_answers import Recording, write_chat
from llm_gate.engine.structured import StreamedForm

T = TypeVar("T")


class Silence:
    """Watches the waits of one task for a provider: `first_s` for the first content, then `idle_s` between content."""

    def __init__(self, *, first_s: float, idle_s: float, total_s: float, provider: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._patience_s = first_s
        self._idle_s = idle_s
        self._end = self._loop.time() + total_s
        self._provider = provider
        self._content_seen = self._loop.time()
        self._waiting: asyncio.Task[object] | None = None
        self._fired = False
        self._timer = self._loop.call_later(min(first_s, idle_s, total_s), self._look)

    def touch(self) -> None:
        """Note that content has arrived."""
        self._patience_s = self._idle_s
        self._content_seen = self._loop.time()

    async def wait(self, awaitable: AsyncIterator[T]) -> T | None:
        """Await the next item; None at the end.

        Raises:
            ProviderTimeout: a deadline passed first.
        """
        self._waiting = asyncio.current_task(self._loop)
        try:
            return await anext(awaitable, None)
        except asyncio.CancelledError:
            task = self._waiting
            if not self._fired or task is None or task.uncancel() > 0:
                raise
            raise ProviderTimeout(
                f"provider {self._provider!r} fell silent in the middle of the answer",
                provider=self._provider,
            ) from None
        finally:
            self._waiting = None

    def _look(self) -> None:
        now = self._loop.time()
        due = min(self._content_seen + self._patience_s, self._end)
        if now < due:
            self._timer = self._loop.call_at(due, self._look)
        elif self._waiting is not None:
            self._fired = True
            self._waiting.cancel()
        else:
            # The reader is busy or slow: that is not the provider's silence. Look again soon.
            self._timer = self._loop.call_later(min(1.0, self._idle_s), self._look)

    def stop(self) -> None:
        """Stop watching."""
        self._timer.cancel()


class ChatAnswerStream:
    """A chat answer whose first events have arrived. Iterate `batches` once, and `close` in any case.

    `usage`, `finish_reason` and `is_complete` are filled while the stream runs. `attempts` counts the attempts that
    were made, `tried` holds what failed before; `dropped` names the hints that could not be carried over;
    `shown_headers` are those of the provider's answer that the caller is to see, under our names.
    """

    def __init__(  # noqa: PLR0913 - what one stream is made of
        self,
        *,
        target: Target,
        dropped: tuple[str, ...],
        price: Callable[[Usage | None], Cost | None],
        decoder: ChatStream,
        silence: Silence,
        shown_headers: Mapping[str, str],
        booking: Booking,
        turn: Turn,
        form: StreamedForm | None = None,
        guard: Callable[[Sequence[str]], Awaitable[None]] | None = None,
        recording: Recording | None = None,
    ) -> None:
        self.target = target
        self.dropped = dropped
        self.shown_headers = shown_headers
        self._price = price
        self.attempts = 1
        self.tried: tuple[Tried, ...] = ()
        self.usage: Usage | None = None
        self.finish_reason: FinishReason | None = None
        self.model: str | None = None
        self.error_code: str | None = None
        self.is_complete = False
        self._decoder = decoder
        self._form = form
        self.booking = booking
        # Set where others may wait for the answer, or it is to be kept.
        self.lead: Lead | None = None
        self.cache: CacheWord | None = None
        self.age_s: int | None = None
        self._recording = recording
        self._turn = turn
        self._guard = guard
        self._texts = None if guard is None else StreamedTexts()
        self._delivered_bytes = 0
        self._delivered_events = 0
        self._resources = AsyncExitStack()
        self._silence = silence
        self._first: Sequence[ChatEvent] = ()
        self._failure: ProviderError | None = None
        self._pieces: AsyncGenerator[bytes, None] | None = None

    @property
    def cost(self) -> Cost | None:
        """The cost of what has been counted so far."""
        return self._price(self.usage)

    def price(self, usage: Usage | None, /) -> Cost | None:
        """Return the cost of a usage."""
        return self._price(usage)

    def on_close(self, resources: AsyncExitStack) -> None:
        """Take over what must be given back with the stream; what was taken over last is given back first."""
        self._resources.push_async_exit(resources)

    async def start(self, reply: StreamReply) -> None:
        """Wait for the first content, so that what fails before it can still be tried elsewhere."""
        self._pieces = reply.chunks()
        self._first = await self._next() or ()

    async def batches(self) -> AsyncIterator[Sequence[ChatEvent]]:
        """Yield events as they arrive, those of one read together; Ended is the last of a complete answer.

        Raises:
            ProviderError: the answer broke off or carried an error.
        """
        batch: Sequence[ChatEvent] | None = self._first
        try:
            while batch:
                if self.is_complete:
                    # Only the end waits for the record; what goes before it is on its way already.
                    at = next(index for index, event in enumerate(batch) if isinstance(event, Ended))
                    if at:
                        yield batch[:at]
                    self._turn.used(self.usage, self.model)
                    self.booking.answered(self.usage, self.cost)
                    await self.booking.settle()
                    batch = batch[at:]
                    if self._guard is not None and self._texts is not None:
                        # It is paid, whatever they think of it; without its end nobody takes it for complete.
                        await self._guard(self._texts.texts())
                    await self._keep()
                yield batch
                batch = await self._next()
        except ProviderError as error:
            hide_secret(error, self.target)
            self.error_code = error.code
            self._turn.failed(error)
            log_failure(error, self.target)
            counted = self._counted()
            self.booking.failed(error, counted, self._price(counted))
            await self.booking.settle_failed(error)
            if self.lead is not None:
                self.lead.failed(error)
            raise

    async def _keep(self) -> None:
        """Keep the answer, which is complete and was found to be good, where that is wanted."""
        if self.lead is None:
            return
        cost, body = self.cost, None
        result = None if self._recording is None else self._recording.result(self.usage)
        if result is not None:
            nanos = None if cost is None else cost.nanos
            body = write_chat(result, self.target, self.usage, nanos, in_form=self._form is not None)
        await self.lead.keep(body, None if cost is None else cost.nanos)

    def _counted(self) -> Usage:
        """Return what was used so far: as the provider said, and at least what was delivered."""
        said = self.usage or Usage(input_tokens=self.booking.likely_input_tokens)
        delivered = max(self._delivered_events, -(-self._delivered_bytes // BYTES_PER_TOKEN))
        return structs.replace(said, output_tokens=max(said.output_tokens, delivered), source="estimated")

    async def _next(self) -> Sequence[ChatEvent] | None:
        """Return the next events that are not empty; None after the end."""
        while not self.is_complete and self._pieces is not None:
            if self._failure is not None:
                raise self._failure
            piece = await self._silence.wait(self._pieces)
            try:
                events = self._decoder.feed(piece) if piece is not None else self._decoder.close()
            except ProviderError as error:
                # A bare beginning is nothing worth sending: without it the error can keep its own status.
                if all(isinstance(event, Started) for event in error.preceding):
                    raise
                self._failure, events = error, error.preceding
            if events:
                if self._texts is not None:
                    self._texts.note(events)
                if self._recording is not None:
                    self._recording.note(events)
                if self._note(events):
                    self._silence.touch()
                if self._form is not None:
                    events = self._in_form(self._form, events)
                if events:
                    return events
            if piece is None and self._failure is None:
                return None
        return None

    def _in_form(self, form: StreamedForm, events: Sequence[ChatEvent]) -> Sequence[ChatEvent]:
        """Return the events that may go out; an answer that does not fit fails where it would have been complete."""
        passing = form.pass_on(events)
        if self.is_complete and form.failure is not None:
            self.is_complete, self._failure = False, form.failure
        return passing

    def _note(self, events: Sequence[ChatEvent]) -> bool:
        """Keep what the events say of the answer; tell whether there is more in them than keep-alive."""
        has_content = False
        for event in events:
            if isinstance(event, Verbatim):
                has_content = has_content or event.has_content
                self._delivered_events += event.has_content
                continue
            has_content = True
            if isinstance(event, TextDelta | ThinkingDelta):
                self._delivered_bytes += len(event.text)
            elif isinstance(event, ToolCallDelta):
                self._delivered_bytes += len(event.arguments)
            if isinstance(event, UsageReported | VerbatimUsage):
                self.usage = event.usage
            elif isinstance(event, Finished):
                self.finish_reason = event.reason
            elif isinstance(event, Ended):
                self.is_complete = True
            elif isinstance(event, Started):
                self.model = event.model
        return has_content

    def tell(self, span: Span) -> None:
        """Tell the call's span what the stream came to."""
        span.used(self.target, self.usage, self.model)
        if not self.is_complete:
            span.failed(self.error_code or "left")

    async def close(self) -> None:
        """Stop the provider if it still sends, and give everything back."""
        self._silence.stop()
        if self.lead is not None:
            self.lead.left()
        if not self.is_complete:
            self._turn.span.failed("left")
            counted = self._counted()
            self.booking.left(counted, self._price(counted))
        if self._pieces is not None:
            await self._pieces.aclose()
        await self._resources.aclose()
