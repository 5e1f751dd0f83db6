"""Fine-tuning in the OpenAI surface: `/v1/fine_tuning/jobs`."""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from llm_gate.dialects.openai_fine_tuning_inbound import (
    PREFIX,
    Checkpoints,
    Events,
    FineTuningBody,
    FineTuningJob,
    FineTuningJobs,
    decode_fine_tuning,
    encode_checkpoints,
    encode_events,
    encode_tuning_job,
    encode_tuning_jobs,
)
from llm_gate.dialects.openai_shapes import ErrorShape
from llm_gate.domain.errors import AlreadyOver
from llm_gate.domain.fine_tuning import Steering
from llm_gate.domain.jobs import TERMINAL, Job
from llm_gate.engine.fine_tuning import TuningDesk, metadata_of, no_training
from llm_gate.engine.gate import Gate
from llm_gate.engine.job_training import CANCEL_TOLD
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.jobs import note_job, provider_headers
from llm_gate.http.openai import TAG, OpenAISurface
from llm_gate.http.query import Query
from llm_gate.http.routes import Parameter, Route

T = TypeVar("T")

_USUAL, _MOST = 20, 100
_CANCEL_S, _LOOK_S = 5.0, 0.1
_METADATA = re.compile(r"metadata\[(.+)\]")
_ID = Parameter(name="id", place="path", description="The job's id")
_PAGE = (
    Parameter(name="after", place="query", description="The last of the page before", required=False),
    Parameter(name="limit", place="query", description="How many, 1 to 100", required=False),
)


class FineTuningRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of fine-tuning."""

    gate: Gate
    tuning: TuningDesk

    async def create(self, exchange: Exchange) -> None:
        """Hand a training in."""
        request = decode_fine_tuning(await exchange.body())

        async def work() -> None:
            job = await self.gate.submit(request, exchange.context(user=request.user))
            note_job(exchange, job)
            await self._show(exchange, job)

        await watched(exchange, work())

    async def listed(self, exchange: Exchange) -> None:
        """List the trainings of the caller's tenant."""
        query = Query(exchange)
        limit = query.whole("limit", _USUAL, least=1, most=_MOST)
        after = query.text("after")
        found = await self.tuning.listed(
            exchange.caller().tenant,
            limit=limit + 1,
            before="" if after is None else _job_id(after),
            wanted=_filter(query),
        )
        body = encode_tuning_jobs(found[:limit], has_more=len(found) > limit)
        await exchange.reply(Reply(body=body))

    async def one(self, exchange: Exchange) -> None:
        """Show how a training stands."""
        await self._show(exchange, await self._find(exchange))

    async def cancel(self, exchange: Exchange) -> None:
        """Call a training off, and wait a little until its vendor has said how it ended."""
        await watched(exchange, self._cancel(exchange))

    async def _cancel(self, exchange: Exchange) -> None:
        job = await self._find(exchange)
        if job.status in TERMINAL or not await self.gate.jobs.jobs.cancel(job.id):
            raise AlreadyOver("the fine-tuning job has ended already", code="job_over")
        waited_s = 0.0
        while job.status not in TERMINAL and waited_s < _CANCEL_S:
            await asyncio.sleep(_LOOK_S)
            waited_s += _LOOK_S
            job = await self._find(exchange)
            if job.results.get(CANCEL_TOLD) == "refused":
                break
        await self._show(exchange, job)

    async def pause(self, exchange: Exchange) -> None:
        """Let a training rest."""
        await self._steer(exchange, "pause")

    async def resume(self, exchange: Exchange) -> None:
        """Let a training go on."""
        await self._steer(exchange, "resume")

    async def _steer(self, exchange: Exchange, way: Steering) -> None:
        tenant = exchange.caller().tenant
        job_id = _job_id(exchange.path_value)

        async def work() -> None:
            job = await self.tuning.steer(self.gate.working, tenant, job_id, way)
            await self._show(exchange, job)

        await watched(exchange, work())

    async def events(self, exchange: Exchange) -> None:
        """Tell what has happened in a training."""
        query = Query(exchange)
        limit = query.whole("limit", _USUAL, least=1, most=_MOST)
        tenant = exchange.caller().tenant
        job_id = _job_id(exchange.path_value)

        async def work() -> None:
            found = await self.tuning.events(self.gate.working, tenant, job_id)
            page, has_more = _page(found, query.text("after"), limit, lambda event: event.id)
            await exchange.reply(Reply(body=encode_events(page, has_more=has_more)))

        await watched(exchange, work())

    async def checkpoints(self, exchange: Exchange) -> None:
        """Show the models between of a training."""
        query = Query(exchange)
        limit = query.whole("limit", _USUAL, least=1, most=_MOST)
        job = await self._find(exchange)

        async def work() -> None:
            found = await self.tuning.checkpoints(self.gate.working, job.tenant, job.id)
            page, has_more = _page(found, query.text("after"), limit, lambda each: each.id)
            await exchange.reply(Reply(body=encode_checkpoints(page, job, has_more=has_more)))

        await watched(exchange, work())

    async def _find(self, exchange: Exchange) -> Job:
        return await self.tuning.find(exchange.caller().tenant, _job_id(exchange.path_value))

    async def _show(self, exchange: Exchange, job: Job) -> None:
        await exchange.reply(Reply(body=encode_tuning_job(job), headers=provider_headers(job)))

    def routes(self) -> list[Route]:
        """Return the rows of fine-tuning."""
        shared: dict[str, Any] = {"surface": OpenAISurface(), "tag": TAG, "error_type": ErrorShape}
        return [
            Route(
                method="POST",
                path="/v1/fine_tuning/jobs",
                endpoint=self.create,
                summary="Train a model of your own; answers with the job",
                operation="fine_tune",
                request_type=FineTuningBody,
                response_type=FineTuningJob,
                example={"model": "default", "training_file": "file-01a1fe271a23-201d6a137cf1752b-0"},
                **shared,
            ),
            Route(
                method="GET",
                path="/v1/fine_tuning/jobs",
                endpoint=self.listed,
                summary="List your trainings, the newest first",
                response_type=FineTuningJobs,
                needs="inference",
                parameters=_PAGE,
                **shared,
            ),
            *self._routes_of_one(shared),
        ]

    def _routes_of_one(self, shared: dict[str, Any]) -> list[Route]:
        root = "/v1/fine_tuning/jobs/{id}"
        one: dict[str, Any] = {**shared, "needs": "inference"}
        job: dict[str, Any] = {**one, "parameters": (_ID,), "response_type": FineTuningJob}
        page: dict[str, Any] = {**one, "parameters": (_ID, *_PAGE)}
        return [
            Route(method="GET", path=root, endpoint=self.one, summary="Show how a training stands", **job),
            Route(
                method="POST",
                path=f"{root}/cancel",
                endpoint=self.cancel,
                summary="Call a training off",
                **job,
            ),
            Route(
                method="POST", path=f"{root}/pause", endpoint=self.pause, summary="Let a training rest", **job
            ),
            Route(
                method="POST",
                path=f"{root}/resume",
                endpoint=self.resume,
                summary="Let a training go on",
                **job,
            ),
            Route(
                method="GET",
                path=f"{root}/events",
                endpoint=self.events,
                summary="Tell what has happened in a training",
                response_type=Events,
                **page,
            ),
            Route(
                method="GET",
                path=f"{root}/checkpoints",
                endpoint=self.checkpoints,
                summary="Show the models between of a training",
                response_type=Checkpoints,
                **page,
            ),
        ]


def _job_id(name: str) -> str:
    """Return our id of a job by the one that callers know.

    Raises:
        NotFound: it cannot be one.
    """
    if not name.startswith(PREFIX):
        raise no_training()
    return name.removeprefix(PREFIX)


def _filter(query: Query) -> Callable[[Job], bool] | None:
    """Return what tells whether a job bears the notes that are asked for; "null" asks for none at all."""
    if query.text("metadata") == "null":
        return lambda job: not metadata_of(job)
    wanted = {found[1]: value for name, value in query.fields.items() if (found := _METADATA.fullmatch(name))}
    if not wanted:
        return None
    return lambda job: wanted.items() <= metadata_of(job).items()


def _page(
    found: Sequence[T], after: str | None, limit: int, id_of: Callable[[T], str]
) -> tuple[Sequence[T], bool]:
    start = 0
    if after is not None:
        ids = [id_of(each) for each in found]
        start = ids.index(after) + 1 if after in ids else len(ids)
    return found[start : start + limit], len(found) > start + limit
