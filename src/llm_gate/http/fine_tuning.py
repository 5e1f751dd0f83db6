"""Fine-tuning in the native surface; jobs are looked at, followed and called off as all jobs are."""

from msgspec import Struct

from llm_gate.dialects.native_fine_tuning import FineTuningBody, decode_fine_tuning
from llm_gate.dialects.native_jobs import JobReply, encode_job
from llm_gate.dialects.native_wire import ErrorReply
from llm_gate.engine.gate import Gate
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.jobs import note_job, provider_headers
from llm_gate.http.native import HEADERS, NativeSurface, require_headers
from llm_gate.http.routes import Route

_ACCEPTED = 202


class NativeFineTuningRoutes(Struct, frozen=True, kw_only=True):
    """The endpoint that hands trainings in."""

    gate: Gate
    api_path: str

    async def create(self, exchange: Exchange) -> None:
        """Hand a training in."""
        require_headers(exchange)
        request, webhook = decode_fine_tuning(await exchange.body())

        async def work() -> None:
            job = await self.gate.submit(request, exchange.context(), webhook=webhook)
            note_job(exchange, job)
            headers = {"location": f"{self.api_path}/v1/jobs/{job.id}", **provider_headers(job)}
            await exchange.reply(Reply(status=_ACCEPTED, body=encode_job(job), headers=headers))

        await watched(exchange, work())

    def routes(self) -> list[Route]:
        """Return the row."""
        return [
            Route(
                method="POST",
                path=f"{self.api_path}/v1/fine-tuning/jobs",
                endpoint=self.create,
                surface=NativeSurface(),
                summary="Train a model of your own; answers with the job",
                tag="LLM Gate: jobs",
                operation="fine_tune",
                request_type=FineTuningBody,
                response_type=JobReply,
                error_type=ErrorReply,
                success=_ACCEPTED,
                parameters=HEADERS,
                example={"trainingFile": "file-01a1fe271a23-201d6a137cf1752b-0", "suffix": "mine"},
            )
        ]
