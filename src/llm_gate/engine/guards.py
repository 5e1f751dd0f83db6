"""Shows what goes in and comes out to the operator's guards: the one place, for every operation and every surface.

A guard that breaks down or takes too long lets nothing pass. Plain functions run in a thread, so that they hold up
nobody else.
"""

import asyncio
import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence

from llm_gate.domain.access import CallContext
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import GuardFailed, GuardRefused
from llm_gate.domain.events import ChatEvent, TextDelta, Verbatim, VerbatimUsage
from llm_gate.domain.guards import Guard, Guarded
from llm_gate.domain.media import MediaRequest, SpeechRequest
from llm_gate.domain.messages import TextPart
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.results import ChatResult
from llm_gate.domain.search import SearchRequest

TIMEOUT_S = 5.0
MAX_KEPT_CHARS = 4 * 1024 * 1024
"""How much text of a stream is kept for the guards; one that is longer is refused."""

_logger = logging.getLogger("llm_gate.guards")


class Guards:
    """The guards of both sides, in the order in which they look."""

    def __init__(
        self, *, inputs: Sequence[Guard] = (), outputs: Sequence[Guard] = (), timeout_s: float = TIMEOUT_S
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._timeout_s = timeout_s

    async def check_input(
        self,
        request: ChatRequest | EmbeddingRequest | MediaRequest,
        operation: Operation,
        context: CallContext,
    ) -> None:
        """Show a request before anything is held or sent.

        Raises:
            GuardRefused: a guard refuses it.
            GuardFailed: a guard did not come to a verdict.
        """
        if self.inputs:
            texts = _texts_in(request)
            await self._show(self.inputs, _guarded(texts, request.model, operation, context, None))

    async def check_texts(
        self, texts: Iterable[str], model: str, operation: Operation, context: CallContext
    ) -> None:
        """Show what else goes to a provider, such as training data; raises what `check_input` raises."""
        if self.inputs:
            await self._show(self.inputs, _guarded(texts, model, operation, context, None))

    async def check_output(
        self, texts: Iterable[str], model: str, operation: Operation, context: CallContext, provider: str
    ) -> None:
        """Show an answer before its caller gets it, or the end of it; raises what `check_input` raises."""
        if self.outputs:
            await self._show(self.outputs, _guarded(texts, model, operation, context, provider))

    async def _show(self, guards: Sequence[Guard], guarded: Guarded) -> None:
        for guard in guards:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await _ask(guard, guarded)
            except GuardRefused:
                raise
            except Exception as error:  # noqa: BLE001 - the boundary to foreign code
                _logger.error(  # noqa: TRY400 - its traceback may hold what the caller wrote
                    "a guard failed", extra={"request_id": guarded.request_id, "error": type(error).__name__}
                )
                raise GuardFailed(f"a guard of the {guarded.side} came to no verdict") from None


async def _ask(guard: Guard, guarded: Guarded) -> None:
    if inspect.iscoroutinefunction(guard) or inspect.iscoroutinefunction(getattr(guard, "__call__", None)):  # noqa: B004
        said = guard(guarded)
    else:
        said = await asyncio.to_thread(guard, guarded)
    if inspect.isawaitable(said):
        await said


def _guarded(
    texts: Iterable[str], model: str, operation: Operation, context: CallContext, provider: str | None
) -> Guarded:
    caller = context.caller
    return Guarded(
        side="input" if provider is None else "output",
        operation=operation,
        texts=tuple(texts),
        model=model,
        tenant=caller.tenant,
        application=caller.application,
        user=caller.user,
        request_id=context.request_id,
        provider=provider,
    )


def _texts_in(request: ChatRequest | EmbeddingRequest | MediaRequest) -> list[str]:
    if isinstance(request, EmbeddingRequest):
        return [each for each in request.inputs if isinstance(each, str)]
    if isinstance(request, SpeechRequest):
        return [text for text in (request.text, request.instructions) if text]
    if isinstance(request, SearchRequest):
        return [text for text in (request.query, *request.urls, *_texts_inside(request.extra)) if text]
    if not isinstance(request, ChatRequest):
        texts = (getattr(request, name, None) for name in ("prompt", "negative_prompt"))
        return [text for text in texts if text]
    return [
        part.text
        for message in request.conversation.messages
        for part in message.parts
        if isinstance(part, TextPart)
    ]


def _texts_inside(value: object) -> list[str]:
    """Return every text that a vendor's own fields hold: some of them are questions, too."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [text for each in value for text in _texts_inside(each)] if isinstance(value, list) else []


def texts_out(result: ChatResult) -> list[str]:
    """Return the texts of an answer."""
    return [
        "".join(part.text for part in choice.parts if isinstance(part, TextPart)) for choice in result.choices
    ]


class StreamedTexts:
    """Keeps the texts of a stream, choice by choice, for the guards that look at its end."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[str]] = {}
        self._chars = 0

    def note(self, events: Sequence[ChatEvent]) -> None:
        """Keep what the events say.

        Raises:
            GuardRefused: it is more than can be kept.
        """
        for event in events:
            if isinstance(event, TextDelta):
                self._pieces.setdefault(event.index, []).append(event.text)
                self._chars += len(event.text)
            elif isinstance(event, Verbatim | VerbatimUsage):
                self.note(event.meaning)
        if self._chars > MAX_KEPT_CHARS:
            raise GuardRefused("the answer is longer than its guards can look at")

    def texts(self) -> list[str]:
        """Return what was kept."""
        return ["".join(pieces) for _, pieces in sorted(self._pieces.items())]
