"""How often a call is tried, how long it waits in between, and how long anything may take: values and arithmetic."""

from typing import Literal

from msgspec import Struct

from llm_gate.domain.errors import (
    AnswerNotInForm,
    BadProviderResponse,
    ProviderError,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
)

Strategy = Literal["ordered", "weighted", "least_busy", "lowest_cost", "lowest_latency"]
"""In which order several places are tried: as written, by chance and weight, or the best first by what is known."""

Sticky = Literal["user", "application", "key"]
"""Whose calls go to the same place as long as it can be used."""

JITTER = 0.25
"""A pause is made longer by up to this part of it, never shorter."""

_REPEATS_OF_NONSENSE = 1


class AttemptPolicy(Struct, frozen=True, kw_only=True):
    """How often one target is tried, and the pauses between, in seconds.

    `tries` are the attempts at a target while another is left, `last_tries` those at the last one. The pause before
    the n-th repeat (from 0) is `pause_s` · 2^n, at the last target `last_pause_s` · 2^n, `longest_pause_s` at most.
    A vendor's wish for patience is waited for at the last target alone: after a limited rate up to `rate_pause_s`.
    With `hedge_after_s`, a second target is asked beside a first that has not answered by then.
    """

    tries: int = 2
    last_tries: int = 3
    pause_s: float = 0.3
    last_pause_s: float = 0.5
    longest_pause_s: float = 8.0
    rate_pause_s: float = 5.0
    hedge_after_s: float | None = None


GATEWAY = AttemptPolicy()
"""The usual: an outage is passed by within a second where another target is left."""

FACTORY = AttemptPolicy(
    tries=5, last_tries=5, pause_s=5.0, last_pause_s=5.0, longest_pause_s=60.0, rate_pause_s=0.0
)
"""As LLMFactory is documented: five attempts at each provider, 5, 10, 20 and 40 seconds apart."""


def pause_before_repeat(
    policy: AttemptPolicy, error: ProviderError, *, tries: int, is_last: bool, chance: float
) -> float | None:
    """Return how long to wait before the same target is tried again; None where it is not.

    `tries` are those made at this target, `chance` is a number from 0 to 1. What the vendor asked for is never
    undercut.
    """
    if tries >= _allowed_tries(policy, error, is_last=is_last):
        return None
    first_s = policy.last_pause_s if is_last else policy.pause_s
    pause_s: float = min(first_s * 2.0 ** (tries - 1), policy.longest_pause_s)
    wish_s = error.retry_after_s or 0.0
    if wish_s > pause_s:
        # Somebody else may answer meanwhile; and a long wish is for the caller to know.
        longest_s = policy.rate_pause_s if isinstance(error, ProviderRateLimited) else policy.longest_pause_s
        if not is_last or wish_s > longest_s:
            return None
        pause_s = wish_s
    return pause_s * (1 + JITTER * chance)


def _allowed_tries(policy: AttemptPolicy, error: ProviderError, *, is_last: bool) -> int:
    if isinstance(error, AnswerNotInForm):
        return 1  # it was asked for again already
    if isinstance(error, BadProviderResponse):
        return min(policy.last_tries if is_last else policy.tries, 1 + _REPEATS_OF_NONSENSE)
    if (
        isinstance(error, ProviderTimeout)
        and error.was_sent
        and not is_last
        and policy.tries <= GATEWAY.tries
    ):
        return 1  # so much time is gone that the next target should have the rest
    if isinstance(error, ProviderUnavailable | ProviderTimeout):
        return policy.last_tries if is_last else policy.tries
    if isinstance(error, ProviderRateLimited) and is_last and policy.rate_pause_s and error.retry_after_s:
        return min(policy.last_tries, 2)
    return 1


class Deadlines(Struct, frozen=True, kw_only=True):
    """How long things may take, in seconds.

    `connect_s` bounds the connection, `headers_s` the head of an answer, and `first_event_s` a stream's first event
    after that; `idle_s` runs between a stream's content events, `total_s` over a whole unary call with all its
    attempts and pauses, and over a stream up to its first event; `stream_total_s` over a stream.
    """

    connect_s: float = 10.0
    headers_s: float = 300.0
    first_event_s: float = 300.0
    idle_s: float = 300.0
    total_s: float = 600.0
    stream_total_s: float = 14_400.0


class CapacityLimits(Struct, frozen=True, kw_only=True):
    """What one deployment may be given: requests and tokens in any 60 seconds, and calls at the same time.

    `max_waiting` calls may wait for their turn where `max_concurrent` are under way; None is without a limit.
    """

    rpm: int | None = None
    tpm: int | None = None
    max_concurrent: int | None = None
    max_waiting: int = 64

    @property
    def is_unlimited(self) -> bool:
        """Whether nothing is limited."""
        return self.rpm is None and self.tpm is None and self.max_concurrent is None


class CooldownRules(Struct, frozen=True, kw_only=True):
    """When a deployment is left alone, and for how long, in seconds.

    `failures` in a row open the breaker (or half of the last `window` calls, once there are as many); it stays open
    for `first_s`, twice as long after each probe that fails, up to `longest_s`. What no waiting mends soon (a refused
    credential, an empty account, a model that is gone) begins at once, and goes from `broken_first_s` to
    `broken_longest_s`. 0 failures switch all of it off, but for what a vendor itself asks for, which is kept up to
    `longest_wish_s`.
    """

    failures: int = 5
    window: int = 20
    first_s: float = 1.0
    longest_s: float = 4.0
    broken_first_s: float = 5.0
    broken_longest_s: float = 300.0
    longest_wish_s: float = 86_400.0
