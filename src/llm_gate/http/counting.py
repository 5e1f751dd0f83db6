"""`/llm-gate/v1/chat/count-tokens`, and what counting has in common on every surface."""

from typing import Any, get_args

from msgspec import Struct

from llm_gate.dialects.native_counting import CountBody, CountReply, decode_count_request, encode_count
from llm_gate.dialects.native_wire import ErrorReply
from llm_gate.domain.counting import CountSource, TokenCount
from llm_gate.domain.errors import InvalidRequest
from llm_gate.engine.answer import Answer
from llm_gate.engine.counting import Counting
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.native import HEADERS, NativeSurface, require_headers
from llm_gate.http.openai import answer_reply_headers, note_answer
from llm_gate.http.routes import Parameter, Route

COUNT_HEADER = "x-llm-gate-count"
"""In a request: who is to count. In an answer: who did."""

COUNT_PARAMETER = Parameter(
    name=COUNT_HEADER,
    place="header",
    required=False,
    description="Who is to count: vendor, tokenizer or estimate",
)

_SOURCES: dict[str, CountSource] = {each: each for each in get_args(CountSource)}


def asked_source(exchange: Exchange) -> CountSource | None:
    """Read who is to count.

    Raises:
        InvalidRequest: the header names nobody.
    """
    text = exchange.headers.get(COUNT_HEADER)
    if text is None:
        return None
    if text not in _SOURCES:
        raise InvalidRequest(f"{COUNT_HEADER}: must be one of {', '.join(_SOURCES)}", param=COUNT_HEADER)
    return _SOURCES[text]


async def send_count(exchange: Exchange, answer: Answer[TokenCount], body: bytes) -> None:
    """Send a count with the headers that say who gave it, and whether it is a guess."""
    source = answer.result.source
    headers = {**answer_reply_headers(exchange, answer), COUNT_HEADER: source}
    if source == "vendor":
        note_answer(exchange, answer)
    else:
        headers["x-llm-gate-estimated"] = "true"
    await exchange.reply(Reply(body=body, headers=headers))


class CountRoutes(Struct, frozen=True, kw_only=True):
    """The native endpoint."""

    counting: Counting
    api_path: str

    async def count(self, exchange: Exchange) -> None:
        """Say how many tokens a conversation has."""
        require_headers(exchange)
        request, source = decode_count_request(await exchange.body())

        async def work() -> None:
            answer = await self.counting.count(request, exchange.context(), source)
            await send_count(exchange, answer, encode_count(answer.result))

        await watched(exchange, work())

    def routes(self) -> list[Route]:
        """Return the row."""
        example: dict[str, Any] = {
            "prompt": {"messages": [{"role": "user", "content": "Hello, how are you?"}]},
            "source": "estimate",
        }
        return [
            Route(
                method="POST",
                path=f"{self.api_path}/v1/chat/count-tokens",
                endpoint=self.count,
                surface=NativeSurface(),
                tag="LLM Gate",
                summary="Say how many tokens a conversation has, and who counted",
                needs="inference",
                request_type=CountBody,
                response_type=CountReply,
                error_type=ErrorReply,
                parameters=HEADERS,
                example=example,
            )
        ]
