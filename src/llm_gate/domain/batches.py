"""Batches as values: many calls of one kind handed in as a file, done within a day, and handed back as a file.

Theory of operation: a batch is checked whole before anything is spent. Then it runs in one of two ways. At its
vendor: the row is written before the vendor is called ("submitting"), one reservation of the ledger stands for all
lines, and it is settled once. Or here: each line is an ordinary call, booked by itself, and what came of it is stored
before it counts as done, so that another process can go on behind the lines that are stored. Whoever works on a batch
holds a lease, as on a job.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal, Protocol

from msgspec import Struct

from llm_gate.domain.pricing import Price, PriceCondition, Unit

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
BatchEndpoint = Literal["/v1/chat/completions", "/v1/embeddings", "/v1/completions", "/v1/responses"]
BatchWay = Literal["vendor", "gateway"]
"""Where the lines are worked on: handed to their vendor as a batch, or one by one by the gateway."""

BatchPhase = Literal[
    "validating", "submitting", "waiting", "collecting", "settling", "working", "writing", "over"
]
"""What is to be done next: "waiting" and "collecting" are of batches at a vendor, "working" and "writing" of others."""

MOST_LINES, MOST_BATCH_BYTES = 50_000, 200 * 1024 * 1024
"""How much one batch may hold."""

MOST_INPUTS = 50_000
"""How many texts the embeddings of one batch may hold together."""

WINDOW_MS = 24 * 3_600_000
"""Within which time a batch is done, in milliseconds: the one window that can be asked for."""

MOST_FAULTS = 100
"""How many faults of a file are told at most."""

TERMINAL: frozenset[BatchStatus] = frozenset({"failed", "completed", "expired", "cancelled"})


class BatchFault(Struct, frozen=True, kw_only=True):
    """Why a batch failed: a code, words, and the line of the input file and its field where there is one."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchCounts(Struct, frozen=True, kw_only=True):
    """How many lines there are, and how many of them came to an answer or an error."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchTokens(Struct, frozen=True, kw_only=True):
    """The tokens of all lines that were answered; cached and reasoning tokens are parts of the others."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0


class PinnedPrice(Struct, frozen=True, kw_only=True):
    """A price as it was when a batch was handed in; `nanos` is an exact fraction as text."""

    id: str
    unit: Unit
    per: int
    nanos: str
    above_input_tokens: int | None = None

    @property
    def price(self) -> Price:
        """The price it stands for, valid on every day."""
        above = self.above_input_tokens
        condition = None if above is None else PriceCondition(above_input_tokens=above)
        return Price(
            id=self.id, unit=self.unit, per=self.per, nanos=Fraction(self.nanos), condition=condition
        )


class Batch(Struct, frozen=True, kw_only=True):
    """One batch. Instants are in milliseconds since 1970, the prefix of `id` is "batch_".

    `wish` is the way that was asked for, `way` the one it takes. `number` and `started_ms` are those of the vendor's
    attempt, `prices` what that will cost by the line. `tokens` and `cost_nanos` are of what was answered (None: not
    known). `version` grows with every change.
    """

    id: str
    tenant: str
    application: str
    user: str
    key_id: str | None = None
    request_id: str
    endpoint: BatchEndpoint
    input_file: str
    metadata: Mapping[str, str] | None = None
    wish: BatchWay | None = None
    way: BatchWay | None = None
    status: BatchStatus = "validating"
    phase: BatchPhase = "validating"
    counts: BatchCounts = BatchCounts()
    faults: tuple[BatchFault, ...] = ()
    output_file: str | None = None
    error_file: str | None = None
    output_expires_s: int | None = None
    ended_as: BatchStatus = "completed"
    provider: str = ""
    model: str = ""
    deployment: str = ""
    ticket: str = ""
    ticket_data: Mapping[str, str] = {}
    view_data: Mapping[str, str] = {}
    number: int = 0
    started_ms: int = 0
    prices: tuple[PinnedPrice, ...] = ()
    price_ids: tuple[str, ...] = ()
    units: Mapping[str, int] = {}
    is_estimated: bool = False
    synthetic: bool = False
    tokens: BatchTokens | None = None
    cost_nanos: int | None = None
    is_cancelled: bool = False
    made_ms: int
    expires_ms: int
    begun_ms: int | None = None
    finalizing_ms: int | None = None
    cancelling_ms: int | None = None
    ended_ms: int | None = None
    version: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.phase == "over"

    @property
    def stem(self) -> str:
        """What its id and those of its files, calls and reservation have in common."""
        return self.id.partition("_")[2]


class LineResult(Struct, frozen=True, kw_only=True):
    """What came of one line: the line of the output file, or of the error file, with its tokens and its cost."""

    number: int
    is_error: bool
    text: bytes
    tokens: BatchTokens | None = None
    cost_nanos: int | None = None


class Batches(Protocol):
    """Where batches are kept, leased as jobs are. Every method may raise StoreUnavailable."""

    async def add(self, item: Batch, *, owner: str, until_ms: int) -> None:
        """Write a new batch, which its owner works on."""

    async def save(self, item: Batch, *, owner: str, until_ms: int) -> bool:
        """Write a batch that has changed, as long as nobody else has taken it over; False where somebody has."""

    async def find(self, item_id: str) -> Batch | None:
        """Return a batch."""

    async def listed(
        self, tenant: str, user: str | None, *, limit: int, before: str = ""
    ) -> tuple[Batch, ...]:
        """Return a tenant's batches (or one user's), the newest first, those older than the batch `before`."""

    async def claim(self, owner: str, *, now_ms: int, until_ms: int, limit: int) -> tuple[Batch, ...]:
        """Take over batches that are not over and that nobody works on."""

    async def renew(self, owner: str, *, until_ms: int) -> None:
        """Go on working on everything that is the owner's."""

    async def leave(self, owner: str) -> None:
        """Leave everything that is the owner's to whoever comes next, at once."""

    async def cancel(self, item_id: str) -> bool:
        """Note that a batch is not wanted any more; False where it is over or is not there."""

    async def wishes(self, owner: str) -> frozenset[str]:
        """Return which of the owner's batches are not wanted any more."""

    async def append(self, batch_id: str, results: Sequence[LineResult]) -> None:
        """Store what came of some lines; of a line that is there already, what was stored first stays."""

    async def done(self, batch_id: str) -> Mapping[int, bool]:
        """Return the numbers of the lines that are stored, and whether each came to an error."""

    async def results(self, batch_id: str) -> tuple[LineResult, ...]:
        """Return what is stored, in the order of the lines."""

    async def forget(self, batch_id: str) -> None:
        """Remove what is stored of a batch's lines, whose files are written."""
