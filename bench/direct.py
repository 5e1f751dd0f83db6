"""`python -m bench.direct`: the gateway without ledger and attempts engine, to measure what the latter costs.

Every call goes to its first target at once: nothing is repeated, watched, counted or left alone.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from bench import unrecorded
from llm_gate.bootstrap import gateway as bootstrap
from llm_gate.domain.provider import Target
from llm_gate.domain.tracing import NO_SPAN
from llm_gate.engine import pipeline
from llm_gate.engine.attempts import Call, Plan, Success
from llm_gate.engine.estimate import Bound
from llm_gate.engine.fleet import Fleet

T = TypeVar("T")


class NoTurn:
    """Stands in for a call's turn, and notes nothing."""

    span = NO_SPAN

    def used(self, _usage: object, _model: object = None) -> None:
        """Note nothing."""

    def failed(self, _error: object) -> None:
        """Note nothing."""

    def leave_room(self) -> None:
        """Give nothing back."""


class DirectAttempts:
    """The one attempt of a call, with nothing around it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    async def run(self, bounds: Sequence[Bound], call: Call[T], _plan: Plan) -> Success[T]:
        """Call the first target."""
        target = bounds[0].target
        turn: Any = NoTurn()
        return Success(value=await call(target, turn), target=target, attempts=1)


class QuietFleet(Fleet):
    """Knows of no trouble, and looks for none."""

    def trouble(self, _target: Target) -> None:
        """Know of none."""

    def roomy_first(self, bounds: Sequence[Bound]) -> Sequence[Bound]:
        """Take them as they are."""
        return bounds


def main() -> None:
    """Serve with the settings of a file."""
    pipeline.Attempts = DirectAttempts  # type: ignore[assignment,misc]
    bootstrap.Fleet = QuietFleet  # type: ignore[misc]
    unrecorded.main()


if __name__ == "__main__":
    main()
