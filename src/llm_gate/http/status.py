"""How everybody is doing: all of it, the factory document's short form, and who would be asked for a name."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import UNSET, Struct

from llm_gate.dialects.native_status import (
    Availability,
    CooldownReport,
    DeploymentReport,
    ErrorReport,
    ExplainBody,
    ExplainReply,
    FactoryStatus,
    ModelReport,
    ProviderReport,
    StatusReply,
    decode_explain,
    explanation,
)
from llm_gate.dialects.native_wire import ErrorReply
from llm_gate.domain.access import Identity
from llm_gate.domain.conditions import LastError, PlaceStatus
from llm_gate.engine.gate import Gate
from llm_gate.engine.resolve import Directory
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.routes import Route, Surface

_TAG = "Status"
_MS_DIGITS, _RATE_DIGITS = 1, 4


class StatusRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints. They speak of the operator's own providers; what a tenant brought is nobody else's matter."""

    gate: Gate
    surface: Surface
    api_path: str

    async def status(self, exchange: Exchange) -> None:
        """Say how every provider of the catalog is doing."""
        directory, short = self.gate.directory, self._short()
        # A tenant's own credential makes a place of its own, which is nobody else's business.
        own = {place.key for places in directory.deployments.values() for place in places}
        found = [place for place in self.gate.fleet.statuses() if place.key in own]
        is_operator = _sees_messages(exchange.identity)
        reply = StatusReply(
            primary=short.primary,
            fallbacks=short.fallbacks,
            current=short.current,
            providers=tuple(
                _provider(name, directory, found, exchange.received_at, is_operator=is_operator)
                for name in directory.preference()
            ),
        )
        await exchange.reply(Reply(body=msgspec.json.encode(reply)))

    async def factory_status(self, exchange: Exchange) -> None:
        """Say who is asked first, who then, and who answered last."""
        await exchange.reply(Reply(body=msgspec.json.encode(self._short())))

    def _short(self) -> FactoryStatus:
        directory = self.gate.directory
        preferred = next(iter(directory.preference()), None)
        primary = directory.named[0] if directory.named else preferred
        return FactoryStatus(
            primary=None if primary is None else _available(primary, directory),
            fallbacks=tuple(_available(name, directory) for name in directory.named[1:]),
            current=self.gate.fleet.current or primary,
        )

    async def explain(self, exchange: Exchange) -> None:
        """Say who would be asked for a name now, in order, and who would not."""
        asked = decode_explain(await exchange.body())
        found = await self.gate.explain(
            asked.model,
            asked.operation,
            exchange.context(),
            needs=frozenset(asked.needs),
            fallbacks=asked.fallbacks,
        )
        reply = explanation(
            asked.model,
            found.strategy,
            [(step.target, step.reason) for step in found.taken],
            [(left.name, left.reason) for left in found.left],
        )
        await exchange.reply(Reply(body=msgspec.json.encode(reply)))

    def routes(self) -> list[Route]:
        """Return the rows."""
        return [
            Route(
                method="GET",
                path=f"{self.api_path}/v1/status",
                endpoint=self.status,
                surface=self.surface,
                summary="Say how providers are doing, and what went wrong lately",
                tag=_TAG,
                response_type=StatusReply,
                error_type=ErrorReply,
            ),
            Route(
                method="GET",
                path="/llm/status",
                endpoint=self.factory_status,
                surface=self.surface,
                summary="Say who is asked first, who then, and who answered last",
                tag=_TAG,
                response_type=FactoryStatus,
                error_type=ErrorReply,
            ),
            Route(
                method="POST",
                path=f"{self.api_path}/v1/routes/explain",
                endpoint=self.explain,
                surface=self.surface,
                summary="Say who would be asked for a name, in order, and why; nobody is asked",
                tag=_TAG,
                request_type=ExplainBody,
                response_type=ExplainReply,
                error_type=ErrorReply,
                example={"model": "default"},
            ),
        ]


def _available(name: str, directory: Directory) -> Availability:
    return Availability(name=name, available=directory.is_enabled(name))


def _sees_messages(identity: Identity) -> bool:
    """Tell whether somebody may read what vendors said: it may speak of other people's requests."""
    return identity.key is None or "operator" in identity.scopes


def _provider(
    name: str, directory: Directory, found: Sequence[PlaceStatus], at: datetime, *, is_operator: bool
) -> ProviderReport:
    available = directory.is_enabled(name)
    places = [each for each in found if each.provider == name]
    names = dict.fromkeys(place.name or name for place in directory.deployments.get(name, ()))
    return ProviderReport(
        name=name,
        available=available,
        reason=UNSET if available else directory.hint(name),
        deployments=tuple(
            DeploymentReport(
                name=deployment,
                models=tuple(
                    _model(each, at, is_operator=is_operator)
                    for each in places
                    if each.deployment == deployment
                ),
            )
            for deployment in names
        ),
    )


def _model(place: PlaceStatus, at: datetime, *, is_operator: bool) -> ModelReport:
    vitals, cooling = place.vitals, place.cooling
    cooldown = None
    if cooling is not None:
        cooldown = CooldownReport(until=at + timedelta(seconds=cooling.for_s), reason=cooling.code)
    return ModelReport(
        model=place.model,
        requests=vitals.requests,
        failures=vitals.failures,
        success_rate=_rounded(vitals.success_rate, _RATE_DIGITS),
        p50_ms=_rounded(vitals.p50_ms, _MS_DIGITS),
        p95_ms=_rounded(vitals.p95_ms, _MS_DIGITS),
        under_way=vitals.under_way,
        waiting=vitals.waiting,
        cooldown=cooldown,
        last_errors=tuple(_error(error, is_operator=is_operator) for error in vitals.last_errors),
    )


def _error(error: LastError, *, is_operator: bool) -> ErrorReport:
    return ErrorReport(
        at=datetime.fromtimestamp(error.at_ms / 1000, UTC),
        code=error.code,
        status=error.status,
        message=error.message if is_operator else UNSET,
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
