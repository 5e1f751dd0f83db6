"""The pipeline every call goes through: resolve, estimate, reserve, attempt, settle; the same for every operation."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from llm_gate.domain.access import CallContext
from llm_gate.domain.cache import CacheRules
from llm_gate.domain.catalog import Ability, Operation, ProviderEntry
from llm_gate.domain.errors import (
    GateFault,
)
from llm_gate.domain.fine_tuning import FineTuneRequest
from llm_gate.domain.jobs import Job
from llm_gate.domain.media import MediaRequest, MediaResult, SpeechRequest, VideoRequest
from llm_gate.domain.ports import SchemaCheck
from llm_gate.domain.provider import Deployment
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.results import ChatResult, EmbeddingResult
from llm_gate.domain.secret import Secret
from llm_gate.engine.access import Access
from llm_gate.engine.admission import Admission
from llm_gate.engine.answer import Answer
from llm_gate.engine.cached_stream import AnswerStream
from llm_gate.engine.caching import Caching
from llm_gate.engine.chatting import Chatting
from llm_gate.engine.choice import Explanation, allowed_part
from llm_gate.engine.embedding import Embedding
from llm_gate.engine.estimate import (
    Rates,
    Size,
    bound,
)
from llm_gate.engine.exchanges import (
    Traced,
)
from llm_gate.engine.fleet import Fleet
from llm_gate.engine.job_work import JobWork
from llm_gate.engine.jobs import JobDesk
from llm_gate.engine.media import MediaDesk
from llm_gate.engine.pipeline import Pipeline, payable
from llm_gate.engine.resolve import Directory
from llm_gate.engine.speaking import Speaking, Voice
from llm_gate.engine.working import Working

# What targets are compared by where no request is there to be measured.
_USUAL = Size(likely_input=1_000, most_input=1_000, likely_output=1_000, most_output=1_000)

T = TypeVar("T")


class Gate:
    """The use-cases. `instance_id` names this gateway in the hop header; `check` validates structured answers."""

    def __init__(
        self,
        *,
        working: Working,
        instance_id: str,
        check: SchemaCheck,
        access: Access,
        admission: Admission,
        media: Callable[[Pipeline], MediaDesk],
        fleet: Fleet | None = None,
        caching: Caching | None = None,
    ) -> None:
        self.instance_id = instance_id
        self.access = access
        self.admission = admission
        self.fleet = fleet or Fleet()
        self.pipeline = Pipeline(
            access=access, admission=admission, fleet=self.fleet, instance_id=instance_id
        )
        self.media = media(self.pipeline)
        self._speaking = Speaking(self.media)
        self._jobs: tuple[JobDesk, JobWork] | None = None
        self._own: dict[str, tuple[ProviderEntry, Deployment]] = {}
        self._working = working
        self.caching = caching or Caching(store=None, rules=CacheRules(), now_ms=admission.now_ms)
        self._embedding = Embedding(pipeline=self.pipeline, instance_id=instance_id, caching=self.caching)
        self._chatting = Chatting(
            pipeline=self.pipeline,
            instance_id=instance_id,
            check=check,
            caching=self.caching,
            vector_of=self._embedding.vector,
        )

    @property
    def directory(self) -> Directory:
        """What can be named and reached now."""
        return self._working.directory

    @property
    def rates(self) -> Rates:
        """The rates of models that are known now."""
        return self._working.rates

    def directory_of(self, tenant: str) -> Directory:
        """What a tenant can name and reach now."""
        return self._working.directory_of(tenant)

    def use_credentials(self, credentials: Mapping[str, Mapping[str, Secret]]) -> None:
        """Use these credentials of tenants from now on, by tenant and provider."""
        self._working.tenants.use(credentials)

    def start(self) -> None:
        """Begin with what goes on beside the calls; in their event loop."""
        self._working.start()
        self.fleet.start()
        if self._jobs is not None:
            self._jobs[1].start()

    def replace(self, working: Working) -> None:
        """Serve from another state of the configuration; calls under way keep the one they began with."""
        for entry, deployment in self._own.values():
            working.directory = working.directory.with_provider(entry, deployment)
        old, self._working = self._working, working
        working.start()
        old.retire()

    async def close(self) -> None:
        """Close every connection to providers."""
        if self._jobs is not None:
            await self._jobs[0].close()
            await self._jobs[1].close()
        await self.fleet.close()
        await self._working.close()
        await self.caching.close()

    async def chat(self, request: ChatRequest, context: CallContext) -> Answer[ChatResult]:
        """Answer a chat request completely."""
        with Traced(context, "chat", request.model) as traced:
            answer = await self._chat(request, traced)
            traced.span.used(answer.target, answer.usage, answer.result.model)
            return answer

    async def _chat(self, request: ChatRequest, context: CallContext) -> Answer[ChatResult]:
        working = self._working.enter()
        try:
            return await self._chatting.answer(working, request, context)
        finally:
            working.leave()

    async def embed(self, request: EmbeddingRequest, context: CallContext) -> Answer[EmbeddingResult]:
        """Turn texts into vectors."""
        with Traced(context, "embedding", request.model) as traced:
            answer = await self._embed(request, traced)
            traced.span.used(answer.target, answer.usage, answer.result.model)
            return answer

    async def _embed(self, request: EmbeddingRequest, context: CallContext) -> Answer[EmbeddingResult]:
        working = self._working.enter()
        try:
            return await self._embedding.answer(working, request, context)
        finally:
            working.leave()

    async def make(self, request: MediaRequest, context: CallContext) -> Answer[MediaResult]:
        """Make pictures, edits, a face swap, a voice or a transcript."""
        working = self._working.enter()
        try:
            return await self.media.make(working, request, context)
        finally:
            working.leave()

    async def speak(self, request: SpeechRequest, context: CallContext) -> Voice | None:
        """Begin to read a text out, piece by piece; None where the first choice answers in one piece (`make`)."""
        return await self._speaking.open(self._working, request, context)

    @property
    def working(self) -> Working:
        """The state of the configuration that calls begin with now."""
        return self._working

    def use_jobs(self, desk: JobDesk, work: JobWork) -> None:
        """Take jobs from now on; without this, there is nowhere to keep them."""
        self._jobs = (desk, work)

    @property
    def jobs(self) -> JobDesk:
        """Where jobs are handed in and asked for.

        Raises:
            GateFault: this gateway keeps nothing, and jobs neither.
        """
        if self._jobs is None:
            raise GateFault("this gateway has no store, and takes no jobs")
        return self._jobs[0]

    @property
    def open_jobs(self) -> int:
        """How many jobs this process works on."""
        return 0 if self._jobs is None else self._jobs[1].open_jobs

    def known_job(self, job_id: str) -> Job | None:
        """Return a job as it stands, where this process works on it."""
        return None if self._jobs is None else self._jobs[1].known(job_id)

    async def submit(
        self, request: VideoRequest | FineTuneRequest, context: CallContext, *, webhook: str | None = None
    ) -> Job:
        """Hand slow work in, and return its job."""
        working = self._working.enter()
        try:
            return await self.jobs.submit(working, request, context, webhook=webhook)
        finally:
            working.leave()

    async def chat_stream(self, request: ChatRequest, context: CallContext) -> AnswerStream:
        """Begin to answer a chat request as a stream; returns when the first events have arrived."""
        return await self._chatting.stream(self._working.enter(), request, context)

    async def explain(
        self,
        name: str,
        operation: Operation,
        context: CallContext,
        *,
        needs: frozenset[Ability] = frozenset(),
        fallbacks: Sequence[str] = (),
    ) -> Explanation:
        """Say which targets a call by a name would try now, in order, and which not; nothing is called or held.

        Raises:
            CallerError: the name leads nowhere, or the caller's plan allows none of it.
            ProviderUnavailable: everything it leads to is known to be away.
        """
        working = self._working
        standing = await self.access.standing(context.caller)
        on = context.received_at.date()
        directory = working.directory_of(context.caller.tenant)
        route = directory.route(name, operation, on, context.headers, needs=needs, fallbacks=fallbacks)
        if standing.allowed_models or standing.excluded:
            route = allowed_part(route, standing, name)
        reads_only = operation == "embedding"
        bounds = [
            bound(
                each.target,
                _USUAL,
                working.rates.of(each.target.model, on, reads_only=reads_only),
                strict=False,
            )
            for each in route.candidates
        ]
        return self.pipeline.chooser.explain(route, payable(bounds, standing), context.sticky, context.caller)

    def add_provider(self, entry: ProviderEntry, deployment: Deployment) -> None:
        """Let calls go to a provider of the program's own; it stays over changes of the configuration."""
        self._own[entry.name] = (entry, deployment)
        self._working.directory = self._working.directory.with_provider(entry, deployment)
