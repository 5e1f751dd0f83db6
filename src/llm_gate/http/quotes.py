"""`/llm-gate/v1/quotes`: what planned operations will cost, and a hold on it that calls can spend."""

from typing import Any

from msgspec import Struct

from llm_gate.dialects.native_quotes import (
    HeldQuoteReply,
    QuoteBody,
    QuoteReply,
    decode_quote,
    encode_held,
    encode_quote,
)
from llm_gate.dialects.native_wire import ErrorReply
from llm_gate.domain.errors import InvalidRequest
from llm_gate.engine.gate import Gate
from llm_gate.engine.preflight import named
from llm_gate.engine.quotes import HeldQuote, Quoting
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.native import HEADERS, NativeSurface, require_headers
from llm_gate.http.routes import Parameter, Route

_FIELDS = {"input_tokens": "inputTokens", "max_tokens": "maxTokens", "model": "provider.model.name"}
_ID = Parameter(name="id", place="path", description="The quote's id")
_EXAMPLE = {
    "operations": [
        {"operation": "chat", "inputTokens": 800, "maxTokens": 500},
        {"operation": "image", "count": 2, "size": "1024x1024"},
    ],
    "reserve": True,
}


class QuoteRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints."""

    gate: Gate
    quoting: Quoting
    api_path: str

    async def quote(self, exchange: Exchange) -> None:
        """Price the operations and, where that is asked for and all of them may be done, hold what they may use."""
        require_headers(exchange)
        directory = self.gate.directory
        body, asked = decode_quote(await exchange.body(), directory)
        operations = [named(index, each, directory) for index, each in enumerate(asked)]
        context = exchange.context()
        try:
            found = await self.quoting.look(operations, context.caller, directory, exchange.received_at)
        except InvalidRequest as error:
            raise _in_native_words(error) from None
        if not body.reserve or not found.can_proceed:
            await exchange.reply(Reply(body=encode_quote(found)))
            return
        held = await self.quoting.hold(found, context, expires_in_s=body.expires_in_s)
        await exchange.reply(Reply(body=encode_quote(found, quote_id=held.id, expires_at=held.expires_at)))

    async def show(self, exchange: Exchange) -> None:
        """Show what an open quote still holds."""
        require_headers(exchange)
        held = await self.quoting.show(exchange.path_value, exchange.caller())
        await exchange.reply(Reply(body=_written(held)))

    async def release(self, exchange: Exchange) -> None:
        """End a quote; what it still held is free again."""
        require_headers(exchange)
        await exchange.body()
        held = await self.quoting.release(exchange.path_value, exchange.caller())
        await exchange.reply(Reply(body=_written(held)))

    def routes(self) -> list[Route]:
        """Return the rows."""
        shared: dict[str, Any] = {
            "surface": NativeSurface(),
            "tag": "LLM Gate",
            "error_type": ErrorReply,
        }
        path = f"{self.api_path}/v1/quotes"
        return [
            Route(
                method="POST",
                path=path,
                endpoint=self.quote,
                summary="Price planned operations, say which limit would bind, and hold what they may use if asked",
                request_type=QuoteBody,
                response_type=QuoteReply,
                example=_EXAMPLE,
                parameters=HEADERS,
                needs="inference",
                **shared,
            ),
            Route(
                method="GET",
                path=f"{path}/{{id}}",
                endpoint=self.show,
                summary="Show what an open quote still holds",
                response_type=HeldQuoteReply,
                parameters=(_ID, *HEADERS),
                needs="inference",
                **shared,
            ),
            Route(
                method="DELETE",
                path=f"{path}/{{id}}",
                endpoint=self.release,
                summary="End a quote, and show what it held until now",
                response_type=HeldQuoteReply,
                parameters=(_ID, *HEADERS),
                needs="inference",
                **shared,
            ),
        ]


def _in_native_words(error: InvalidRequest) -> InvalidRequest:
    """Return an error about an operation with the fields called as they are here."""
    place, _, field = (error.param or "").partition(".")
    name = _FIELDS.get(field, field)
    return InvalidRequest(
        error.message.replace(f" {field}:", f" {name}:"),
        param=f"{place}.{name}" if name else place,
        code=error.code,
    )


def _written(held: HeldQuote) -> bytes:
    return encode_held(
        quote_id=held.id,
        made_at=held.made_at,
        expires_at=held.expires_at,
        plan=held.plan,
        holds=held.holds,
    )
