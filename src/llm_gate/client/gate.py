"""A gateway inside an asyncio program."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, Unpack

from llm_gate.bootstrap import Gateway, build
from llm_gate.client.answers import (
    CallQuote,
    ChatAnswer,
    EmbeddingAnswer,
    GateStatus,
    chat_answer,
    embedding_answer,
)
from llm_gate.client.calls import caller_of, context_of, told_plainly
from llm_gate.client.own import OwnPlaces
from llm_gate.client.quotes import quoted
from llm_gate.client.requests import ChatOptions, Messages, Wish, chat_request, embedding_request
from llm_gate.client.stream import TextStream
from llm_gate.client.text import TextCall, generate
from llm_gate.configuration import Source, placed_faults
from llm_gate.engine.stream import ChatAnswerStream
from llm_gate.settings import ENV_FILE, Settings

_CHAT, _STREAM, _EMBED = "LLMGate.chat", "LLMGate.stream", "LLMGate.embed"


class LLMGate:
    """A gateway in this process, with the configuration, stores and limits that `llm-gate serve` would have here.

    Use it as an async context manager, in one event loop. `source` says where the configuration is; without it,
    llm-gate.toml and .env of the working directory are read, and the environment.
    """

    def __init__(self, source: Source | None = None) -> None:
        self._source = source or Source(env_file=ENV_FILE)
        self._gateway: Gateway | None = None
        self._own: OwnPlaces | None = None

    async def __aenter__(self) -> Self:
        """Read the configuration and open the stores.

        Raises:
            GateError: the configuration is faulty, or the stores cannot be opened.
        """
        settings = self._source.read()
        with placed_faults(settings):
            gateway = build(settings)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(gateway.close)
            await gateway.start()
            undo.pop_all()
        self._own = OwnPlaces(gateway, settings)
        self._gateway = gateway
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left to write, and close every connection."""
        gateway, self._gateway, self._own = self._gateway, None, None
        if gateway is not None:
            await gateway.close()

    @property
    def gateway(self) -> Gateway:
        """The gateway itself.

        Raises:
            RuntimeError: the gate is not open.
        """
        if self._gateway is None:
            raise RuntimeError("the gate is not open: use it as `async with LLMGate() as gate:`")
        return self._gateway

    @property
    def own(self) -> OwnPlaces:
        """The places of the program's own beside those of the configuration.

        Raises:
            RuntimeError: the gate is not open.
        """
        if self._own is None:
            raise RuntimeError("the gate is not open: use it as `async with LLMGate() as gate:`")
        return self._own

    @property
    def settings(self) -> Settings:
        """The configuration that was read."""
        return self.own.settings

    async def text_gen(
        self,
        prompt: str,
        system_prompt: str | None = None,
        json_struct: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        *,
        model: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> Any:
        """Answer a prompt; everything is as `llm_text_gen` has it."""
        wanted = TextCall(
            prompt=prompt,
            system_prompt=system_prompt,
            json_struct=json_struct,
            user_id=user_id,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
        )
        return await self.generate(wanted)

    async def generate(self, wanted: TextCall) -> Any:
        """Answer what a documented function asks."""
        return await generate(self.gateway, wanted)

    async def chat(self, messages: Messages, *, user_id: str, **options: Unpack[ChatOptions]) -> ChatAnswer:
        """Answer a prompt, or a conversation whose messages are as the OpenAI format has them.

        Args:
            messages: a prompt, or the messages of a conversation.
            user_id: for whom the call is counted, and whose plan limits it.
            **options: `ChatOptions`.

        Raises:
            QuotaExceeded: a limit leaves no room; nothing was sent.
            AllAttemptsFailed: nobody could answer; its `errors` say why.
            GateError: something else is in the way.
        """
        wish = Wish(messages=messages, **options)
        context = context_of(caller_of(user_id), _CHAT, fallbacks=wish.fallbacks, timeout_s=wish.timeout_s)
        with told_plainly():
            answer = await self.gateway.gate.chat(chat_request(wish), context)
        return chat_answer(answer, wants_object=wish.json_struct is not None)

    def stream(self, messages: Messages, *, user_id: str, **options: Unpack[ChatOptions]) -> TextStream:
        """Answer as a stream; everything is as `chat` has it.

        `async with gate.stream(...) as stream:`, then `async for text in stream:`; afterwards `stream.answer` is the
        whole. Leaving early stops the provider.
        """
        wish = Wish(messages=messages, **options)
        caller, request = caller_of(user_id), chat_request(wish, stream=True)

        async def opening() -> ChatAnswerStream:
            context = context_of(caller, _STREAM, fallbacks=wish.fallbacks, timeout_s=wish.timeout_s)
            with told_plainly():
                return await self.gateway.gate.chat_stream(request, context)

        return TextStream(opening, wants_object=wish.json_struct is not None)

    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        user_id: str,
        model: str = "",
        dimensions: int | None = None,
        fallbacks: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> EmbeddingAnswer:
        """Turn texts into vectors, one for each, in their order; `dimensions` is how long a vector is to be.

        Raises:
            QuotaExceeded: a limit leaves no room; nothing was sent.
            AllAttemptsFailed: nobody could answer; its `errors` say why.
            GateError: something else is in the way.
        """
        request = embedding_request(texts, model=model, dimensions=dimensions)
        context = context_of(caller_of(user_id), _EMBED, fallbacks=fallbacks, timeout_s=timeout_s)
        with told_plainly():
            return embedding_answer(await self.gateway.gate.embed(request, context))

    async def quote(
        self,
        messages: Messages,
        *,
        user_id: str,
        model: str = "",
        system: str | None = None,
        max_tokens: int | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> CallQuote:
        """Say what a chat would cost, and whether the user may have it; nothing is sent or held.

        Raises:
            GateError: nothing of that name is known, or the stores cannot be reached.
        """
        caller = caller_of(user_id)
        wish = Wish(messages=messages, model=model, system=system, max_tokens=max_tokens, tools=tools)
        return await quoted(self.gateway, chat_request(wish), caller, datetime.now(UTC))

    async def status(self) -> GateStatus:
        """Say who is asked where nobody is named, who answered last, and how every place that was called is doing."""
        gate = self.gateway.gate
        directory = gate.directory
        named = directory.named or directory.preference()[:1]
        primary = named[0] if named else None
        return GateStatus(
            primary=primary,
            fallbacks=named[1:],
            current=gate.fleet.current or primary,
            places=tuple(gate.fleet.statuses()),
        )
