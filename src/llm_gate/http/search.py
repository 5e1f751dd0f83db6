"""Searches in the native surface (`/llm-gate/v1/search`) and in the OpenAI surface (`/v1/search`)."""

from typing import Any

from msgspec import Struct

from llm_gate.dialects import native_search, openai_search
from llm_gate.dialects.native_wire import ErrorReply
from llm_gate.dialects.openai_shapes import ErrorShape
from llm_gate.domain.search import SearchResult
from llm_gate.engine.gate import Gate
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange
from llm_gate.http.native import HEADERS, NativeSurface, require_headers
from llm_gate.http.openai import TAG, OpenAISurface, send_answer
from llm_gate.http.routes import Parameter, Route

_EXAMPLE = "Who won the 2022 World Cup?"


class SearchRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of searches."""

    gate: Gate
    api_path: str

    async def native(self, exchange: Exchange) -> None:
        """Search, and answer with all that is known of what was found."""
        require_headers(exchange)
        request = native_search.decode_search_request(await exchange.body())

        async def work() -> None:
            answer = await self.gate.make(request, exchange.context())
            result = answer.result
            assert isinstance(result, SearchResult)  # noqa: S101 - the operation's own result
            await send_answer(
                exchange, answer, native_search.encode_search(result, answer.target, answer.cost)
            )

        await watched(exchange, work())

    async def search(self, exchange: Exchange) -> None:
        """Search, and answer with titles, addresses and snippets."""
        await self._compatible(exchange, None)

    async def by_name(self, exchange: Exchange) -> None:
        """Search with the provider, model or alias that the path names."""
        await self._compatible(exchange, exchange.path_value)

    async def _compatible(self, exchange: Exchange, tool: str | None) -> None:
        asked = openai_search.decode_search_request(await exchange.body(), tool)

        async def work() -> None:
            answer = await self.gate.make(asked.request, exchange.context(user=asked.request.user))
            result = answer.result
            assert isinstance(result, SearchResult)  # noqa: S101 - the operation's own result
            await send_answer(exchange, answer, openai_search.encode_search(result, asked.most_chars))

        await watched(exchange, work())

    def routes(self) -> list[Route]:
        """Return the rows of searches."""
        compatible: dict[str, Any] = {
            "method": "POST",
            "surface": OpenAISurface(),
            "tag": TAG,
            "operation": "search",
            "request_type": openai_search.SearchBody,
            "response_type": openai_search.SearchShape,
            "error_type": ErrorShape,
            "example": {"query": _EXAMPLE, "max_results": 3},
        }
        return [
            Route(
                method="POST",
                path=f"{self.api_path}/v1/search",
                endpoint=self.native,
                summary="Search the web, the news, pictures or papers; read pages; have a question answered",
                surface=NativeSurface(),
                tag="LLM Gate",
                operation="search",
                request_type=native_search.SearchBody,
                response_type=native_search.SearchReply,
                error_type=ErrorReply,
                parameters=HEADERS,
                example={"query": _EXAMPLE, "maxResults": 3},
            ),
            Route(
                path="/v1/search",
                endpoint=self.search,
                summary="Search the web, in the form of LiteLLM's search endpoint",
                **compatible,
            ),
            Route(
                path="/v1/search/{name}",
                endpoint=self.by_name,
                summary="Search the web with the provider, model or alias that is named",
                parameters=(
                    Parameter(name="name", place="path", description="A provider, a model or an alias"),
                ),
                **compatible,
            ),
        ]
