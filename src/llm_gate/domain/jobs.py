"""Slow work as a value: a job from the moment it is handed in to its end, whoever works on it, in whatever process.

Theory of operation: the row of a job is written before its vendor is called ("submitting"), and after the vendor gave a
ticket ("waiting"). Whoever works on it holds a lease; when that has run out, any process takes it over. What a job
costs is known when it is handed in, and pinned; of training the price of a token is pinned, and the vendor counts. The
ledger's reservation belongs to the job, not to a process, and is settled once, under the job's id. A job that was being
submitted when its process died is never submitted again: it ends as failed, and is charged at its bound, since nobody
knows whether the vendor took it.
"""

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Literal, Protocol

from msgspec import Struct

from llm_gate.domain.catalog import Operation
from llm_gate.domain.money import round_half_even
from llm_gate.domain.pricing import Price, Unit

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JobPhase = Literal["submitting", "waiting", "collecting", "settling", "telling", "over"]
"""What is to be done next: "collecting" fetches what was made, "settling" pays, "telling" has ended and says so."""

TERMINAL: frozenset[JobStatus] = frozenset({"succeeded", "failed", "cancelled"})


class JobMade(Struct, frozen=True, kw_only=True):
    """What came of a job and is kept: `blob` is its id in the store of media. Sizes in pixels where they are known."""

    blob: str
    type: str
    size: int
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


class PinnedRate(Struct, frozen=True, kw_only=True):
    """A price as it was when a job was handed in: `nanos`, an exact ratio as text, for `per` units."""

    price: str
    unit: Unit
    nanos: str
    per: int


def pinned(prices: Iterable[Price]) -> tuple[PinnedRate, ...]:
    """Write prices down, to be paid when a job has ended."""
    return tuple(
        PinnedRate(price=each.id, unit=each.unit, nanos=str(Fraction(each.nanos)), per=each.per)
        for each in prices
    )


def cost_at(rates: Iterable[PinnedRate], units: Mapping[str, int]) -> int:
    """Return what counted units come to, in nano-dollars, each line rounded by itself."""
    return sum(round_half_even(Fraction(rate.nanos) * units.get(rate.unit, 0) / rate.per) for rate in rates)


class Job(Struct, frozen=True, kw_only=True):
    """One piece of slow work. `id` is that of its call, reservation and record in the ledger.

    `asked` is what the caller said, without its media. `number` and `started_ms` are those of the attempt that was
    accepted. `cost_nanos` (None: unknown) and `prices` are pinned when it is handed in; `charged_nanos` is what it came
    to. Where `rates` are pinned, `cost_nanos` is an estimate, and `units` that the vendor counts decide. `results` is
    what the vendor tells of it. `version` grows with every change. `progress` is a percentage.
    """

    id: str
    tenant: str
    application: str
    user: str
    request_id: str
    operation: Operation
    status: JobStatus = "queued"
    phase: JobPhase = "submitting"
    progress: float = 0.0
    message: str = ""
    asked: Mapping[str, str | int | float | bool] = {}
    provider: str = ""
    model: str = ""
    deployment: str = ""
    number: int = 0
    started_ms: int = 0
    ticket: str = ""
    ticket_data: Mapping[str, str] = {}
    view_data: Mapping[str, str] = {}
    units: Mapping[str, int] = {}
    cost_nanos: int | None = None
    prices: tuple[str, ...] = ()
    rates: tuple[PinnedRate, ...] = ()
    results: Mapping[str, str] = {}
    charged_nanos: int | None = None
    synthetic: bool = False
    is_cancelled: bool = False
    made: JobMade | None = None
    error_code: str | None = None
    error_message: str | None = None
    webhook: str | None = None
    made_ms: int
    ended_ms: int | None = None
    version: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.phase == "over"


class Jobs(Protocol):
    """Where jobs are kept. Every method may raise StoreUnavailable."""

    async def add(self, job: Job, *, owner: str, until_ms: int) -> None:
        """Write a new job, which its owner works on."""

    async def save(self, job: Job, *, owner: str, until_ms: int) -> bool:
        """Write a job that has changed, as long as nobody else has taken it over; False where somebody has."""

    async def remove(self, job_id: str) -> None:
        """Remove a job that no vendor has taken."""

    async def find(self, job_id: str) -> Job | None:
        """Return a job."""

    async def listed(self, tenant: str, user: str | None, *, limit: int, before: str = "") -> tuple[Job, ...]:
        """Return a tenant's jobs (or one user's), the newest first, those older than the job `before`."""

    async def claim(self, owner: str, *, now_ms: int, until_ms: int, limit: int) -> tuple[Job, ...]:
        """Take over jobs that are not over and that nobody works on."""

    async def renew(self, owner: str, *, until_ms: int) -> None:
        """Go on working on everything that is the owner's."""

    async def leave(self, owner: str) -> None:
        """Leave everything that is the owner's to whoever comes next, at once."""

    async def cancel(self, job_id: str) -> bool:
        """Note that a job is not wanted any more; False where it is over or is not there."""

    async def wishes(self, owner: str) -> frozenset[str]:
        """Return which of the owner's jobs are not wanted any more."""

    async def amend(self, job_id: str, change: Callable[[Job], Job]) -> Job | None:
        """Change a job that is not over, whoever works on it, and return it; None where there is none.

        Whoever works on it finds out when it next writes it, or asks for `versions`, and goes on with what stands then.
        """

    async def held(self, job_id: str, *, owner: str) -> Job | None:
        """Return a job that an owner works on."""

    async def versions(self, job_ids: Iterable[str]) -> Mapping[str, int]:
        """Return how often jobs have changed."""
