"""Pictures in the OpenAI surface: `/v1/images/generations`, `/v1/images/edits`."""

from typing import Any

from msgspec import Struct

from llm_gate.dialects.openai_images_inbound import (
    ImageBody,
    ImagesReplyShape,
    decode_image_edit,
    decode_image_request,
    encode_image_result,
    read_json_edit,
)
from llm_gate.dialects.openai_shapes import ErrorShape
from llm_gate.domain.media import ImageEditRequest, ImageRequest, ImageResult
from llm_gate.domain.money import format_usd
from llm_gate.domain.provider import Target
from llm_gate.engine.gate import Gate
from llm_gate.engine.keeping import Keeping
from llm_gate.http.app import watched
from llm_gate.http.exchange import JSON, Exchange
from llm_gate.http.forms import read_form
from llm_gate.http.media import made_medium
from llm_gate.http.openai import TAG, OpenAISurface, send_answer
from llm_gate.http.routes import Route


def _usual_form(target: Target) -> str:
    """Return the form that a model's own vendor answers in: those that can be asked for either give links."""
    spec = target.model.media
    return "url" if spec is not None and "response_format" in spec.fields else "b64_json"


class ImageRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of pictures."""

    gate: Gate
    keeping: Keeping

    async def generations(self, exchange: Exchange) -> None:
        """Make pictures."""
        request, form = decode_image_request(await exchange.body())
        await watched(exchange, self._pictures(exchange, request, form))

    async def edits(self, exchange: Exchange) -> None:
        """Change pictures."""
        if exchange.headers.get("content-type", "").partition(";")[0].strip().lower() == JSON:
            request, form = read_json_edit(await exchange.body())
        else:
            sent = await read_form(exchange)
            request, form = decode_image_edit(sent.fields, sent.files)
        await watched(exchange, self._pictures(exchange, request, form))

    async def _pictures(
        self, exchange: Exchange, request: ImageRequest | ImageEditRequest, form: str
    ) -> None:
        answer = await self.gate.make(request, exchange.context(user=request.user))
        result = answer.result
        assert isinstance(result, ImageResult)  # noqa: S101 - the operation's own result
        urls = None
        if (form or _usual_form(answer.target)) == "url":
            made = [await made_medium(self.keeping, exchange, picture.medium) for picture in result.pictures]
            urls = [each.url for each in made]
        body = encode_image_result(
            result,
            urls=urls,
            created_s=int(exchange.received_at.timestamp()),
            cost_usd=None if answer.cost is None else format_usd(answer.cost.nanos),
        )
        await send_answer(exchange, answer, body)

    def routes(self) -> list[Route]:
        """Return the rows of pictures."""
        shared: dict[str, Any] = {
            "method": "POST",
            "surface": OpenAISurface(),
            "tag": TAG,
            "error_type": ErrorShape,
            "response_type": ImagesReplyShape,
        }
        return [
            Route(
                path="/v1/images/generations",
                endpoint=self.generations,
                summary="Make pictures from words",
                operation="image",
                request_type=ImageBody,
                example={"model": "default", "prompt": "A cat wearing a hat"},
                **shared,
            ),
            Route(
                path="/v1/images/edits",
                endpoint=self.edits,
                summary="Change pictures (a form with the files, or JSON with links)",
                operation="image_edit",
                form={"image": "file", "mask": "file", "prompt": "text", "model": "text", "size": "text"},
                **shared,
            ),
        ]
