"""What the metrics are called, and what they mean."""

from collections.abc import Mapping

from msgspec import Struct

PREFIX = "llm_gate_"

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper ends of the buckets of every duration, in seconds."""

PLACE = ("operation", "provider", "model")


class Timed(Struct, frozen=True, kw_only=True):
    """A family whose values are buckets and a sum: told as a histogram, and as a counter where it has that name."""

    seconds: str
    seconds_text: str
    labels: tuple[str, ...]
    total: str | None = None
    total_text: str = ""


class Counted(Struct, frozen=True, kw_only=True):
    """A family of counters."""

    total: str
    text: str
    labels: tuple[str, ...]


TIMED: Mapping[str, Timed] = {
    "requests": Timed(
        total="requests",
        total_text="HTTP requests that were answered.",
        seconds="request_seconds",
        seconds_text="Time from a request's head to the end of its answer.",
        labels=("route", "method", "status"),
    ),
    "calls": Timed(
        total="calls",
        total_text="Model calls by how they ended.",
        seconds="call_seconds",
        seconds_text="Time of a whole model call.",
        labels=(*PLACE, "outcome"),
    ),
    "first_events": Timed(
        seconds="first_event_seconds",
        seconds_text="Time to the first event of a streamed answer.",
        labels=PLACE,
    ),
    "attempts": Timed(
        total="attempts",
        total_text="Attempts at providers by how they ended.",
        seconds="attempt_seconds",
        seconds_text="Time of an attempt: to its answer, or to a stream's first event.",
        labels=(*PLACE, "outcome"),
    ),
}

COUNTED: Mapping[str, Counted] = {
    "retries": Counted(total="retries", text="Further tries at the same target.", labels=("provider",)),
    "fallbacks": Counted(
        total="fallbacks", text="Targets given up for the next.", labels=("provider", "reason")
    ),
    "cooldowns": Counted(
        total="cooldowns", text="Places that were left alone for a while.", labels=("provider", "reason")
    ),
    "hedges": Counted(total="hedges", text="Targets asked beside a slow one.", labels=("provider", "won")),
    "shed": Counted(total="shed", text="Calls turned away for want of room.", labels=("reason",)),
    "cache": Counted(
        total="cache", text="Calls by what became of them at the cache.", labels=("operation", "result")
    ),
    "saved": Counted(
        total="saved_cost_nanos",
        text="What kept answers cost once, in billionths of a dollar.",
        labels=("operation",),
    ),
}

TOKENS = Counted(total="tokens", text="Tokens used.", labels=(*PLACE, "direction"))
COST = Counted(total="cost_nanos", text="Cost of calls, in billionths of a dollar.", labels=PLACE)
UNPRICED = Counted(total="unpriced_calls", text="Calls whose cost nobody knows.", labels=PLACE)

GAUGES: Mapping[str, str] = {
    "reservations_open": "Calls that hold something in the ledger.",
    "jobs_open": "Jobs that this process carries to their end.",
    "in_flight": "Model calls under way.",
    "loop_lag_seconds": "How late the event loop was within the last minute.",
    "cache_copies": "Answers that this process keeps a copy of.",
    "cache_unwritten": "Answers that were never written to the cache's store.",
    "bounded": "How much something that is bounded holds.",
    "bound": "How much it may hold.",
}
"""What gauges mean; others are told by their name alone."""
