"""Media in the native surface, `/llm-gate/v1`: pictures, edits, face swaps, voices, transcripts, and links to them."""

from typing import Any
from urllib.parse import parse_qs

from msgspec import Struct

from llm_gate.dialects.native_media import (
    MadeMedium,
    decode_face_swap,
    decode_image_edit,
    decode_image_request,
    decode_speech_request,
    decode_transcription,
    encode_images,
    encode_speech,
    encode_transcription,
)
from llm_gate.dialects.native_media_wire import (
    FaceSwapBody,
    ImageEditBody,
    ImagesBody,
    MediaReply,
    SpeechBody,
    TranscriptionBody,
    TranscriptionReply,
)
from llm_gate.dialects.native_wire import ErrorReply
from llm_gate.domain.media import ImageResult, MediaRequest, Medium, SpeechResult, TranscriptionResult
from llm_gate.domain.media_types import UNKNOWN
from llm_gate.engine.answer import Answer
from llm_gate.engine.gate import Gate
from llm_gate.engine.keeping import Keeping
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.native import HEADERS, NativeSurface, require_headers
from llm_gate.http.openai import answer_reply_headers, note_answer, send_answer
from llm_gate.http.routes import Parameter, Route

_TAG = "LLM Gate: media"
# A link would do as well; these can be sent as they stand.
_EXAMPLE_PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mP8"
    "z4AdMDEMKQkAzUEBD7t4NqoAAAAASUVORK5CYII="
)
_EXAMPLE_SOUND = (
    "UklGRlYAAABXQVZFZm10IBAAAAABAAEA6AMAAOgDAAABAAgAZGF0YTIAAACAgICAgICAgICAgICAgICA"
    "gICAgICAgICAgICAgICAgICAgICAgA=="
)


async def made_medium(keeping: Keeping, exchange: Exchange, medium: Medium) -> MadeMedium:
    """Keep a medium for the caller's tenant, and return the link to it."""
    kept = keeping.link(await keeping.keep(exchange.identity.tenant, medium))
    return MadeMedium(
        url=f"{exchange.origin}{kept.path}", expires_at=kept.expires_at.isoformat(timespec="seconds")
    )


async def send_medium(exchange: Exchange, answer: Answer[Any], medium: Medium) -> None:
    """Send a medium's bytes, with the headers that say who made it, how, and what it cost."""
    note_answer(exchange, answer)
    headers = answer_reply_headers(exchange, answer)
    await exchange.reply(Reply(body=medium.data, content_type=medium.type, headers=headers))


def shown_type(said: str) -> str:
    """Return the type that a medium is handed out as: nothing that a browser would run, whatever its vendor said."""
    plain = said.partition(";")[0].strip().lower()
    is_harmless = plain.partition("/")[0] in {"image", "audio", "video"} and plain != "image/svg+xml"
    return plain if is_harmless else UNKNOWN


class MediaRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of native media."""

    gate: Gate
    keeping: Keeping
    api_path: str

    async def images(self, exchange: Exchange) -> None:
        """Make pictures."""
        require_headers(exchange)
        request, form = decode_image_request(await exchange.body())
        await watched(exchange, self._pictures(exchange, request, form))

    async def edits(self, exchange: Exchange) -> None:
        """Change pictures."""
        require_headers(exchange)
        request, form = decode_image_edit(await exchange.body())
        await watched(exchange, self._pictures(exchange, request, form))

    async def face_swaps(self, exchange: Exchange) -> None:
        """Put the face of one picture into another."""
        require_headers(exchange)
        request, form = decode_face_swap(await exchange.body())
        await watched(exchange, self._pictures(exchange, request, form))

    async def _pictures(self, exchange: Exchange, request: MediaRequest, form: str) -> None:
        answer = await self.gate.make(request, exchange.context())
        result = answer.result
        assert isinstance(result, ImageResult)  # noqa: S101 - the operation's own result
        made = None
        if form == "url":
            made = [await made_medium(self.keeping, exchange, picture.medium) for picture in result.pictures]
        await send_answer(exchange, answer, encode_images(result, answer.target, answer.cost, made))

    async def speech(self, exchange: Exchange) -> None:
        """Read a text out."""
        require_headers(exchange)
        request, form = decode_speech_request(await exchange.body())

        async def work() -> None:
            answer = await self.gate.make(request, exchange.context())
            result = answer.result
            assert isinstance(result, SpeechResult)  # noqa: S101 - the operation's own result
            if form == "binary":
                await send_medium(exchange, answer, result.audio)
                return
            made = await made_medium(self.keeping, exchange, result.audio) if form == "url" else None
            await send_answer(exchange, answer, encode_speech(result, answer.target, answer.cost, made))

        await watched(exchange, work())

    async def transcriptions(self, exchange: Exchange) -> None:
        """Write a recording down."""
        require_headers(exchange)
        request = decode_transcription(await exchange.body())

        async def work() -> None:
            answer = await self.gate.make(request, exchange.context())
            result = answer.result
            assert isinstance(result, TranscriptionResult)  # noqa: S101 - the operation's own result
            await send_answer(exchange, answer, encode_transcription(result, answer.target, answer.cost))

        await watched(exchange, work())

    async def blob(self, exchange: Exchange) -> None:
        """Hand out what a signed link names."""
        query = parse_qs(exchange.query.decode("latin-1"))
        expires, signature = (query.get(name, [""])[0] for name in ("expires", "signature"))
        blob, data = await self.keeping.fetch(exchange.path_value, expires, signature)
        headers = {
            # What a model made is shown as what it is and runs nothing, whoever opens the link.
            "content-security-policy": "default-src 'none'",
            "cache-control": "private, max-age=3600",
            "content-disposition": "inline",
        }
        await exchange.reply(Reply(body=data, content_type=shown_type(blob.type), headers=headers))

    def routes(self) -> list[Route]:
        """Return the rows of native media."""
        surface = NativeSurface()
        shared: dict[str, Any] = {
            "method": "POST",
            "surface": surface,
            "tag": _TAG,
            "error_type": ErrorReply,
            "parameters": HEADERS,
        }
        root = f"{self.api_path}/v1"
        return [
            Route(
                path=f"{root}/images/generations",
                endpoint=self.images,
                summary="Make pictures from words",
                operation="image",
                request_type=ImagesBody,
                response_type=MediaReply,
                example={
                    "prompt": {"message": "A cat wearing a hat", "parameter": {"n": 1, "size": "1024x1024"}}
                },
                **shared,
            ),
            Route(
                path=f"{root}/images/edits",
                endpoint=self.edits,
                summary="Change pictures: edit, inpaint, outpaint, erase, remove the background",
                operation="image_edit",
                request_type=ImageEditBody,
                response_type=MediaReply,
                example={"images": [_EXAMPLE_PICTURE], "prompt": {"message": "Make the hat red"}},
                **shared,
            ),
            Route(
                path=f"{root}/images/face-swaps",
                endpoint=self.face_swaps,
                summary="Put the face of one picture into another",
                operation="face_swap",
                request_type=FaceSwapBody,
                response_type=MediaReply,
                example={"baseImage": _EXAMPLE_PICTURE, "faceImage": _EXAMPLE_PICTURE},
                **shared,
            ),
            *self._audio_routes(root, shared),
            Route(
                method="GET",
                path=f"{root}/blobs/{{id}}",
                endpoint=self.blob,
                summary="Fetch a medium by its signed link, which needs no key",
                content="image/*",
                surface=surface,
                tag=_TAG,
                error_type=ErrorReply,
                policy="open",
                parameters=(
                    Parameter(name="id", place="path", description="The medium's id"),
                    Parameter(name="expires", place="query", description="When the link ends"),
                    Parameter(name="signature", place="query", description="The link's signature"),
                ),
            ),
        ]

    def _audio_routes(self, root: str, shared: dict[str, Any]) -> list[Route]:
        return [
            Route(
                path=f"{root}/audio/speech",
                endpoint=self.speech,
                summary="Read a text out",
                operation="speech",
                request_type=SpeechBody,
                response_type=MediaReply,
                example={"prompt": {"message": "Hello there"}},
                **shared,
            ),
            Route(
                path=f"{root}/audio/transcriptions",
                endpoint=self.transcriptions,
                summary="Write a recording down",
                operation="transcription",
                request_type=TranscriptionBody,
                response_type=TranscriptionReply,
                example={"audio": _EXAMPLE_SOUND},
                **shared,
            ),
        ]
