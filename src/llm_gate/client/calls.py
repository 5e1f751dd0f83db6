"""The frame of a library's call: for whom it is made, and how a refusal is told."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

from llm_gate.client.errors import QuotaExceeded
from llm_gate.domain import errors
from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.conditions import AttemptWatch
from llm_gate.domain.policy import AttemptPolicy

LIBRARY = "library"
"""The application under which calls of the library are recorded."""

_MAX_USER_CHARS = 256


def caller_of(user_id: str | None) -> Caller:
    """Return on whose behalf a call is made.

    Raises:
        RuntimeError: there is no user id to count the call for.
        ValueError: it is too long, or no plain text.
    """
    if not isinstance(user_id, str) or not user_id.strip():
        raise RuntimeError(
            "user_id is required: every call is counted for a user, and limited by the user's plan"
        )
    if len(user_id) > _MAX_USER_CHARS or not user_id.isprintable():
        raise ValueError(f"user_id: must be printable text of at most {_MAX_USER_CHARS} characters")
    return Caller(application=LIBRARY, user=user_id)


def context_of(
    caller: Caller,
    endpoint: str,
    *,
    fallbacks: Sequence[str] = (),
    timeout_s: float | None = None,
    policy: AttemptPolicy | None = None,
    watch: AttemptWatch | None = None,
) -> CallContext:
    """Return the frame of a call that begins now.

    Raises:
        ValueError: the timeout is not a time.
        TypeError: the fallbacks are one text instead of several.
    """
    if isinstance(fallbacks, str):
        raise TypeError("fallbacks: must be a list of names")
    # Written so that what is not a number is refused as well.
    if timeout_s is not None and not timeout_s > 0:
        raise ValueError("timeout_s: must be more than 0")
    return CallContext(
        request_id=f"lib_{uuid4().hex}",
        caller=caller,
        received_at=datetime.now(UTC),
        headers={},
        endpoint=endpoint,
        timeout_s=timeout_s,
        fallbacks=tuple(fallbacks),
        policy=policy,
        watch=watch,
    )


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn the refusal by a limit into the one that callers of the library know.

    Raises:
        QuotaExceeded: a limit leaves no room.
    """
    try:
        yield
    except errors.QuotaExceeded as error:
        raise QuotaExceeded(error) from None
