"""The sandbox's control header: how a caller makes it fail, wait, or break off.

`x-llm-gate-sandbox: fail=429; delay_ms=200; cut_after=3`, each part by itself or together.
"""

import re

import msgspec
from msgspec import Struct, structs

from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.provider import HttpRequest, Target

CONTROL_HEADER = "x-llm-gate-sandbox"

_MAX_DELAY_MS = 60_000
_NUMBER = re.compile(r"[0-9]{1,9}")


class Control(Struct, frozen=True, kw_only=True):
    """What the caller told the sandbox to do: status to fail with, wait, pieces before the break."""

    fail: int | None = None
    delay_ms: int = 0
    cut_after: int | None = None


def read_control(text: str | None) -> Control:
    """Read the control header.

    Raises:
        InvalidRequest: an unknown word, or a number out of range.
    """
    given: dict[str, int] = {}
    for item in (text or "").split(";"):
        name, _, value = item.strip().partition("=")
        if not name:
            continue
        if name.strip() not in {"fail", "delay_ms", "cut_after"} or _NUMBER.fullmatch(value.strip()) is None:
            raise InvalidRequest(f"{CONTROL_HEADER}: cannot read {item.strip()!r}", param=CONTROL_HEADER)
        given[name.strip()] = int(value)
    control = msgspec.convert(given, Control)
    if control.fail is not None and not 400 <= control.fail < 600:  # noqa: PLR2004
        raise InvalidRequest(f"{CONTROL_HEADER}: fail must be a status from 400 to 599", param=CONTROL_HEADER)
    if control.delay_ms > _MAX_DELAY_MS:
        raise InvalidRequest(
            f"{CONTROL_HEADER}: delay_ms must be at most {_MAX_DELAY_MS}", param=CONTROL_HEADER
        )
    return control


def with_control(request: HttpRequest, target: Target) -> HttpRequest:
    """Return a request that carries the caller's control header along.

    Raises:
        InvalidRequest: the header cannot be read.
    """
    if target.control is None:
        return request
    read_control(target.control)
    return structs.replace(request, headers={**request.headers, CONTROL_HEADER: target.control})
