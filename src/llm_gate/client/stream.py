"""A streamed answer as callers of the library read it: pieces of text as they come, and the whole at the end."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

from llm_gate.client.answers import ChatAnswer, described
from llm_gate.dialects.openai_stream import OpenAIChatStream
from llm_gate.domain.events import (
    ChatEvent,
    Finished,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
    Verbatim,
    VerbatimUsage,
)
from llm_gate.domain.messages import Part, TextPart, ThinkingPart, ToolCallPart
from llm_gate.domain.results import Choice, FinishReason
from llm_gate.engine.cached_stream import AnswerStream

StreamEvent = TextDelta | ThinkingDelta | ToolCallDelta | Finished | UsageReported
"""What happens in a streamed answer, in neutral form."""

_SHOWN = (TextDelta, ThinkingDelta, ToolCallDelta, Finished, UsageReported)


class TextStream:
    """A chat answer as it arrives. Use it as an async context manager, and iterate it once.

    Iterating gives the pieces of the first choice's text; `events` gives everything that happens instead. Leaving the
    context early stops the provider; what it sent until then is counted. `answer` is there when all of it has come.
    """

    def __init__(self, opening: Callable[[], Awaitable[AnswerStream]], *, wants_object: bool) -> None:
        self._opening = opening
        self._wants_object = wants_object
        self._stream: AnswerStream | None = None
        self._gathered = _Gathered()
        self._answer: ChatAnswer | None = None

    async def __aenter__(self) -> Self:
        """Begin the call; returns when the first piece has arrived.

        Raises:
            QuotaExceeded: a limit leaves no room.
            GateError: nobody could answer.
        """
        self._stream = await self._opening()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the provider if it still sends."""
        if self._stream is not None:
            await self._stream.close()

    @property
    def provider(self) -> str:
        """Who answers."""
        return self._opened.target.provider

    @property
    def model(self) -> str:
        """Which of the provider's models answers."""
        return self._opened.target.model.name

    @property
    def answer(self) -> ChatAnswer:
        """The whole answer.

        Raises:
            RuntimeError: it has not come to its end.
        """
        if self._answer is None:
            raise RuntimeError("the answer is not complete: iterate the stream to its end first")
        return self._answer

    @property
    def _opened(self) -> AnswerStream:
        if self._stream is None:
            raise RuntimeError("the stream is not open: use it as `async with gate.stream(...) as stream:`")
        return self._stream

    def __aiter__(self) -> AsyncIterator[str]:
        """Iterate over the pieces of the text."""
        return self._texts()

    async def _texts(self) -> AsyncGenerator[str, None]:
        async with aclosing(self.events()) as events:
            async for event in events:
                if isinstance(event, TextDelta) and event.index == 0 and event.text:
                    yield event.text

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Iterate over everything that happens.

        Raises:
            GateError: the answer broke off, or carried an error.
        """
        stream = self._opened
        plain = _Plain(stream)
        async for batch in stream.batches():
            for event in plain.of(batch):
                self._gathered.add(event)
                yield event
        self._answer = described(
            self._gathered.choices(),
            stream.target,
            usage=stream.usage,
            cost=stream.cost,
            attempts=stream.attempts,
            tried=stream.tried,
            wants_object=self._wants_object,
        )


class _Plain:
    """Reads what a provider of the caller's own format sent, which the engine passes on as it came."""

    def __init__(self, stream: AnswerStream) -> None:
        self._reader = OpenAIChatStream(stream.target, verbatim=False)

    def of(self, batch: Sequence[ChatEvent]) -> Iterator[StreamEvent]:
        for event in batch:
            if isinstance(event, Verbatim):
                yield from self._read(event.data)
            elif isinstance(event, VerbatimUsage):
                yield from self._read(b"data: " + event.payload + b"\n\n")
            elif isinstance(event, _SHOWN):
                yield event

    def _read(self, data: bytes) -> Iterator[StreamEvent]:
        for event in self._reader.feed(data):
            if isinstance(event, _SHOWN):
                yield event


class _Gathered:
    """The parts of every choice so far."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}
        self._thoughts: dict[int, list[str]] = {}
        self._calls: dict[int, dict[int, ToolCallPart]] = {}
        self._reasons: dict[int, FinishReason] = {}

    def add(self, event: StreamEvent) -> None:
        match event:
            case TextDelta():
                self._texts.setdefault(event.index, []).append(event.text)
            case ThinkingDelta():
                self._thoughts.setdefault(event.index, []).append(event.text)
            case ToolCallDelta():
                calls = self._calls.setdefault(event.index, {})
                known = calls.get(event.call)
                calls[event.call] = ToolCallPart(
                    id=event.id or (known.id if known else ""),
                    name=event.name or (known.name if known else ""),
                    arguments=(known.arguments if known else "") + event.arguments,
                    signature=event.signature or (known.signature if known else None),
                )
            case Finished():
                self._reasons[event.index] = event.reason
            case UsageReported():
                pass

    def choices(self) -> tuple[Choice, ...]:
        indexes = sorted({*self._texts, *self._thoughts, *self._calls, *self._reasons}) or [0]
        return tuple(
            Choice(index=index, parts=self._parts(index), finish_reason=self._reasons.get(index, "stop"))
            for index in indexes
        )

    def _parts(self, index: int) -> tuple[Part, ...]:
        thought, text = "".join(self._thoughts.get(index, ())), "".join(self._texts.get(index, ()))
        parts: list[Part] = []
        if thought:
            parts.append(ThinkingPart(text=thought))
        if text:
            parts.append(TextPart(text=text))
        return (*parts, *self._calls.get(index, {}).values())
