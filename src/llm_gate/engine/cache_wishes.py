"""What a caller says of the cache: the directives of Cache-Control, and how near a question must be."""

from collections.abc import Mapping

from msgspec import Struct

from llm_gate.domain.errors import InvalidRequest

THRESHOLD_HEADER = "x-llm-gate-cache-threshold"
_MAX_DIGITS = 12


class Wishes(Struct, frozen=True, kw_only=True):
    """One call's wishes. `reads` tells whether a kept answer will do, `keeps` whether the answer may be kept.

    `only_kept` wants a kept answer or none; `max_age_ms` is how old one may be; `threshold` is how near its question
    must be at least.
    """

    reads: bool = True
    keeps: bool = True
    only_kept: bool = False
    max_age_ms: int | None = None
    threshold: float | None = None


NO_WISHES = Wishes()


def read_wishes(headers: Mapping[str, str]) -> Wishes:
    """Read what the headers of a call say; directives that are unknown or malformed say nothing.

    Raises:
        InvalidRequest: the gateway's own header is no number from 0 to 1.
    """
    control, nearest = headers.get("cache-control"), headers.get(THRESHOLD_HEADER)
    if control is None and nearest is None:
        return NO_WISHES
    said = {} if control is None else _directives(control)
    no_store = "no-store" in said
    return Wishes(
        reads=not (no_store or "no-cache" in said),
        keeps=not no_store,
        only_kept="only-if-cached" in said,
        max_age_ms=_milliseconds(said.get("max-age")),
        threshold=None if nearest is None else _threshold(nearest),
    )


def _directives(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for piece in text.split(","):
        name, _, value = piece.partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


def _milliseconds(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        return None
    return int(text) * 1000


def _threshold(text: str) -> float:
    try:
        value = float(text) if text.isascii() else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InvalidRequest(f"{THRESHOLD_HEADER}: must be a number from 0 to 1", param=THRESHOLD_HEADER)
    return value
