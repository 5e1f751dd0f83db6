"""Batches in the OpenAI surface: `/v1/batches`, and how the calls of their lines are read and written."""

from typing import Any

from msgspec import Struct

from llm_gate.dialects.openai_batches import (
    BatchBody,
    BatchList,
    BatchObject,
    decode_batch_request,
    encode_answered_line,
    encode_batch,
    encode_batches,
    encode_lost_line,
)
from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.dialects.openai_completions import Head, decode_completion_request, encode_completion
from llm_gate.dialects.openai_embeddings import decode_embedding_request, encode_embedding_result
from llm_gate.dialects.openai_responses import decode_responses_request
from llm_gate.dialects.openai_responses_results import Frame, encode_response
from llm_gate.dialects.openai_results import encode_result
from llm_gate.dialects.openai_shapes import ErrorShape
from llm_gate.domain.batches import BatchEndpoint, BatchWay
from llm_gate.domain.errors import GateError, InvalidRequest
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.engine.answer import Answer
from llm_gate.engine.batch_lines import AskedLine, Spot
from llm_gate.engine.batches import BatchDesk
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange, Reply, require_json
from llm_gate.http.failures import failure_of
from llm_gate.http.openai import TAG, OpenAISurface
from llm_gate.http.query import Query
from llm_gate.http.routes import Parameter, Route

WAY_HEADER = "x-llm-gate-batch"
"""Where the lines are to be worked on; without it, at the vendor where that takes batches of the model."""

_WAYS: tuple[BatchWay, ...] = ("vendor", "gateway")
_MOST_LISTED, _LISTED = 100, 20
_ID = Parameter(name="id", place="path", description="The batch's id")


class OpenAIAsked(Struct, frozen=True, kw_only=True):
    """A line's call; `echo` is what the answer of a Responses call repeats of it."""

    endpoint: BatchEndpoint
    request: ChatRequest | EmbeddingRequest
    echo: Any = None


class OpenAIWording:
    """Reads and writes the lines of batches as this surface reads and writes the calls themselves."""

    def ask(self, endpoint: BatchEndpoint, body: bytes) -> AskedLine:
        """Read the body of a line's call.

        Raises:
            InvalidRequest: it is malformed.
        """
        match endpoint:
            case "/v1/chat/completions":
                return OpenAIAsked(endpoint=endpoint, request=decode_chat_request(body))
            case "/v1/embeddings":
                return OpenAIAsked(endpoint=endpoint, request=decode_embedding_request(body))
            case "/v1/completions":
                return OpenAIAsked(endpoint=endpoint, request=decode_completion_request(body))
            case _:
                asked = decode_responses_request(body)
                return OpenAIAsked(endpoint=endpoint, request=asked.chat, echo=asked.echo)

    def answered(self, spot: Spot, asked: AskedLine, answer: Answer[Any], *, at_s: int) -> bytes:
        """Write the line of a call that was answered."""
        body = _body(spot, asked, answer, at_s)
        return encode_answered_line(spot.id, spot.custom_id, spot.request_id, status=200, body=body)

    def refused(self, spot: Spot, error: GateError) -> bytes:
        """Write the line of a call that came to an error."""
        failure = failure_of(error, request_id=spot.request_id)
        body = OpenAISurface().error(failure)
        return encode_answered_line(
            spot.id, spot.custom_id, spot.request_id, status=failure.status, body=body
        )

    def lost(self, spot: Spot, *, code: str, message: str) -> bytes:
        """Write the line of a call that was not made, or whose answer is not there."""
        return encode_lost_line(spot.id, spot.custom_id, code=code, message=message)


def _body(spot: Spot, asked: AskedLine, answer: Answer[Any], at_s: int) -> bytes:
    """Write the answer to a call, as its own endpoint would."""
    result, target, request = answer.result, answer.target, asked.request
    model, stem = target.model.name, spot.id.removeprefix("batch_req_")
    synthetic = target.deployment.spec.synthetic
    if isinstance(request, EmbeddingRequest):
        return encode_embedding_result(result, request, model=model, cost=answer.cost)
    assert isinstance(asked, OpenAIAsked)  # noqa: S101 - `ask` made it
    if asked.endpoint == "/v1/completions":
        head = Head(id=f"cmpl-{stem}", model=model, created_s=at_s, synthetic=synthetic)
        return encode_completion(result, head, cost=answer.cost)
    if asked.endpoint == "/v1/responses":
        frame = Frame(
            id_stem=stem,
            model=result.model or model,
            created_s=result.created_s or at_s,
            echo=asked.echo,
            synthetic=synthetic,
        )
        return encode_response(result, frame, completed_s=at_s, cost=answer.cost)
    return encode_result(
        result, fallback_id=f"chatcmpl-{stem}", model=model, created_s=at_s, cost=answer.cost
    )


class BatchRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of batches."""

    batches: BatchDesk

    async def create(self, exchange: Exchange) -> None:
        """Take a batch in."""
        require_json(exchange)
        asked = decode_batch_request(await exchange.body())
        wish = _asked_way(exchange)
        context = exchange.context()

        async def work() -> None:
            batch = await self.batches.create(
                context,
                endpoint=asked.endpoint,
                input_file=asked.input_file,
                metadata=asked.metadata,
                wish=wish,
                output_expires_s=asked.output_expires_s,
            )
            await exchange.reply(Reply(body=encode_batch(batch)))

        await watched(exchange, work())

    async def listed(self, exchange: Exchange) -> None:
        """List the batches of the caller's tenant."""
        query = Query(exchange)
        query.only("after", "limit")
        limit = query.whole("limit", _LISTED, least=1, most=_MOST_LISTED)
        after = query.text("after") or ""
        found = await self.batches.listed(exchange.caller().tenant, limit=limit + 1, after=after)
        await exchange.reply(Reply(body=encode_batches(found[:limit], has_more=len(found) > limit)))

    async def one(self, exchange: Exchange) -> None:
        """Show how a batch stands."""
        batch = await self.batches.find(exchange.caller().tenant, exchange.path_value)
        await exchange.reply(Reply(body=encode_batch(batch)))

    async def cancel(self, exchange: Exchange) -> None:
        """Call a batch off."""
        batch = await self.batches.cancel(exchange.caller().tenant, exchange.path_value)
        await exchange.reply(Reply(body=encode_batch(batch)))

    def routes(self) -> list[Route]:
        """Return the rows of batches."""
        shared: dict[str, Any] = {
            "surface": OpenAISurface(),
            "tag": TAG,
            "error_type": ErrorShape,
            "needs": "inference",
        }
        one: dict[str, Any] = {**shared, "parameters": (_ID,), "response_type": BatchObject}
        return [
            Route(
                method="POST",
                path="/v1/batches",
                endpoint=self.create,
                summary="Hand many calls in as a file, to be done within a day",
                request_type=BatchBody,
                response_type=BatchObject,
                parameters=(_WAY,),
                example=_EXAMPLE,
                **shared,
            ),
            Route(
                method="GET",
                path="/v1/batches",
                endpoint=self.listed,
                summary="List your batches",
                response_type=BatchList,
                parameters=_LISTING,
                **shared,
            ),
            Route(
                method="GET",
                path="/v1/batches/{id}",
                endpoint=self.one,
                summary="Show how a batch stands",
                **one,
            ),
            Route(
                method="POST",
                path="/v1/batches/{id}/cancel",
                endpoint=self.cancel,
                summary="Call a batch off",
                **one,
            ),
        ]


def _asked_way(exchange: Exchange) -> BatchWay | None:
    """Return where the caller wants the lines worked on.

    Raises:
        InvalidRequest: the header says something else.
    """
    text = exchange.headers.get(WAY_HEADER)
    way = next((each for each in _WAYS if each == text), None)
    if text is not None and way is None:
        raise InvalidRequest(f"{WAY_HEADER}: must be one of {', '.join(_WAYS)}", param=WAY_HEADER)
    return way


_WAY = Parameter(
    name=WAY_HEADER,
    place="header",
    description="Where the lines are worked on: vendor or gateway; by the model where it is absent",
    required=False,
)
_LISTING = (
    Parameter(name="after", place="query", description="The last batch of the page before", required=False),
    Parameter(name="limit", place="query", description="How many, 1 to 100", required=False),
)
_EXAMPLE = {
    "input_file_id": "file-...",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
}
