"""How providers are doing, and who would be asked for a name, in the native wire format, in names with underscores."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from llm_gate.dialects._json import read_as, read_object
from llm_gate.domain.catalog import Ability, Operation
from llm_gate.domain.provider import Target

MAX_FALLBACKS = 8

_Name = Annotated[str, Meta(min_length=1, max_length=256)]


class _Reply(Struct, frozen=True, kw_only=True):
    """What a caller gets."""


class Availability(_Reply, frozen=True, kw_only=True):
    """A provider, and whether it can be used now."""

    name: str
    available: bool


class FactoryStatus(_Reply, frozen=True, kw_only=True):
    """Who is asked first, who then, and who answered last."""

    primary: Availability | None
    fallbacks: tuple[Availability, ...]
    current: str | None


class CooldownReport(_Reply, frozen=True, kw_only=True):
    """Until when a place is left alone, and the code of the error that led to it."""

    until: datetime
    reason: str


class ErrorReport(_Reply, frozen=True, kw_only=True):
    """An error that a place met with; `status` is the vendor's, `message` is for the operator alone."""

    at: datetime
    code: str
    status: int | None
    message: str | UnsetType = UNSET


class ModelReport(_Reply, frozen=True, kw_only=True):
    """What a model at a deployment did: since the start the counts, of the last few hundred attempts the rest."""

    model: str
    requests: int
    failures: int
    success_rate: float | None
    p50_ms: float | None
    p95_ms: float | None
    under_way: int
    waiting: int
    cooldown: CooldownReport | None
    last_errors: tuple[ErrorReport, ...]


class DeploymentReport(_Reply, frozen=True, kw_only=True):
    """One place of a provider, with the models that were asked for there."""

    name: str
    models: tuple[ModelReport, ...]


class ProviderReport(_Reply, frozen=True, kw_only=True):
    """One provider of the catalog; `reason` says what is missing where it cannot be used."""

    name: str
    available: bool
    reason: str | UnsetType = UNSET
    deployments: tuple[DeploymentReport, ...]


class StatusReply(FactoryStatus, frozen=True, kw_only=True):
    """The same, with every provider of the catalog, those that can be used first."""

    providers: tuple[ProviderReport, ...]


class ExplainBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name as a call would have it, what is to be done, what the model must be able to do, and names to try then."""

    model: Annotated[str, Meta(max_length=256)]
    operation: Operation = "chat"
    needs: tuple[Ability, ...] = ()
    fallbacks: Annotated[tuple[_Name, ...], Meta(max_length=MAX_FALLBACKS)] = ()


class TargetReport(_Reply, frozen=True, kw_only=True):
    """A target at its place in the order, from 1, and why it stands there."""

    name: str
    provider: str
    model: str
    deployment: str
    position: int
    reason: str


class LeftReport(_Reply, frozen=True, kw_only=True):
    """What would not be tried, and why."""

    name: str
    reason: str


class ExplainReply(_Reply, frozen=True, kw_only=True):
    """Who would be asked for a name now, in order."""

    model: str
    strategy: str
    targets: tuple[TargetReport, ...]
    left: tuple[LeftReport, ...]


_explain_decoder = msgspec.json.Decoder(ExplainBody)


def decode_explain(body: bytes) -> ExplainBody:
    """Read the question.

    Raises:
        InvalidRequest: it is malformed.
    """
    read_object(body)
    return read_as(_explain_decoder, body)


def explanation(
    model: str, strategy: str, taken: Sequence[tuple[Target, str]], left: Sequence[tuple[str, str]]
) -> ExplainReply:
    """Return the answer: the targets in order, each with its reason, and the names that were left out with theirs."""
    targets = tuple(
        TargetReport(
            name=target.name,
            provider=target.provider,
            model=target.model.name,
            deployment=target.deployment.name or target.provider,
            position=position,
            reason=reason,
        )
        for position, (target, reason) in enumerate(taken, 1)
    )
    left_out = tuple(LeftReport(name=name, reason=reason) for name, reason in left)
    return ExplainReply(model=model, strategy=strategy, targets=targets, left=left_out)
