"""Workflows that the documents know by name, as the operations they are made of: templates for preflight and quotes.

A research is named after who searches, such as `VENDOR_research`: one who answers as well makes one grounded call, any
other one search; three calls of a language model follow.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import InvalidRequest, QuotaExceeded, QuotaFacts
from llm_gate.domain.limits import Bucket, limit_named
from llm_gate.domain.preflight import Asked, Line, Preflight

RESEARCH = "research"
MOST_COUNT = 90
"""How many pictures or films one workflow may have."""

GROUNDING_TOKENS = 1_200
ANALYSIS_TOKENS = 1_000
CALENDAR_TOKENS = 20_000

_SUFFIX = f"_{RESEARCH}"
_ANALYSES = ("keyword_analysis", "competitor_analysis", "content_angle_analysis")


class Vendors(Protocol):
    """Knows providers, as far as workflows name them. `named` are those that the operator prefers, best first."""

    named: tuple[str, ...]

    def canonical(self, provider: str) -> str | None:
        """Return the name of a provider of the catalog that goes by another; None for none."""

    def default_model(self, provider: str, operation: Operation) -> str | None:
        """Return the name of a provider's default model; None where it has none."""

    def preference(self) -> tuple[str, ...]:
        """Return the providers, the preferred ones first."""

    def is_enabled(self, provider: str) -> bool:
        """Tell whether a provider can be used now."""


class Workflow(Struct, frozen=True, kw_only=True):
    """A workflow by its name. `provider` is who answers or makes; `count` is how many pictures or films are made."""

    name: str
    provider: str | None = None
    count: int = 1


class WorkflowStep(Struct, frozen=True, kw_only=True):
    """One operation of a workflow. `provider` is one of the catalog, None for whoever serves the bucket."""

    label: str
    operation: Operation
    bucket: Bucket
    provider: str | None = None
    tokens: int = 0

    def asked(self) -> Asked:
        """Return it as a planned operation."""
        return Asked(
            operation=self.operation,
            provider=self.provider,
            label=self.label,
            total_tokens=self.tokens if self.operation == "chat" else None,
        )


class _Media(Struct, frozen=True, kw_only=True):
    """Something that is made: under which name, by which operation, and whether several may be."""

    label: str
    operation: Literal["image", "image_edit", "video"]
    is_counted: bool = False


_MEDIA: Mapping[str, _Media] = {
    "image_generation": _Media(label="image_generation", operation="image", is_counted=True),
    "image_upscale": _Media(label="image_upscale", operation="image"),
    "image_control": _Media(label="image_control", operation="image"),
    "image_editing": _Media(label="image_editing", operation="image_edit"),
    "video_generation": _Media(label="video_generation", operation="video"),
    "scene_animation": _Media(label="scene_animation", operation="video"),
}
_CALENDAR = "calendar"
NAMES: tuple[str, ...] = (RESEARCH, f"VENDOR{_SUFFIX}", _CALENDAR, *_MEDIA)
"""What workflows are called."""


def steps_of(workflow: Workflow, vendors: Vendors) -> tuple[WorkflowStep, ...]:
    """Return the operations that a workflow is made of.

    Raises:
        InvalidRequest: there is none of that name, or a provider in it is not known.
    """
    provider = None if workflow.provider is None else _known(workflow.provider, vendors, "workflow.provider")
    made = _MEDIA.get(workflow.name)
    if workflow.count != 1 and (made is None or not made.is_counted):
        raise InvalidRequest(f"workflow.count: {workflow.name!r} is done once", param="workflow.count")
    if not 1 <= workflow.count <= MOST_COUNT:
        raise InvalidRequest(f"workflow.count: must be from 1 to {MOST_COUNT}", param="workflow.count")
    if made is not None:
        step = WorkflowStep(
            label=made.label, operation=made.operation, bucket=made.operation, provider=provider
        )
        return (step,) * workflow.count
    if workflow.name == _CALENDAR:
        return (_spoken("calendar_generation", CALENDAR_TOKENS, provider or _speaker(vendors, None)),)
    if workflow.name != RESEARCH and not workflow.name.endswith(_SUFFIX):
        raise InvalidRequest(
            f"workflow.name: {workflow.name!r} is none of {', '.join(NAMES)}",
            param="workflow.name",
            code="unknown_workflow",
        )
    searcher = None
    if workflow.name != RESEARCH:
        searcher = _known(workflow.name.removesuffix(_SUFFIX), vendors, "workflow.name")
    speaker = provider or _speaker(vendors, searcher)
    analyses = (_spoken(label, ANALYSIS_TOKENS, speaker) for label in _ANALYSES)
    return (_search(searcher, vendors), *analyses)


def _search(provider: str | None, vendors: Vendors) -> WorkflowStep:
    """Return how a research searches: who answers as well, and is not asked for a search, grounds its own answer."""
    if provider is not None and vendors.default_model(provider, "chat") is not None:
        return _spoken("grounding", GROUNDING_TOKENS, provider)
    return WorkflowStep(label="search", operation="search", bucket="search", provider=provider)


def _speaker(vendors: Vendors, searcher: str | None) -> str | None:
    """Return whose language model is asked where nobody is named.

    It is the one that the operator prefers; else the searcher, where it can speak; else who would be asked anyway.
    """
    preferred = (*vendors.named, *(() if searcher is None else (searcher,)))
    wanted: tuple[str, ...] = (*preferred, *vendors.preference())
    speakers = [each for each in wanted if vendors.default_model(each, "chat") is not None]
    if speakers and speakers[0] in preferred:
        return speakers[0]
    return next((each for each in speakers if vendors.is_enabled(each)), next(iter(speakers), None))


def _spoken(label: str, tokens: int, provider: str | None) -> WorkflowStep:
    return WorkflowStep(label=label, operation="chat", bucket="text", provider=provider, tokens=tokens)


def _known(name: str, vendors: Vendors, field: str) -> str:
    found = vendors.canonical(name) or vendors.canonical(name.lower())
    if found is None:
        raise InvalidRequest(
            f"{field}: {name!r} is not a provider known here", param=field, code="provider_not_found"
        )
    return found


class Denial(Struct, frozen=True, kw_only=True):
    """Why a list of operations may not be done: the first that fails, and what stands in its way.

    `before` is what the operations before it take of the same limit.
    """

    error_type: str
    operation_index: int
    line: Line
    facts: QuotaFacts | None
    before: int


def denial_of(found: Preflight) -> Denial | None:
    """Return what was found against a list of operations; None where all of them may be done."""
    index = found.failed_index
    if index is None:
        return None
    line = found.lines[index]
    facts = line.refusal.facts if isinstance(line.refusal, QuotaExceeded) else None
    return Denial(
        error_type="not_allowed" if facts is None else _error_type(facts, line.estimate.bucket),
        operation_index=index,
        line=line,
        facts=facts,
        before=0 if line.binding is None else line.binding.planned,
    )


def _error_type(facts: QuotaFacts, bucket: Bucket) -> str:
    """Return the documents' word for what was reached."""
    if facts.expired_at is not None:
        return "subscription_expired"
    limit = limit_named(facts.limit_name)
    match limit.meter:
        case "tokens":
            return "token_limit"
        case "cost":
            return "cost_limit"
        case "jobs":
            return "job_limit"
        case _:
            special: Sequence[Bucket] = ("image", "image_edit", "video", "audio")
            if bucket not in special or (limit.bucket is None and limit.provider is None):
                return "call_limit"
            return f"{limit.provider or bucket}_limit"
