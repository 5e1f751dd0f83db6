"""A gateway inside an asyncio program."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from llm_gate.bootstrap import Gateway, build
from llm_gate.client.text import TextCall, generate
from llm_gate.configuration import Source, placed_faults
from llm_gate.settings import ENV_FILE


class LLMGate:
    """A gateway in this process, with the configuration, stores and limits that `llm-gate serve` would have here.

    Use it as an async context manager, in one event loop. `source` says where the configuration is; without it,
    llm-gate.toml and .env of the working directory are read, and the environment.
    """

    def __init__(self, source: Source | None = None) -> None:
        self._source = source or Source(env_file=ENV_FILE)
        self._gateway: Gateway | None = None

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
        self._gateway = gateway
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left to write, and close every connection."""
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            await gateway.close()

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
        if self._gateway is None:
            raise RuntimeError("the gate is not open: use it as `async with LLMGate() as gate:`")
        wanted = TextCall(
            prompt=prompt,
            system_prompt=system_prompt,
            json_struct=json_struct,
            user_id=user_id,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
        )
        return await generate(self._gateway, wanted)
