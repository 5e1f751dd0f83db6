"""Jobs as their callers see them, and the signed word that one has ended."""

from collections.abc import Callable

import msgspec
from msgspec import Struct

from llm_gate.domain.jobs import Job
from llm_gate.domain.money import format_usd
from llm_gate.domain.windows import instant
from llm_gate.engine.alerts import SIGNATURE_HEADER, Messenger, signature

ID_HEADER = "x-llm-gate-job"


class _Word(Struct, frozen=True, kw_only=True):
    id: str
    type: str = "job"
    operation: str
    status: str
    provider: str
    model: str
    cost_usd: str | None
    error: str | None
    created_at: str
    ended_at: str


class JobTeller:
    """Tells the address that a job's caller named that it has ended; signed, as alerts are."""

    def __init__(self, messenger: Messenger, *, secret: bytes, now_ms: Callable[[], int]) -> None:
        self._messenger = messenger
        self._secret = secret
        self._now_ms = now_ms

    async def __call__(self, job: Job) -> bool:
        """Tell it once, and say whether the word was taken."""
        if job.webhook is None:
            return True
        body = msgspec.json.encode(
            _Word(
                id=job.id,
                operation=job.operation,
                status=job.status,
                provider=job.provider,
                model=job.model,
                cost_usd=None if job.charged_nanos is None else format_usd(job.charged_nanos),
                error=job.error_code,
                created_at=instant(job.made_ms).isoformat(),
                ended_at=instant(job.ended_ms or 0).isoformat(),
            )
        )
        headers = {
            "content-type": "application/json",
            ID_HEADER: job.id,
            SIGNATURE_HEADER: signature(self._secret, self._now_ms() // 1000, body),
        }
        status = await self._messenger.post(job.webhook, body, headers)
        return status is not None and 200 <= status < 300  # noqa: PLR2004 - what 2xx means
