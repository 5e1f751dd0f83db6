"""Collecting the events of one read so that none is lost when a later one of the same read is a failure."""

from collections.abc import Iterable

from llm_gate.domain.errors import ProviderError
from llm_gate.domain.events import ChatEvent


def collect(steps: Iterable[Iterable[ChatEvent]]) -> list[ChatEvent]:
    """Return the events of all steps.

    Raises:
        ProviderError: a step failed; `preceding` holds what the steps before it gave.
    """
    events: list[ChatEvent] = []
    try:
        for step in steps:
            events += step
    except ProviderError as error:
        error.preceding = (*events, *error.preceding)
        raise
    return events
