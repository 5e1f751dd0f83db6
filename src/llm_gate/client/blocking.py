"""`LLMGate` for programs without an event loop: the same methods, which wait.

Theory of operation: no method is written twice. A descriptor takes the method of `LLMGate` that it stands for, and runs
it in the event loop of a thread behind; the types of its parameters and of its answer are taken over with it.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

from llm_gate.client.answers import ChatAnswer
from llm_gate.client.gate import LLMGate
from llm_gate.client.stream import StreamEvent, TextStream
from llm_gate.client.sync import Background
from llm_gate.configuration import Source

P = ParamSpec("P")
R = TypeVar("R")


class _Waiting(Generic[P, R]):
    """A coroutine method of `LLMGate`, as a method that waits for it."""

    def __init__(self, method: Callable[Concatenate[LLMGate, P], Coroutine[Any, Any, R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__
        self.__wrapped__ = method

    @overload
    def __get__(self, gate: None, kind: type["BlockingLLMGate"]) -> Self: ...

    @overload
    def __get__(self, gate: "BlockingLLMGate", kind: type["BlockingLLMGate"]) -> Callable[P, R]: ...

    def __get__(self, gate: "BlockingLLMGate | None", kind: type["BlockingLLMGate"]) -> Self | Callable[P, R]:
        if gate is None:
            return self
        run, method = gate.background.run, self._method

        def call(*arguments: P.args, **named: P.kwargs) -> R:
            return run(lambda behind: method(behind, *arguments, **named))

        call.__doc__ = method.__doc__
        return call


class _Passing(Generic[P, R]):
    """A method of `LLMGate` that waits for nothing, in the event loop that its gateway belongs to."""

    def __init__(self, method: Callable[Concatenate[LLMGate, P], R]) -> None:
        self._method = method
        self.__doc__ = method.__doc__
        self.__wrapped__ = method

    @overload
    def __get__(self, gate: None, kind: type["BlockingLLMGate"]) -> Self: ...

    @overload
    def __get__(self, gate: "BlockingLLMGate", kind: type["BlockingLLMGate"]) -> Callable[P, R]: ...

    def __get__(self, gate: "BlockingLLMGate | None", kind: type["BlockingLLMGate"]) -> Self | Callable[P, R]:
        if gate is None:
            return self
        run, method = gate.background.run, self._method

        def call(*arguments: P.args, **named: P.kwargs) -> R:
            async def make(behind: LLMGate) -> R:
                return method(behind, *arguments, **named)

            return run(make)

        call.__doc__ = method.__doc__
        return call


class _Streaming(Generic[P]):
    """A method of `LLMGate` that gives a stream, as one that gives a stream to be read without an event loop."""

    def __init__(self, method: Callable[Concatenate[LLMGate, P], TextStream]) -> None:
        self._method = method
        self.__doc__ = method.__doc__
        self.__wrapped__ = method

    @overload
    def __get__(self, gate: None, kind: type["BlockingLLMGate"]) -> Self: ...

    @overload
    def __get__(
        self, gate: "BlockingLLMGate", kind: type["BlockingLLMGate"]
    ) -> "Callable[P, BlockingTextStream]": ...

    def __get__(
        self, gate: "BlockingLLMGate | None", kind: type["BlockingLLMGate"]
    ) -> "Self | Callable[P, BlockingTextStream]":
        if gate is None:
            return self
        background, method = gate.background, self._method

        def call(*arguments: P.args, **named: P.kwargs) -> BlockingTextStream:
            async def make(behind: LLMGate) -> TextStream:
                return method(behind, *arguments, **named)

            return BlockingTextStream(background, background.run(make))

        call.__doc__ = method.__doc__
        return call


class BlockingLLMGate:
    """A gateway in this process whose methods wait for their answers; they can be called from any thread.

    It is opened by its first call, or as a context manager. `source` says where the configuration is, as for `LLMGate`.
    """

    def __init__(self, source: Source | None = None) -> None:
        self.background = Background(source)

    def __enter__(self) -> Self:
        """Read the configuration and open the stores.

        Raises:
            GateError: the configuration is faulty, or the stores cannot be opened.
        """
        self.background.run(_nothing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left to write, and close every connection."""
        self.close()

    def close(self) -> None:
        """Write what is left to write, and close every connection."""
        self.background.close()

    text_gen = _Waiting(LLMGate.text_gen)
    chat = _Waiting(LLMGate.chat)
    stream = _Streaming(LLMGate.stream)
    embed = _Waiting(LLMGate.embed)
    quote = _Waiting(LLMGate.quote)
    status = _Waiting(LLMGate.status)
    image = _Waiting(LLMGate.image)
    images = _Waiting(LLMGate.images)
    edit_image = _Waiting(LLMGate.edit_image)
    swap_face = _Waiting(LLMGate.swap_face)
    video = _Waiting(LLMGate.video)
    resume_video = _Waiting(LLMGate.resume_video)
    speech = _Waiting(LLMGate.speech)
    transcribe = _Waiting(LLMGate.transcribe)
    search = _Waiting(LLMGate.search)
    research = _Waiting(LLMGate.research)
    check_workflow = _Waiting(LLMGate.check_workflow)
    calculate_cost = _Passing(LLMGate.calculate_cost)
    register_media_provider = _Passing(LLMGate.register_media_provider)


async def _nothing(_gate: LLMGate) -> None:
    """Do nothing but open the gateway."""


class BlockingTextStream:
    """A chat answer as it arrives. Use it as a context manager, and iterate it once; all is as `TextStream` has it."""

    def __init__(self, background: Background, stream: TextStream) -> None:
        self._background = background
        self._stream = stream

    def __enter__(self) -> Self:
        """Begin the call; returns when the first piece has arrived.

        Raises:
            QuotaExceeded: a limit leaves no room.
            GateError: nobody could answer.
        """

        async def enter(_gate: LLMGate) -> None:
            await self._stream.__aenter__()

        self._background.run(enter)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the provider if it still sends."""

        async def leave(_gate: LLMGate) -> None:
            await self._stream.__aexit__(None, None, None)

        self._background.run(leave)

    @property
    def provider(self) -> str:
        """Who answers."""
        return self._stream.provider

    @property
    def model(self) -> str:
        """Which of the provider's models answers."""
        return self._stream.model

    @property
    def answer(self) -> ChatAnswer:
        """The whole answer.

        Raises:
            RuntimeError: it has not come to its end.
        """
        return self._stream.answer

    def __iter__(self) -> Iterator[str]:
        """Iterate over the pieces of the text."""
        return self._pulled(aiter(self._stream))

    def events(self) -> Iterator[StreamEvent]:
        """Iterate over everything that happens.

        Raises:
            GateError: the answer broke off, or carried an error.
        """
        return self._pulled(self._stream.events())

    def _pulled(self, items: AsyncIterator[R]) -> Iterator[R]:
        ended = object()

        async def pull(_gate: LLMGate) -> object:
            return await anext(items, ended)

        while (item := self._background.run(pull)) is not ended:
            yield cast("R", item)
