"""Tries targets in order until one answers; decides by the error's class whether the next may be tried."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from llm_gate.domain.errors import AllAttemptsFailed, ProviderError
from llm_gate.domain.provider import Target

T = TypeVar("T")


async def try_each(
    targets: Sequence[Target], call: Callable[[Target], Awaitable[T]]
) -> tuple[T, Target, int]:
    """Return the first success with its target and the number of attempts made.

    Raises:
        ProviderError: the only attempt failed, or one failed in a way that no other target can mend.
        AllAttemptsFailed: several failed.
    """
    errors: list[ProviderError] = []
    for target in targets:
        try:
            answer = await call(target)
        except ProviderError as error:
            hide_secret(error, target)
            log_failure(error, target)
            errors.append(error)
            if not error.moves_on:
                break
        else:
            log_answer(target, len(errors) + 1)
            return answer, target, len(errors) + 1
    if len(errors) == 1 or not errors[-1].moves_on:
        raise errors[-1]
    raise AllAttemptsFailed(errors)


def hide_secret(error: ProviderError, target: Target) -> None:
    """Take the target's credential out of an error's texts, should the vendor have quoted it."""
    secret = target.deployment.auth.secret
    if secret is not None:
        error.message = secret.redact(error.message)
        error.detail = secret.redact(error.detail)
        error.args = (error.message,)


def log_answer(target: Target, attempts: int) -> None:
    """Tell the provider's logger that it answered; only there, and only where somebody wants to know."""
    logger = logging.getLogger(f"llm_gate.provider.{target.provider}")
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug(
            "attempt answered",
            extra={"provider": target.provider, "model": target.model.name, "attempts": attempts},
        )


def log_failure(error: ProviderError, target: Target) -> None:
    """Tell the provider's logger that an attempt failed."""
    logging.getLogger(f"llm_gate.provider.{target.provider}").warning(
        "attempt failed",
        extra={
            "provider": target.provider,
            "model": target.model.name,
            "error_code": error.code,
            "upstream_status": error.status,
            "error": error.message,
        },
    )
