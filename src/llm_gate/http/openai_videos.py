"""Films in the OpenAI surface: `/v1/videos`."""

from typing import Any

import msgspec
from msgspec import Struct

from llm_gate.dialects.openai_shapes import ErrorShape
from llm_gate.dialects.openai_videos import (
    VideoObject,
    decode_video_form,
    decode_video_request,
    video_object,
)
from llm_gate.domain.jobs import Job
from llm_gate.engine.gate import Gate
from llm_gate.engine.keeping import Keeping
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange, Reply, require_json
from llm_gate.http.forms import read_form
from llm_gate.http.jobs import note_job, provider_headers, send_content
from llm_gate.http.openai import TAG, OpenAISurface
from llm_gate.http.routes import Parameter, Route

_ID = Parameter(name="id", place="path", description="The film's id")
_STATUS: dict[str, Any] = {
    "queued": "queued",
    "running": "in_progress",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "failed",
}


class VideoList(Struct, frozen=True, kw_only=True):
    """Films, the newest first."""

    object: str = "list"
    data: list[VideoObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(Struct, frozen=True, kw_only=True):
    """A film that was called off."""

    id: str
    object: str = "video.deleted"
    deleted: bool = True


class VideoRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of films."""

    gate: Gate
    keeping: Keeping

    async def create(self, exchange: Exchange) -> None:
        """Hand a film in."""
        if exchange.headers.get("content-type", "").startswith("multipart/"):
            form = await read_form(exchange)
            request = decode_video_form(form.fields, form.files)
        else:
            require_json(exchange)
            request = decode_video_request(await exchange.body())

        async def work() -> None:
            job = await self.gate.submit(request, exchange.context(user=request.user))
            note_job(exchange, job)
            await exchange.reply(Reply(body=msgspec.json.encode(shown(job)), headers=provider_headers(job)))

        await watched(exchange, work())

    async def listed(self, exchange: Exchange) -> None:
        """List the caller's films."""
        jobs = await self.gate.jobs.listed(exchange.caller(), limit=20)
        films = [shown(job) for job in jobs if job.operation == "video"]
        first, last = (films[0].id, films[-1].id) if films else (None, None)
        body = VideoList(data=films, first_id=first, last_id=last, has_more=False)
        await exchange.reply(Reply(body=msgspec.json.encode(body)))

    async def _find(self, exchange: Exchange) -> Job:
        return await self.gate.jobs.find(exchange.path_value, exchange.caller(), operation="video")

    async def one(self, exchange: Exchange) -> None:
        """Show how a film stands."""
        job = await self._find(exchange)
        await exchange.reply(Reply(body=msgspec.json.encode(shown(job)), headers=provider_headers(job)))

    async def content(self, exchange: Exchange) -> None:
        """Hand a film out."""
        job = await self._find(exchange)
        await send_content(exchange, self.keeping, job)

    async def delete(self, exchange: Exchange) -> None:
        """Call a film off, or forget one that has ended."""
        job = await self._find(exchange)
        if not job.is_over:
            await self.gate.jobs.cancel(job.id, exchange.caller())
        elif job.made is not None:
            await self.keeping.blobs.remove(job.tenant, job.made.blob)
        await exchange.reply(Reply(body=msgspec.json.encode(VideoDeleted(id=job.id))))

    def routes(self) -> list[Route]:
        """Return the rows of films."""
        shared: dict[str, Any] = {"surface": OpenAISurface(), "tag": TAG, "error_type": ErrorShape}
        one: dict[str, Any] = {**shared, "parameters": (_ID,), "needs": "inference"}
        return [
            Route(
                method="POST",
                path="/v1/videos",
                endpoint=self.create,
                summary="Make a film; answers with the job",
                operation="video",
                form={
                    "model": "text",
                    "prompt": "text",
                    "seconds": "text",
                    "size": "text",
                    "input_reference": "file",
                },
                response_type=VideoObject,
                **shared,
            ),
            Route(
                method="GET",
                path="/v1/videos",
                endpoint=self.listed,
                summary="List your latest films",
                response_type=VideoList,
                needs="inference",
                **shared,
            ),
            Route(
                method="GET",
                path="/v1/videos/{id}",
                endpoint=self.one,
                summary="Show how a film stands",
                response_type=VideoObject,
                **one,
            ),
            Route(
                method="GET",
                path="/v1/videos/{id}/content",
                endpoint=self.content,
                summary="Fetch a film",
                content="video/*",
                **one,
            ),
            Route(
                method="DELETE",
                path="/v1/videos/{id}",
                endpoint=self.delete,
                summary="Call a film off, or remove what was made",
                response_type=VideoDeleted,
                **one,
            ),
        ]


def shown(job: Job) -> VideoObject:
    """Return a job as this surface shows films."""
    width, height = job.asked.get("width"), job.asked.get("height")
    made = job.made
    if made is not None and made.width and made.height:
        width, height = made.width, made.height
    seconds = job.asked.get("duration_s")
    code, message = job.error_code, job.error_message
    if job.status == "cancelled":
        code, message = "cancelled", "the film was called off"
    return video_object(
        id=job.id,
        status=_STATUS[job.status],
        progress=job.progress,
        model=job.model,
        created_s=job.made_ms / 1000,
        completed_s=None if job.ended_ms is None else job.ended_ms / 1000,
        seconds=seconds if isinstance(seconds, int) else None,
        size=f"{width}x{height}" if width and height else None,
        error_code=code,
        error_message=message,
    )
