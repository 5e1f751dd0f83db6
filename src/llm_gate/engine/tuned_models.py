"""What comes of training: files that tell of it, and models their tenant may call from then on, nobody else."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from llm_gate.domain.catalog import Catalog
from llm_gate.domain.fine_tuning import TunedModel, TunedModels
from llm_gate.domain.jobs import Job
from llm_gate.domain.provider import Trained
from llm_gate.engine.files import FileDesk

_logger = logging.getLogger("llm_gate.jobs")
_DEPLOY = "done; the provider asks for the model to be deployed, under its own name, before it answers"


class TrainedShelf:
    """Keeps what came of training. `on_new` are called when there is a model more, so that this process has it at once.

    Every other one learns of it as of a new key.
    """

    def __init__(
        self,
        files: FileDesk,
        models: TunedModels,
        *,
        catalog: Callable[[], Catalog],
        now_ms: Callable[[], int],
    ) -> None:
        self._files = files
        self._models = models
        self._catalog = catalog
        self.on_new: list[Callable[[], Awaitable[None]]] = []
        self._now_ms = now_ms

    async def keep(self, job: Job, trained: Trained) -> Mapping[str, str]:
        """Keep it for the job's tenant, and return what is shown of it; may be done again without harm."""
        kept: list[str] = []
        for number, medium in enumerate(trained.files):
            file = await self._files.put(
                job.tenant,
                job.application,
                job.user,
                purpose="fine-tune-results",
                name=medium.name or f"results_{number}",
                data=medium.data,
                file_id=f"file-{job.id}-r{number}",
            )
            kept.append(file.id)
        for name in trained.models:
            await self._write(job, name)
        for hear in self.on_new if trained.models else ():
            await hear()
        results = {"files": json.dumps(kept)}
        entry = self._catalog().providers.get(job.provider)
        spec = None if entry is None else entry.spec.fine_tuning
        if trained.models and spec is not None and spec.needs_deployment:
            results["note"] = _DEPLOY
        return results

    async def _write(self, job: Job, name: str) -> None:
        made = TunedModel(
            tenant=job.tenant,
            provider=job.provider,
            name=name,
            base=job.model,
            job=job.id,
            deployment=job.deployment,
            made_ms=self._now_ms(),
        )
        standing = await self._models.add(made)
        if standing.tenant != job.tenant:
            # Two accounts at one vendor may give the same name: whoever had it first keeps it.
            _logger.error("a tuned model bears another tenant's name", extra={"job": job.id, "model": name})


def by_tenant(models: Sequence[TunedModel]) -> Mapping[str, tuple[TunedModel, ...]]:
    """Return the models of each tenant."""
    found: dict[str, tuple[TunedModel, ...]] = {}
    for model in models:
        found[model.tenant] = (*found.get(model.tenant, ()), model)
    return found
