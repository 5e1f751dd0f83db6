"""The settings as values, each with its default. Nothing is read here."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from llm_gate.domain.catalog import Alias, Count
from llm_gate.domain.plan_tables import PlanTable
from llm_gate.domain.plans import UNLIMITED
from llm_gate.domain.secret import Secret

Text = Annotated[str, Meta(min_length=1)]
# A week: longer waits are slips of the keyboard, and infinity would switch a guard off.
Seconds = Annotated[float, Meta(gt=0, le=604_800)]
Pause = Annotated[float, Meta(ge=0, le=3_600)]
Tries = Annotated[int, Meta(ge=1, le=20)]
Function = Annotated[str, Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
Percent = Annotated[int, Meta(ge=0, le=100)]


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
    """Where the gateway listens, whom it answers, and where it keeps its data. Port 0 is any free port.

    `max_in_flight` bounds the model calls under way in one process; `drain_s` is how long those may go on when it is
    stopped.
    """

    host: Text = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    data_dir: Path = field(default_factory=lambda: Path("data"))
    allowed_hosts: tuple[Text, ...] = ()
    allowed_origins: tuple[Text, ...] = ()
    max_body_bytes: Annotated[int, Meta(ge=1)] = 32 * 1024 * 1024
    max_in_flight: Count | None = None
    drain_s: Seconds = 30.0


class TimeoutSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the gateway waits for a provider, and between signs of life to a caller.

    `connect_s` bounds the connection, `headers_s` an answer's head, `first_event_s` a stream's first event after that;
    `idle_s` runs between two events with content; `total_s` bounds a unary call with all its attempts, and a stream up
    to its first event, `stream_total_s` a stream.
    """

    connect_s: Seconds = 10.0
    headers_s: Seconds = 300.0
    first_event_s: Seconds = 300.0
    idle_s: Seconds = 300.0
    total_s: Seconds = 600.0
    stream_total_s: Seconds = 14_400.0
    heartbeat_s: Seconds = 15.0


class RetrySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a call is tried, over what the preset says. `wait = false` leaves out every pause, for tests.

    `tries` are the attempts at a target while another is left, `last_tries` those at the last one; the pause before the
    n-th repeat is `pause_s` (`last_pause_s`) times 2 to the n, `longest_pause_s` at most. `rate_pause_s` is how long a
    limited rate is waited for at the last target. A second target is asked beside one that is silent for
    `hedge_after_s`. `budget_percent` of a deployment's calls may be repeats, and `budget_floor` in quiet times;
    `hedge_percent` of all calls may be hedged.
    """

    preset: Literal["gateway", "factory"] = "gateway"
    tries: Tries | None = None
    last_tries: Tries | None = None
    pause_s: Pause | None = None
    last_pause_s: Pause | None = None
    longest_pause_s: Pause | None = None
    rate_pause_s: Pause | None = None
    hedge_after_s: Seconds | None = None
    budget_percent: Percent = 10
    budget_floor: Annotated[int, Meta(ge=0, le=1_000)] = 3
    hedge_percent: Percent = 5
    wait: bool = True


class CooldownSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a model at a deployment is left alone, and for how long.

    After `failures` in a row, or when half of the last `window` calls failed: for `first_s`, doubling up to
    `longest_s`. After what no waiting mends soon: for `broken_first_s`, doubling up to `broken_longest_s`. 0 failures
    keep to what vendors ask for, and to nothing else; that is kept up to `longest_wish_s`.
    """

    failures: Annotated[int, Meta(ge=0, le=1_000_000)] = 5
    window: Annotated[int, Meta(ge=2, le=100_000)] = 20
    first_s: Seconds = 1.0
    longest_s: Seconds = 4.0
    broken_first_s: Seconds = 5.0
    broken_longest_s: Seconds = 300.0
    longest_wish_s: Annotated[float, Meta(ge=0, le=604_800)] = 86_400.0


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


class GuardSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who looks at what goes in and comes out: functions of the operator's own, as `package.module:name`."""

    input: tuple[Function, ...] = ()
    output: tuple[Function, ...] = ()
    timeout_s: Seconds = 5.0


class AlertSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where alerts about limits are sent, signed; nowhere without an address."""

    webhook_url: Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+([/?#]\S*)?$")] | None = None


class MediaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How media that were made are kept, and what may be fetched.

    They are kept for `retention_s`, in `data_dir` or in the bucket that `s3_url` names; links to them work for
    `link_s`, and begin with `public_url` (where nothing is said: with the host that was called). `trusted_hosts` are
    addresses (host:port) that may be fetched from though they are private.
    """

    retention_s: Annotated[float, Meta(gt=0, le=315_360_000)] = 604_800.0
    link_s: Seconds = 86_400.0
    public_url: Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+[^\s?#]*$")] | None = None
    trusted_hosts: tuple[Annotated[str, Meta(pattern=r"^[^\s:/@]+:[0-9]{1,5}$")], ...] = ()
    s3_url: Annotated[str, Meta(pattern=r"^s3://[^\s/?#@]+(/\S*)?$")] | None = None


Similarity = Annotated[float, Meta(ge=0.5, le=1.0)]
Namespace = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class CacheRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plan or an alias says of the cache otherwise; what is not given is as `[cache]` has it."""

    exact: bool | None = None
    semantic: bool | None = None
    ttl_s: Seconds | None = None
    threshold: Similarity | None = None
    namespace: Namespace | None = None


class CacheSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether answers are kept for those who ask the same (`exact`) or nearly the same (`semantic`), and how long.

    `threshold` is the least cosine at which two questions count as the same. `model` names the embedding model that
    compares them (none: the default one). `scope` says who shares answers: everybody in a tenant, or each user alone.
    `namespace` keeps answers apart from those of another. Nothing is kept for a request whose temperature is above
    `max_temperature`, by meaning; by its exact words it is. `max_entries` and `max_bytes` bound what is kept in the
    store, `memory_bytes` what each process keeps of it. `plans` and `aliases` say otherwise for some, the alias last.
    """

    exact: bool = False
    semantic: bool = False
    ttl_s: Seconds = 3_600.0
    threshold: Similarity = 0.95
    model: Text | None = None
    scope: Literal["tenant", "user"] = "tenant"
    namespace: Namespace | None = None
    max_temperature: Annotated[float, Meta(ge=0, le=2)] = 0.5
    max_entries: Annotated[int, Meta(ge=1, le=10_000_000)] = 50_000
    max_bytes: Annotated[int, Meta(ge=1)] = 512 * 1024 * 1024
    memory_bytes: Annotated[int, Meta(ge=1)] = 64 * 1024 * 1024
    plans: Mapping[str, CacheRule] = {}
    aliases: Mapping[str, CacheRule] = {}


class Settings(Struct, frozen=True, kw_only=True):
    """Everything the operator decided.

    `providers` are the raw tables for the catalog, which checks them. `primary` and `fallbacks` name providers as
    written, in lower case. `environment` is the real one laid over the `.env` file, without variables set to
    nothing. `config_file` and `env_file` are the files that were read. `database_url` is that of PostgreSQL; without
    it the embedded database of `server.data_dir` is meant.
    """

    server: ServerSettings = ServerSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    retries: RetrySettings = RetrySettings()
    cooldown: CooldownSettings = CooldownSettings()
    logging: LoggingSettings = LoggingSettings()
    api: ApiSettings = ApiSettings()
    plans: PlanSettings = PlanSettings()
    alerts: AlertSettings = AlertSettings()
    guards: GuardSettings = GuardSettings()
    media: MediaSettings = MediaSettings()
    cache: CacheSettings = CacheSettings()
    providers: Mapping[str, Any] = {}
    aliases: Mapping[str, Alias] = {}
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
