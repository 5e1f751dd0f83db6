"""Health: whether the process lives, and whether it can serve. No key, no headers, no provider is asked."""

from msgspec import Struct

from llm_gate.engine.gate import Gate
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.overload import Traffic
from llm_gate.http.routes import Route, Surface

_HEALTHY = b'{"status":"Healthy"}'
_READY = b'{"status":"Ready"}'
_NOT_READY = b'{"status":"Not ready"}'
_TAG = "Health"


class HealthReply(Struct, frozen=True, kw_only=True):
    """A word about the state of the gateway."""

    status: str


class HealthRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints probes call."""

    gate: Gate
    traffic: Traffic
    surface: Surface
    api_path: str

    async def healthz(self, exchange: Exchange) -> None:
        """Say that the process answers."""
        await exchange.reply(Reply(body=_HEALTHY))

    async def readyz(self, exchange: Exchange) -> None:
        """Say whether calls can be answered: a provider can be used, and the ledger and the gateway let them in."""
        ready = (
            bool(self.gate.directory.deployments)
            and not self.gate.admission.ledger.is_away
            and not self.traffic.is_shut
        )
        await exchange.reply(Reply(status=200 if ready else 503, body=_READY if ready else _NOT_READY))

    def routes(self) -> list[Route]:
        """Return the rows."""
        return [
            Route(
                method="GET",
                path=path,
                endpoint=endpoint,
                surface=self.surface,
                summary=summary,
                tag=_TAG,
                policy="open",
                response_type=HealthReply,
            )
            for path, endpoint, summary in (
                (f"{self.api_path}/health", self.healthz, "Whether the gateway lives"),
                ("/healthz", self.healthz, "Whether the process lives"),
                ("/readyz", self.readyz, "Whether the gateway can serve"),
            )
        ]
