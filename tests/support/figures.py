"""How often a test repeats itself: a few hundred times in every run, the full figure under `make prove`."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

PROVES = os.environ.get("PROVE", "") == "1"
"""Whether the full figures are wanted."""

FULL_TIMEOUT_S = 3600


def full(normal: int, full: int) -> int:
    """Return the count of this run: `full` with PROVE=1, else `normal`."""
    return full if PROVES else normal


def proved(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a test that has a full figure, and give it the time for it."""
    marked = pytest.mark.prove(function)
    return pytest.mark.timeout(FULL_TIMEOUT_S)(marked) if PROVES else marked


def property_of(normal: int = 300, most: int = 10_000) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a property test, to stand above `@given`, and set how many examples it tries."""
    if not PROVES:
        return lambda function: proved(settings(max_examples=normal)(function))
    # With so many examples on a busy machine, one that is slow once says nothing.
    chosen = settings(
        max_examples=most, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
    )
    return lambda function: proved(chosen(function))
