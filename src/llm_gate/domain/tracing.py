"""Traces of what a request led to, as the rest of the program sees them; without a tracer they cost next to nothing.

A trace goes on across programs by two headers (https://www.w3.org/TR/trace-context/): they are read from the request
and sent to whoever is asked for it.
"""

import re
from collections.abc import Mapping
from typing import Protocol

from llm_gate.domain.provider import Target
from llm_gate.domain.usage import Usage

TRACE_HEADER, STATE_HEADER = "traceparent", "tracestate"

_MAX_STATE_CHARS, _MAX_STATE_MEMBERS = 512, 32
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[\x21-\x7e]{1,128})?")
_STATE_MEMBER = re.compile(
    r"[ \t]*[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_NO_STATE: Mapping[str, str] = {}


class Span(Protocol):
    """One piece of work: a request, a model call, or an attempt at a target. It ends once; what comes after is lost."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by which what is asked within it joins its trace."""

    def call(self, operation: str, model: str) -> "Span":
        """Begin a model call within a request."""

    def attempt(self, operation: str, target: Target) -> "Span":
        """Begin an attempt within a model call."""

    def used(self, target: Target, usage: Usage | None, model: str | None = None) -> None:
        """Say who answered and what it used; `model` is who the vendor says it was."""

    def failed(self, code: str) -> None:
        """Say that it failed, by the error's code."""

    def end(self, *, route: str | None = None, status: int | None = None) -> None:
        """End it; of a request, say its route's template and the status of the answer."""


class Tracer(Protocol):
    """Makes traces."""

    def request(self, method: str, headers: Mapping[str, str]) -> Span:
        """Begin a request, within the trace that its headers (lower case) name, if they do."""

    async def close(self) -> None:
        """Hand in what is still to be handed in, and make no more."""


class NoSpan:
    """Keeps nothing, and passes on the trace that came in."""

    __slots__ = ("headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def call(self, operation: str, model: str) -> "NoSpan":  # noqa: ARG002 - nothing is kept
        """Go on with the same headers."""
        return self

    def attempt(self, operation: str, target: Target) -> "NoSpan":  # noqa: ARG002 - nothing is kept
        """Go on with the same headers."""
        return self

    def used(self, target: Target, usage: Usage | None, model: str | None = None) -> None:
        """Keep nothing."""

    def failed(self, code: str) -> None:
        """Keep nothing."""

    def end(self, *, route: str | None = None, status: int | None = None) -> None:
        """Keep nothing."""


NO_SPAN = NoSpan(_NO_STATE)
"""What stands where there is no trace."""


class NoTracer:
    """Makes no traces; those that come in are passed on as they are."""

    def request(self, method: str, headers: Mapping[str, str]) -> Span:  # noqa: ARG002 - nothing is kept
        """Return what passes the trace on."""
        return NO_SPAN if TRACE_HEADER not in headers else _passed_on(headers)

    async def close(self) -> None:
        """Do nothing."""


def trace_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the trace's headers as they came, where they are valid; the second counts only beside the first."""
    parent = headers.get(TRACE_HEADER, "")
    if not _is_parent(parent):
        return _NO_STATE
    state = headers.get(STATE_HEADER)
    if state is None or not _is_state(state):
        return {TRACE_HEADER: parent}
    return {TRACE_HEADER: parent, STATE_HEADER: state}


def _passed_on(headers: Mapping[str, str]) -> Span:
    found = trace_headers(headers)
    return NoSpan(found) if found else NO_SPAN


def _is_parent(text: str) -> bool:
    found = _PARENT.fullmatch(text)
    if found is None:
        return False
    version, trace, parent, more = found.groups()
    has_rest = more is not None
    return (
        version != "ff"
        and not (version == "00" and has_rest)
        and trace.strip("0") != ""
        and parent.strip("0") != ""
    )


def _is_state(text: str) -> bool:
    members = [member for member in text.split(",") if member.strip()]
    return (
        0 < len(members) <= _MAX_STATE_MEMBERS
        and len(text) <= _MAX_STATE_CHARS
        and all(_STATE_MEMBER.fullmatch(member.rstrip()) for member in members)
    )
