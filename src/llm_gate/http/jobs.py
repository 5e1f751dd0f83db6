"""Slow work in the native surface: films handed in, jobs looked at, followed, fetched and called off."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import UNSET, Struct

from llm_gate.dialects.native_jobs import JobList, JobReply, encode_job, job_reply
from llm_gate.dialects.native_media import MadeMedium, decode_video_request
from llm_gate.dialects.native_media_wire import VideosBody
from llm_gate.dialects.native_wire import ErrorReply
from llm_gate.domain.errors import Conflict, InvalidRequest, NotFound
from llm_gate.domain.jobs import TERMINAL, Job
from llm_gate.engine.gate import Gate
from llm_gate.engine.keeping import Keeping
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.media import shown_type
from llm_gate.http.native import HEADERS, NativeSurface, require_headers
from llm_gate.http.routes import Parameter, Route

_TAG = "LLM Gate: jobs"
_ACCEPTED = 202
_LOOK_S = 0.5
_LONGEST_FOLLOWED_S = 4 * 3_600.0
_MOST_LISTED = 100
_ID = Parameter(name="id", place="path", description="The job's id")


class JobRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of jobs."""

    gate: Gate
    keeping: Keeping
    api_path: str
    heartbeat_s: float

    async def videos(self, exchange: Exchange) -> None:
        """Hand a film in."""
        require_headers(exchange)
        request, webhook = decode_video_request(await exchange.body())

        async def work() -> None:
            job = await self.gate.submit(request, exchange.context(), webhook=webhook)
            note_job(exchange, job)
            headers = {"location": f"{self.api_path}/v1/jobs/{job.id}", **provider_headers(job)}
            await exchange.reply(Reply(status=_ACCEPTED, body=encode_job(job), headers=headers))

        await watched(exchange, work())

    async def jobs(self, exchange: Exchange) -> None:
        """List the caller's jobs."""
        require_headers(exchange)
        query = parse_qs(exchange.query.decode("latin-1"))
        limit, before = query.get("limit", ["20"])[0], query.get("after", [""])[0]
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= _MOST_LISTED:
            raise InvalidRequest(f"limit: must be a number from 1 to {_MOST_LISTED}", param="limit")
        found = await self.gate.jobs.listed(exchange.caller(), limit=int(limit), before=before)
        replies = [job_reply(job, self._link(exchange, job)) for job in found]
        body = JobList(data=replies, next=found[-1].id if len(found) == int(limit) else UNSET)
        await exchange.reply(Reply(body=msgspec.json.encode(body)))

    async def job(self, exchange: Exchange) -> None:
        """Show how a job stands."""
        require_headers(exchange)
        job = await self._find(exchange)
        await exchange.reply(
            Reply(body=encode_job(job, self._link(exchange, job)), headers=provider_headers(job))
        )

    async def cancel(self, exchange: Exchange) -> None:
        """Call a job off."""
        require_headers(exchange)
        job = await self.gate.jobs.cancel(exchange.path_value, exchange.caller())
        await exchange.reply(Reply(status=_ACCEPTED, body=encode_job(job)))

    async def content(self, exchange: Exchange) -> None:
        """Hand out what a job made."""
        require_headers(exchange)
        await send_content(exchange, self.keeping, await self._find(exchange))

    async def events(self, exchange: Exchange) -> None:
        """Follow a job to its end."""
        require_headers(exchange)
        job = await self._find(exchange)
        await watched(exchange, self._follow(exchange, job))

    async def _follow(self, exchange: Exchange, job: Job) -> None:
        await exchange.begin_stream(provider_headers(job))
        async for data in self._events(exchange, job):
            await exchange.send_piece(data)
        await exchange.end_stream()

    async def _events(self, exchange: Exchange, job: Job) -> AsyncIterator[bytes]:
        shown: bytes | None = None
        silent_s = followed_s = 0.0
        while True:
            # A link is signed with the time: it belongs to the last event alone.
            link = self._link(exchange, job) if job.status in TERMINAL else None
            body = encode_job(job, link)
            if body != shown:
                name = "done" if job.status in TERMINAL else "progress"
                yield b"event: " + name.encode() + b"\ndata: " + body + b"\n\n"
                shown, silent_s = body, 0.0
            elif silent_s >= self.heartbeat_s:
                yield b": the job goes on\n\n"
                silent_s = 0.0
            if job.status in TERMINAL or followed_s > _LONGEST_FOLLOWED_S:
                return
            await asyncio.sleep(_LOOK_S)
            silent_s += _LOOK_S
            followed_s += _LOOK_S
            job = self.gate.known_job(job.id) or await self._find(exchange)

    async def _find(self, exchange: Exchange) -> Job:
        return await self.gate.jobs.find(exchange.path_value, exchange.caller())

    def _link(self, exchange: Exchange, job: Job) -> MadeMedium | None:
        if job.made is None or job.status != "succeeded" or job.ended_ms is None:
            return None
        kept = self.keeping.link_to(job.made.blob, job.ended_ms)
        return MadeMedium(
            url=f"{exchange.origin}{kept.path}", expires_at=kept.expires_at.isoformat(timespec="seconds")
        )

    def routes(self) -> list[Route]:
        """Return the rows of jobs."""
        shared: dict[str, Any] = {"surface": NativeSurface(), "tag": _TAG, "error_type": ErrorReply}
        root = f"{self.api_path}/v1"
        return [
            Route(
                method="POST",
                path=f"{root}/videos",
                endpoint=self.videos,
                summary="Make a film from words or a picture; answers with the job",
                operation="video",
                request_type=VideosBody,
                success=202,
                response_type=JobReply,
                parameters=HEADERS,
                example={"prompt": {"message": "Waves at dawn", "parameter": {"duration": 5}}},
                **shared,
            ),
            Route(
                method="GET",
                path=f"{root}/jobs",
                endpoint=self.jobs,
                summary="List your jobs, the newest first",
                response_type=JobList,
                needs="inference",
                parameters=(
                    *HEADERS,
                    Parameter(name="limit", place="query", description="How many, 1 to 100", required=False),
                    Parameter(
                        name="after",
                        place="query",
                        description="The `next` of the list before",
                        required=False,
                    ),
                ),
                **shared,
            ),
            *self._routes_of_one(root, shared),
        ]

    def _routes_of_one(self, root: str, shared: dict[str, Any]) -> list[Route]:
        one: dict[str, Any] = {**shared, "parameters": (_ID, *HEADERS), "needs": "inference"}
        return [
            Route(
                method="GET",
                path=f"{root}/jobs/{{id}}",
                endpoint=self.job,
                summary="Show how a job stands",
                response_type=JobReply,
                **one,
            ),
            Route(
                method="DELETE",
                path=f"{root}/jobs/{{id}}",
                endpoint=self.cancel,
                summary="Call a job off",
                success=202,
                response_type=JobReply,
                **one,
            ),
            Route(
                method="GET",
                path=f"{root}/jobs/{{id}}/events",
                endpoint=self.events,
                summary="Follow a job to its end as server-sent events",
                stream="always",
                **one,
            ),
            Route(
                method="GET",
                path=f"{root}/jobs/{{id}}/content",
                endpoint=self.content,
                summary="Fetch what a job made",
                content="video/*",
                **one,
            ),
        ]


