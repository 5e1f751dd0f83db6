"""Voices and transcripts in the OpenAI surface: `/v1/audio/speech`, `/v1/audio/transcriptions`."""

from typing import Any

from msgspec import Struct

from llm_gate.dialects.openai_shapes import ErrorShape
from llm_gate.dialects.openai_speech import SpeechBody, decode_speech_request
from llm_gate.dialects.openai_transcriptions import decode_transcription, encode_transcription
from llm_gate.domain.media import SpeechResult, TranscriptionResult
from llm_gate.domain.money import format_usd
from llm_gate.engine.gate import Gate
from llm_gate.engine.speaking import Voice
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.forms import read_form
from llm_gate.http.media import send_medium
from llm_gate.http.openai import TAG, OpenAISurface, answer_reply_headers, note_answer
from llm_gate.http.routes import Route
from llm_gate.http.sse import answer_headers


class AudioRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of voices and transcripts."""

    gate: Gate

    async def speech(self, exchange: Exchange) -> None:
        """Read a text out."""
        request = decode_speech_request(await exchange.body())

        async def work() -> None:
            context = exchange.context(user=request.user)
            voice = await self.gate.speak(request, context)
            if voice is not None:
                await send_voice(exchange, voice)
                return
            answer = await self.gate.make(request, context)
            assert isinstance(answer.result, SpeechResult)  # noqa: S101 - the operation's own result
            await send_medium(exchange, answer, answer.result.audio)

        await watched(exchange, work())

    async def transcriptions(self, exchange: Exchange) -> None:
        """Write a recording down."""
        form = await read_form(exchange)
        request, wanted = decode_transcription(form.fields, form.files)

        async def work() -> None:
            answer = await self.gate.make(request, exchange.context(user=request.user))
            assert isinstance(answer.result, TranscriptionResult)  # noqa: S101 - the operation's own result
            cost_usd = None if answer.cost is None else format_usd(answer.cost.nanos)
            body, content_type = encode_transcription(answer.result, wanted, cost_usd=cost_usd)
            note_answer(exchange, answer)
            headers = answer_reply_headers(exchange, answer)
            await exchange.reply(Reply(body=body, content_type=content_type, headers=headers))

        await watched(exchange, work())

    def routes(self) -> list[Route]:
        """Return the rows of voices and transcripts."""
        shared: dict[str, Any] = {
            "method": "POST",
            "surface": OpenAISurface(),
            "tag": TAG,
            "error_type": ErrorShape,
        }
        return [
            Route(
                path="/v1/audio/speech",
                endpoint=self.speech,
                summary="Read a text out; answers with the sound itself",
                operation="speech",
                request_type=SpeechBody,
                content="audio/*",
                example={"model": "default", "input": "Hello there", "voice": "alloy"},
                **shared,
            ),
            Route(
                path="/v1/audio/transcriptions",
                endpoint=self.transcriptions,
                summary="Write a recording down (a form with the file)",
                operation="transcription",
                form={"file": "file", "model": "text", "language": "text", "response_format": "text"},
                **shared,
            ),
        ]


async def send_voice(exchange: Exchange, voice: Voice) -> None:
    """Send a voice as it is spoken; one that breaks off is cut, since sound has no words for an error."""
    headers = dict(
        answer_headers(voice.target, attempts=voice.attempts, tried=voice.tried, dropped=(), shown={})
    )
    if voice.cost is not None:
        headers["x-llm-gate-cost-usd"] = format_usd(voice.cost.nanos)
    exchange.note_result(
        voice.target, None, voice.cost, attempts=voice.attempts, upstream_s=exchange.elapsed_s
    )
    try:
        pieces = voice.pieces()
        first = await anext(pieces)
        await exchange.begin_stream(headers, content_type=voice.type)
        await exchange.send_piece(first)
        async for piece in pieces:
            await exchange.send_piece(piece)
        await exchange.end_stream()
    finally:
        await voice.close()
