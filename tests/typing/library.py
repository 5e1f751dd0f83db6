"""What the library's types promise to programs, for a type checker to read; nothing here runs."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

from llm_gate import (
    BlockingLLMGate,
    BlockingTextStream,
    CallQuote,
    ChatAnswer,
    EmbeddingAnswer,
    GateStatus,
    LLMFactory,
    LLMGate,
    LLMProvider,
    LLMResponse,
    TextStream,
    gemini_text_response,
    llm_text_gen,
)


async def asynchronous(gate: LLMGate) -> None:
    assert_type(await gate.chat("Hello", user_id="ann", model="m", temperature=0.5), ChatAnswer)
    assert_type(await gate.chat([{"role": "user", "content": "Hello"}], user_id="ann"), ChatAnswer)
    assert_type(await gate.embed(["a"], user_id="ann"), EmbeddingAnswer)
    assert_type(await gate.quote("Hello", user_id="ann", max_tokens=5), CallQuote)
    assert_type(await gate.status(), GateStatus)
    assert_type(await gate.text_gen("Hello", user_id="ann"), Any)
    stream = gate.stream("Hello", user_id="ann")
    assert_type(stream, TextStream)
    async with stream as opened:
        assert_type(aiter(opened), AsyncIterator[str])
        async for piece in opened:
            assert_type(piece, str)
    assert_type(stream.answer, ChatAnswer)
    gate.chat("Hello")  # type: ignore[call-arg,unused-coroutine]
    gate.chat("Hello", user_id="ann", temprature=1)  # type: ignore[call-arg,unused-coroutine]
    gate.chat("Hello", user_id="ann", max_tokens="5")  # type: ignore[arg-type,unused-coroutine]


def blocking(gate: BlockingLLMGate) -> None:
    assert_type(gate.chat("Hello", user_id="ann", model="m", temperature=0.5), ChatAnswer)
    assert_type(gate.embed(["a"], user_id="ann", dimensions=5), EmbeddingAnswer)
    assert_type(gate.quote("Hello", user_id="ann"), CallQuote)
    assert_type(gate.status(), GateStatus)
    with gate.stream("Hello", user_id="ann") as stream:
        assert_type(stream, BlockingTextStream)
        assert_type(iter(stream), Iterator[str])
        for piece in stream:
            assert_type(piece, str)
    with BlockingLLMGate() as other:
        assert_type(other, BlockingLLMGate)
    gate.chat("Hello")  # type: ignore[call-arg]
    gate.chat("Hello", user_id="ann", temprature=1)  # type: ignore[call-arg]
    gate.embed(5, user_id="ann")  # type: ignore[arg-type]
    gate.nothing()  # type: ignore[attr-defined]


class Own(LLMProvider):
    def __init__(self, api_key: str) -> None:
        self.api_key = api_key

    def generate_content(self, prompt: str, temperature: float = 0.0, max_tokens: int = 1024) -> LLMResponse:
        return LLMResponse(success=True, content=prompt, provider_name=self.get_provider_name())

    def get_provider_name(self) -> str:
        return "own"

    def is_available(self) -> bool:
        return bool(self.api_key)


def factory() -> None:
    made = LLMFactory(primary_provider="own", fallback_providers=["gemini"])
    made.register_provider("own", Own)
    LLMFactory.register_provider("own", Own)
    assert_type(made.generate_content("Hello", max_retries=10), LLMResponse)
    assert_type(made.get_provider_status(), dict[str, Any])
    made.register_provider("own", str)  # type: ignore[arg-type]
    made.generate_content(5)  # type: ignore[arg-type]
    LLMProvider()  # type: ignore[abstract]


def functions() -> None:
    assert_type(llm_text_gen("Hello", user_id="ann"), Any)
    assert_type(gemini_text_response("Hello"), str)