def note_job(exchange: Exchange, job: Job) -> None:
    """Keep for the log line who took a job, and its pinned price."""
    exchange.log |= {
        "provider": job.provider,
        "model": job.model,
        "job": job.id,
        "cost_nanos": job.cost_nanos,
    }


def provider_headers(job: Job) -> dict[str, str]:
    """Return the headers that say who works on a job, and whether what comes of it is made up."""
    found: dict[str, str] = {}
    if job.provider:
        found |= {"x-llm-gate-provider": job.provider, "x-llm-gate-model": job.model}
    if job.synthetic:
        found["x-llm-gate-synthetic"] = "true"
    return found


async def send_content(exchange: Exchange, keeping: Keeping, job: Job) -> None:
    """Send what a job made.

    Raises:
        Conflict: it has not succeeded (yet).
        NotFound: what it made is not kept any more.
    """
    if job.status != "succeeded" or job.made is None:
        raise Conflict(f"job {job.id!r} is {job.status}: there is nothing to fetch", code="job_not_ready")
    found = await keeping.read(job.made.blob)
    if found is None:
        raise NotFound("what the job made is not kept any more", code="blob_not_found")
    _, data = found
    await exchange.reply(
        Reply(body=data, content_type=shown_type(job.made.type), headers=provider_headers(job))
    )
