"""`POST /llm-gate/v1/research`: a question answered from the web, whole or as a stream with its progress."""

from contextlib import aclosing
from typing import Any

from msgspec import Struct

from llm_gate.dialects.native_research import (
    ResearchBody,
    ResearchReply,
    decode_research,
    encode_research,
    encode_research_event,
    in_wire_names,
)
from llm_gate.dialects.native_wire import ErrorReply
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.money import format_usd
from llm_gate.domain.research import ResearchRequest, ResearchResult
from llm_gate.engine.research import Investigation, Research
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.native import HEADERS, NativeSurface, require_headers
from llm_gate.http.routes import Route
from llm_gate.http.sse import HEARTBEAT, Heartbeat

_EXAMPLE = {
    "question": "Which licence does CPython have?",
    "search": {"maxResults": 5},
    "maxTokens": 500,
}


class ResearchRoutes(Struct, frozen=True, kw_only=True):
    """The endpoint."""

    research: Research
    heartbeat_s: float
    api_path: str

    async def ask(self, exchange: Exchange) -> None:
        """Answer a question from the web."""
        require_headers(exchange)
        request = decode_research(await exchange.body())
        work = self._stream(exchange, request) if request.stream else self._answer(exchange, request)
        await watched(exchange, work)

    async def _opened(self, exchange: Exchange, request: ResearchRequest) -> Investigation:
        try:
            return await self.research.open(request, exchange.context())
        except InvalidRequest as error:
            raise in_wire_names(error) from None

    async def _answer(self, exchange: Exchange, request: ResearchRequest) -> None:
        investigation = await self._opened(exchange, request)
        try:
            async with aclosing(investigation.events()) as events:
                async for event in events:
                    if isinstance(event, ResearchResult):
                        _note(exchange, event)
                        await exchange.reply(Reply(body=encode_research(event), headers=_headers(event)))
        except InvalidRequest as error:
            raise in_wire_names(error) from None
        finally:
            investigation.close()

    async def _stream(self, exchange: Exchange, request: ResearchRequest) -> None:
        """Send the events as they come; what fails after the first of them is said in band."""
        investigation = await self._opened(exchange, request)
        events = investigation.events()
        heartbeat: Heartbeat | None = None
        exchange.log["stream"] = "cut"
        try:
            await exchange.begin_stream({})
            heartbeat = Heartbeat(exchange, self.heartbeat_s, HEARTBEAT)
            async for event in events:
                await heartbeat.send(encode_research_event(event))
                if isinstance(event, ResearchResult):
                    _note(exchange, event)
                    exchange.log["stream"] = "complete"
            await exchange.end_stream()
        except InvalidRequest as error:
            raise in_wire_names(error) from None
        finally:
            if heartbeat is not None:
                heartbeat.stop()
            await events.aclose()
            investigation.close()

    def routes(self) -> list[Route]:
        """Return the row."""
        shared: dict[str, Any] = {"surface": NativeSurface(), "tag": "LLM Gate", "error_type": ErrorReply}
        return [
            Route(
                method="POST",
                path=f"{self.api_path}/v1/research",
                endpoint=self.ask,
                summary="Answer a question from what a web search finds, with citations, whole or as events",
                operation="search",
                request_type=ResearchBody,
                response_type=ResearchReply,
                stream="asked",
                example=_EXAMPLE,
                parameters=HEADERS,
                **shared,
            )
        ]


def _headers(result: ResearchResult) -> dict[str, str]:
    headers: dict[str, str] = {}
    answerer = result.answerer
    if answerer is not None:
        headers |= {"x-llm-gate-provider": answerer.provider or "", "x-llm-gate-model": answerer.model or ""}
    if result.cost_nanos is not None:
        headers["x-llm-gate-cost-usd"] = format_usd(result.cost_nanos)
    if any(step.synthetic for step in result.steps):
        headers["x-llm-gate-synthetic"] = "true"
    return headers


def _note(exchange: Exchange, result: ResearchResult) -> None:
    """Keep for the log line what a research came to."""
    answerer = result.answerer
    exchange.log |= {
        "provider": None if answerer is None else answerer.provider,
        "model": None if answerer is None else answerer.model,
        "attempts": len(result.steps),
        "input_tokens": None if result.usage is None else result.usage.input_tokens,
        "output_tokens": None if result.usage is None else result.usage.output_tokens,
        "cost_nanos": result.cost_nanos,
    }
