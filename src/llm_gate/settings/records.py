"""The settings as values, each with its default. Nothing is read here."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from llm_gate.domain.plan_tables import PlanTable
from llm_gate.domain.plans import UNLIMITED
from llm_gate.domain.secret import Secret

Text = Annotated[str, Meta(min_length=1)]
# A week: longer waits are slips of the keyboard, and infinity would switch a guard off.
Seconds = Annotated[float, Meta(gt=0, le=604_800)]


class Environment(Mapping[str, str]):
    """Environment variables by name. Their values are credentials too, so that none is ever printed."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Environment({len(self._values)} variables)"


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the gateway listens, whom it answers, and where it keeps its data. Port 0 is any free port."""

    host: Text = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    data_dir: Path = field(default_factory=lambda: Path("data"))
    allowed_hosts: tuple[Text, ...] = ()
    allowed_origins: tuple[Text, ...] = ()
    max_body_bytes: Annotated[int, Meta(ge=1)] = 32 * 1024 * 1024


class TimeoutSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the gateway waits for a provider, and between signs of life to a caller.

    `headers_s` bounds a stream's head, and then its first event; `idle_s` runs between two events with content;
    `total_s` bounds a unary call and `stream_total_s` a streamed one.
    """

    connect_s: Seconds = 10.0
    headers_s: Seconds = 300.0
    idle_s: Seconds = 300.0
    total_s: Seconds = 600.0
    stream_total_s: Seconds = 14_400.0
    heartbeat_s: Seconds = 15.0


class LoggingSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged and how. `providers` holds levels that differ for one provider's logger."""

    level: Text = "INFO"
    providers: Mapping[str, Text] = {}
    prompts: bool = False
    format: Literal["auto", "json", "pretty"] = "auto"


class ApiSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the native surface presents itself, and the path it lives under."""

    title: Text = "HEIMDALL"
    description: str = "Responsible for being the application integration with GenAI models"
    path: str = "/llm-gate"


class PlanSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose plan a user without a subscription has, and plans of the operator's own, by name."""

    default: Text = UNLIMITED
    custom: Mapping[str, PlanTable] = {}


class AlertSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where alerts about limits are sent, signed; nowhere without an address."""

    webhook_url: Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+([/?#]\S*)?$")] | None = None


class Settings(Struct, frozen=True, kw_only=True):
    """Everything the operator decided.

    `providers` are the raw tables for the catalog, which checks them. `primary` and `fallbacks` name providers as
    written, in lower case. `environment` is the real one laid over the `.env` file, without variables set to
    nothing. `config_file` and `env_file` are the files that were read. `database_url` is that of PostgreSQL; without
    it the embedded database of `server.data_dir` is meant.
    """

    server: ServerSettings = ServerSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    logging: LoggingSettings = LoggingSettings()
    api: ApiSettings = ApiSettings()
    plans: PlanSettings = PlanSettings()
    alerts: AlertSettings = AlertSettings()
    providers: Mapping[str, Any] = {}
    aliases: Mapping[str, tuple[str, ...]] = {}
    primary: str | None = None
    fallbacks: tuple[str, ...] = ()
    verify_tls: bool = True
    api_key: Secret | None = None
    database_url: Secret | None = None
    redis_url: Secret | None = None
    pepper: Secret | None = None
    webhook_secret: Secret | None = None
    environment: Mapping[str, str] = Environment({})
    config_file: Path | None = None
    env_file: Path | None = None
