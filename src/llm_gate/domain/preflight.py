"""A list of operations that somebody plans, and what was found of it: may it be done, and what will it cost."""

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from llm_gate.domain.bounds import CostRange
from llm_gate.domain.catalog import Model, Operation
from llm_gate.domain.errors import CallerError
from llm_gate.domain.ledger import Hold, hold_on
from llm_gate.domain.limits import Bucket, Meter
from llm_gate.domain.plans import Quota, Standing
from llm_gate.domain.stores import BalanceNow
from llm_gate.domain.windows import FOREVER_MS, instant, milliseconds

_NOTHING = BalanceNow()


class Asked(Struct, frozen=True, kw_only=True):
    """An operation as somebody plans it; None is what was not said.

    `operation` is what is to be done, or the bucket it counts against, or None where the model tells. `provider` is
    one of the catalog, `usual_provider` the one to take where nobody that can be used offers it and no model is
    named. `total_tokens` are input and output together, of which nobody knows how they divide. `count` is how many
    pictures, videos, searches or answers are wanted. `label` is the caller's own word for it.
    """

    operation: Operation | None = None
    bucket: Bucket | None = None
    provider: str | None = None
    usual_provider: str | None = None
    model: str | None = None
    label: str | None = None
    total_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    max_tokens: int | None = None
    count: int = 1
    size: tuple[int, int] | None = None
    quality: str | None = None
    resolution: str | None = None
    duration_s: int | None = None
    characters: int | None = None
    pages: int | None = None


class Estimate(Struct, frozen=True, kw_only=True):
    """What a planned operation may come to. `models` are those that may do it, in the order they would be tried.

    `likely_` figures are what a call is held at where its bound need not hold, `most_` where it must. The costs are
    those of the dearest model; `cost` is None where a price is missing. `is_configured` tells whether it can be
    called here now.
    """

    asked: Asked
    operation: Operation
    bucket: Bucket
    models: tuple[Model, ...]
    is_configured: bool
    count: int
    likely_tokens: int
    most_tokens: int
    cost: CostRange | None
    likely_cost_nanos: int | None

    @property
    def model(self) -> Model:
        """The model that would be tried first."""
        return self.models[0]

    def tokens(self, *, strict: bool) -> int:
        """Return the tokens a call of this kind holds."""
        return self.most_tokens if strict else self.likely_tokens

    def cost_nanos(self, *, strict: bool) -> int | None:
        """Return the money a call of this kind holds; None where a price is missing."""
        if strict:
            return None if self.cost is None else self.cost.max_nanos
        return self.likely_cost_nanos


class Room(Struct, frozen=True, kw_only=True):
    """What a quota has left for one operation, which wants `hold.amount` of it.

    `used` is by calls that ended, `held` by those under way, `planned` by the operations before this one.
    """

    hold: Hold
    used: int
    held: int
    planned: int = 0

    @property
    def remaining(self) -> int:
        """What is left for the operation."""
        return max(0, self.hold.cap - self.used - self.held - self.planned)

    @property
    def is_enough(self) -> bool:
        """Whether the operation finds room."""
        return self.used + self.held + self.planned + self.hold.amount <= self.hold.cap

    @property
    def resets_at(self) -> datetime | None:
        """When the next window begins; None for what is no matter of time."""
        return instant(self.hold.end_ms) if self.hold.end_ms < FOREVER_MS else None


class Line(Struct, frozen=True, kw_only=True):
    """What was found of one operation. `refusal` is None where it may be done.

    `binding` is the quota that leaves no room, or else the one that leaves the least. `rooms` are all that count it.
    """

    estimate: Estimate
    rooms: tuple[Room, ...] = ()
    binding: Room | None = None
    refusal: CallerError | None = None

    @property
    def is_allowed(self) -> bool:
        """Whether the operation may be done."""
        return self.refusal is None

    @property
    def cost(self) -> CostRange | None:
        """What it may cost; None where a price is missing."""
        return self.estimate.cost


class Preflight(Struct, frozen=True, kw_only=True):
    """What was found of a list of operations, at one moment. `balances` are those of every quota of the caller."""

    standing: Standing
    at: datetime
    lines: tuple[Line, ...]
    balances: Mapping[tuple[str, int], BalanceNow]

    @property
    def failed_index(self) -> int | None:
        """The first operation that may not be done."""
        return next((index for index, line in enumerate(self.lines) if not line.is_allowed), None)

    @property
    def can_proceed(self) -> bool:
        """Whether all of them may be done."""
        return self.failed_index is None

    @property
    def cost(self) -> CostRange | None:
        """What all of them may cost together; None where a price is missing."""
        known = [line.cost for line in self.lines if line.cost is not None]
        if len(known) < len(self.lines):
            return None
        return CostRange(
            min_nanos=sum(cost.min_nanos for cost in known),
            expected_nanos=sum(cost.expected_nanos for cost in known),
            max_nanos=sum(cost.max_nanos for cost in known),
            price_ids=tuple(dict.fromkeys(id_ for cost in known for id_ in cost.price_ids)),
        )

    def tightest(self, *, bucket: Bucket | None = None, meter: Meter = "calls") -> Room | None:
        """Return the least room of the quotas of billing periods that count a bucket's calls, or by another meter."""
        rooms = [
            self.room_of(quota)
            for quota in self.standing.quotas
            if quota.limit.meter == meter
            and quota.limit.window == "period"
            and quota.limit.bucket == bucket
            and quota.limit.provider is None
        ]
        return min(rooms, key=lambda room: room.remaining, default=None)

    def room_of(self, quota: Quota) -> Room:
        """Return what a quota of the caller has left beside all operations that may be done."""
        window = quota.window(milliseconds(self.at), self.standing.zone)
        place = (quota.account, window.start_ms)
        rooms = [
            room for line in self.lines if line.is_allowed for room in line.rooms if room.hold.place == place
        ]
        now = self.balances.get(place, _NOTHING)
        return Room(
            hold=hold_on(quota, window, 0),
            used=now.used,
            held=now.held,
            planned=sum(room.hold.amount for room in rooms),
        )
