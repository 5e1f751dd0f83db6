"""Starts the server: puts the application together, runs it, and says on the terminal when it is ready."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import uvicorn
from msgspec import Struct

from llm_gate.bootstrap import Gateway, Stores, build, is_loopback, now_ms
from llm_gate.bootstrap.batching import open_batches
from llm_gate.bootstrap.meters import listed_models, open_metrics
from llm_gate.configuration import Source
from llm_gate.domain.errors import GateFault
from llm_gate.domain.tracing import NoTracer, Tracer
from llm_gate.engine.counting import Counting
from llm_gate.engine.quotes import Quoting
from llm_gate.engine.research import Research
from llm_gate.engine.working import Working
from llm_gate.http.admin import AdminRoutes, AdminSurface
from llm_gate.http.anthropic import VERSION_HEADER, AnthropicRoutes, AnthropicSurface
from llm_gate.http.app import Application, EdgeRules
from llm_gate.http.banner import banner
from llm_gate.http.counting import CountRoutes
from llm_gate.http.draining import SERVER_GRACE_S, Draining, Workers
from llm_gate.http.fine_tuning import NativeFineTuningRoutes
from llm_gate.http.guard import make_guard
from llm_gate.http.health import HealthRoutes
from llm_gate.http.idempotency import Repeats
from llm_gate.http.jobs import JobRoutes
from llm_gate.http.live import LiveConfiguration
from llm_gate.http.media import MediaRoutes
from llm_gate.http.metrics import MetricsRoutes
from llm_gate.http.native import NativeRoutes, NativeSurface
from llm_gate.http.openai import OpenAIRoutes, OpenAISurface
from llm_gate.http.openai_audio import AudioRoutes
from llm_gate.http.openai_batches import BatchRoutes, OpenAIWording
from llm_gate.http.openai_completions import CompletionsRoutes
from llm_gate.http.openai_files import FileRoutes
from llm_gate.http.openai_fine_tuning import FineTuningRoutes
from llm_gate.http.openai_images import ImageRoutes
from llm_gate.http.openai_responses import ResponsesRoutes
from llm_gate.http.openai_videos import VideoRoutes
from llm_gate.http.openapi import DocumentationRoutes, openapi_document
from llm_gate.http.overload import Traffic
from llm_gate.http.quotes import QuoteRoutes
from llm_gate.http.research import ResearchRoutes
from llm_gate.http.routes import Route, Router, SurfaceRow
from llm_gate.http.search import SearchRoutes
from llm_gate.http.status import StatusRoutes
from llm_gate.http.subscription import SubscriptionRoutes
from llm_gate.http.subscription_errors import SubscriptionSurface
from llm_gate.http.subscription_preflight import PreflightRoutes
from llm_gate.office import Office, open_office
from llm_gate.settings import Settings, SettingsFaults
from llm_gate.telemetry.logs import configure_logging
from llm_gate.telemetry.metrics import Metrics
from llm_gate.telemetry.traces import open_tracer

OK, FAILED, REFUSED = 0, 1, 2

_logger = logging.getLogger("llm_gate.configuration")

_KEEP_ALIVE_S = 75
_BACKLOG = 2048
_GC_THRESHOLDS = (10_000, 20, 20)
_LAUNCH = "LLM_GATE_LAUNCH"
_INSTANCE = "LLM_GATE_INSTANCE_ID"


def make_application(
    settings: Settings, gateway: Gateway, source: Source, *, is_worker: bool = False
) -> Application:
    """Put the application together around a gateway; `source` is read again when its files change.

    A worker hears from its supervisor when it is to end.
    """
    native, api_path = NativeSurface(), settings.api.path
    beat_s = settings.timeouts.heartbeat_s
    counting = Counting(gateway.gate, gateway.tokenizers)
    office = open_office(gateway, settings)
    tracer = open_tracer(settings.environment)
    metrics = open_metrics(gateway, settings)
    traffic = Traffic(metrics.shed)
    metrics.watch(lambda: {"in_flight": traffic.in_flight})
    routes = [
        *NativeRoutes(gate=gateway.gate, heartbeat_s=beat_s, api_path=api_path).routes(),
        *_media_routes(gateway, api_path, beat_s),
        *OpenAIRoutes(gate=gateway.gate, heartbeat_s=beat_s).routes(),
        *ResponsesRoutes(gate=gateway.gate, heartbeat_s=beat_s).routes(),
        *CompletionsRoutes(gate=gateway.gate, heartbeat_s=beat_s).routes(),
        *AnthropicRoutes(gate=gateway.gate, counting=counting, heartbeat_s=beat_s).routes(),
        *CountRoutes(counting=counting, api_path=api_path).routes(),
        *_quoted_routes(gateway, api_path, beat_s),
        *([] if office is None else _office_routes(office, gateway, api_path)),
        *StatusRoutes(gate=gateway.gate, surface=native, api_path=api_path).routes(),
        *MetricsRoutes(scrape=metrics.scrape, surface=native).routes(),
        *HealthRoutes(gate=gateway.gate, traffic=traffic, surface=native, api_path=api_path).routes(),
    ]
    document = openapi_document(
        routes,
        title=settings.api.title,
        description=settings.api.description,
        needs_key=settings.api_key is not None or gateway.stores.has_keys(),
    )
    documentation = DocumentationRoutes(
        surface=native,
        api_path=api_path,
        title=settings.api.title,
        document=msgspec.json.encode(document),
    )
    live = _Live(gateway, source, settings, office, traffic, is_worker=is_worker)
    live.metrics, live.tracer = metrics, tracer
    application = Application(
        router=Router([*routes, *documentation.routes()]),
        surfaces=(
            SurfaceRow(prefix="/v1/messages", surface=AnthropicSurface()),
            SurfaceRow(prefix="/v1", surface=AnthropicSurface(), header=VERSION_HEADER),
            SurfaceRow(prefix="/v1", surface=OpenAISurface()),
            SurfaceRow(prefix="/api", surface=SubscriptionSurface()),
            SurfaceRow(prefix=f"{api_path}/admin/", surface=AdminSurface()),
            SurfaceRow(prefix="", surface=native),
        ),
        rules=_edge_rules(settings, gateway),
        access=gateway.gate.access,
        on_start=live.start,
        on_stop=live.stop,
        serve_keyed=None if live.repeats is None else live.repeats.serve,
        traffic=traffic,
        meters=metrics,
        tracer=tracer,
    )
    live.application = application
    return application


def _quoted_routes(gateway: Gateway, api_path: str, beat_s: float) -> list[Route]:
    gate = gateway.gate
    quoting = Quoting(standings=gate.access, admission=gate.admission, quotes=gateway.stores.quotes)
    research = Research(gate=gate, quoting=quoting)
    return [
        *QuoteRoutes(gate=gate, quoting=quoting, api_path=api_path).routes(),
        *PreflightRoutes(gate=gate, quoting=quoting).routes(),
        *ResearchRoutes(research=research, heartbeat_s=beat_s, api_path=api_path).routes(),
    ]


def _media_routes(gateway: Gateway, api_path: str, beat_s: float) -> list[Route]:
    gate, keeping = gateway.gate, gateway.keeping
    files, tuning = gateway.files, gateway.tuning
    batches = open_batches(gateway, OpenAIWording())
    return [
        *([] if files is None else FileRoutes(files=files).routes()),
        *([] if batches is None else BatchRoutes(batches=batches).routes()),
        *([] if tuning is None else FineTuningRoutes(gate=gate, tuning=tuning).routes()),
        *NativeFineTuningRoutes(gate=gate, api_path=api_path).routes(),
        *MediaRoutes(gate=gate, keeping=keeping, api_path=api_path).routes(),
        *JobRoutes(gate=gate, keeping=keeping, api_path=api_path, heartbeat_s=beat_s).routes(),
        *ImageRoutes(gate=gate, keeping=keeping).routes(),
        *AudioRoutes(gate=gate).routes(),
        *SearchRoutes(gate=gate, api_path=api_path).routes(),
        *VideoRoutes(gate=gate, keeping=keeping).routes(),
    ]


def _office_routes(office: Office, gateway: Gateway, api_path: str) -> list[Route]:
    admin, gate = office.admin, gateway.gate
    return [
        *SubscriptionRoutes(
            gate=gate,
            users=office.users,
            alerts=office.alerts,
            directives=admin.directives,
            administration=admin.administration,
            subscriptions=admin.subscriptions,
            now_ms=now_ms,
        ).routes(),
        *AdminRoutes(admin=admin, gate=gate, api_path=api_path, now_ms=now_ms).routes(),
    ]


class _Live:
    """Ties live configuration, and an end in good order, to the life of an application."""

    def __init__(
        self,
        gateway: Gateway,
        source: Source,
        settings: Settings,
        office: Office | None,
        traffic: Traffic,
        *,
        is_worker: bool,
    ) -> None:
        self.application: Application | None = None
        self.metrics: Metrics | None = None
        self.tracer: Tracer = NoTracer()
        self._office = office
        self._gateway = gateway
        self._source = source
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._is_worker = is_worker
        self._draining = Draining(traffic, lambda: self._settings.server.drain_s)
        answers = gateway.stores.answers
        self.repeats = (
            None if answers is None else Repeats(answers, owner=gateway.stores.owner, now_ms=now_ms)
        )

    async def start(self) -> None:
        """Begin to follow the files and the signals."""
        live = LiveConfiguration(self._source, self._settings, self._apply)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(live.run())
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, live.ask)
        await self._gateway.start()
        if self.repeats is not None:
            self.repeats.start()
        if self._office is not None:
            await self._office.start()
        if self.metrics is not None:
            self.metrics.start()
        self._draining.watch(is_worker=self._is_worker)
        _settle_memory()

    async def stop(self) -> None:
        """Follow no more, and close what the gateway holds."""
        if self._task is not None:
            self._task.cancel()
        if self.repeats is not None:
            await self.repeats.close()
        if self._office is not None:
            await self._office.close()
        await self._gateway.close()
        if self.metrics is not None:
            await self.metrics.close()
        await self.tracer.close()

    def _apply(self, settings: Settings, working: Working) -> None:
        self._settings = settings
        self._gateway.reload(settings, working)
        if self.metrics is not None:
            self.metrics.use_models(listed_models(self._gateway))
        if self._office is not None:
            self._office.reload(settings)
        self._reloading = asyncio.get_running_loop().create_task(self._reload_plans(settings))
        if self.application is not None:
            self.application.rules = _edge_rules(settings, self._gateway)

    async def _reload_plans(self, settings: Settings) -> None:
        try:
            await self._gateway.reload_plans(settings)
        except GateFault as fault:
            _logger.warning("the plans of the file were not taken over", extra={"error": fault.message})


def _settle_memory() -> None:
    """Take what is there for good out of the collector's rounds, and let these come less often.

    A request makes few cycles; walking the catalog and every module again and again cost a seventh of its time.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _edge_rules(settings: Settings, gateway: Gateway) -> EdgeRules:
    return EdgeRules(
        guard=make_guard(
            bind_host=settings.server.host,
            hosts=settings.server.allowed_hosts,
            origins=settings.server.allowed_origins,
            instance_id=gateway.gate.instance_id,
        ),
        control_headers=tuple(
            entry.spec.control_header
            for entry in gateway.directory.catalog.providers.values()
            if entry.spec.control_header is not None
        ),
        shown_headers=tuple(
            dict.fromkeys(
                ours.lower()
                for entry in gateway.directory.catalog.providers.values()
                for ours in entry.spec.reply_headers.values()
            )
        ),
        max_body_bytes=settings.server.max_body_bytes,
        max_in_flight=settings.server.max_in_flight,
        log_prompts=settings.logging.prompts,
        log_access=configure_logging(
            level=settings.logging.level,
            provider_levels=settings.logging.providers,
            form=settings.logging.format,
        ),
    )


class _Launch(Struct, frozen=True, kw_only=True):
    """What a worker process needs to load the same settings again."""

    config_file: str | None
    env_file: str | None
    overrides: dict[str, Any]


def run_server(settings: Settings, source: Source, *, stores: Stores | None = None) -> int:
    """Serve until stopped and return the exit code: 2 when the gateway may not listen there.

    `settings` were read from `source`, which is read again when its files change. `stores` stand in for those that the
    settings name.

    Raises:
        GateFault: the configuration is faulty.
    """
    server = settings.server
    # The workers share one name, so that a loop through another of them is noticed too.
    instance_id = settings.environment.get(_INSTANCE) or uuid4().hex[:16]
    os.environ[_INSTANCE] = instance_id
    gateway = build(settings, instance_id=instance_id, stores=stores)
    has_keys = gateway.stores.has_keys()
    if not is_loopback(server.host) and settings.api_key is None and not has_keys:
        sys.stderr.write(
            f"llm-gate: refusing to listen on {server.host}: there is no key yet that a caller could present.\n"
            "Make one with `llm-gate keys create --client NAME`, set LLM_GATE_API_KEY, or listen on 127.0.0.1.\n"
        )
        return REFUSED
    try:
        listener = _listen(server.host, server.port)
    except OSError as error:
        sys.stderr.write(f"llm-gate: cannot listen on {server.host}:{server.port}: {error.strerror}\n")
        return FAILED
    with listener:
        port = listener.getsockname()[1]
        text = banner(settings, gateway.directory, port=port, has_keys=has_keys)
        if server.workers == 1:
            config = _config(make_application(settings, gateway, source), settings, factory=False)
            _Announcing(config, text).run(sockets=[listener])
        else:
            os.environ[_LAUNCH] = msgspec.json.encode(_launch(settings, source)).decode()
            config = _config("llm_gate.http.server:worker_application", settings, factory=True)
            sys.stdout.write(text)
            sys.stdout.flush()
            Workers(config, sockets=[listener], drain_s=lambda: _drain_s(source, settings)).run()
    return OK


class _Announcing(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, text: str) -> None:
        super().__init__(config)
        self._text = text

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then speak."""
        await super().startup(sockets=sockets)
        if self.started:
            sys.stdout.write(self._text)
            sys.stdout.flush()


def _drain_s(source: Source, settings: Settings) -> float:
    """Return how long the workers may take for their calls: as the files say now, if they can be read."""
    try:
        return source.read().server.drain_s
    except SettingsFaults:
        return settings.server.drain_s


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.set_inheritable(True)
        # Calls that come before the workers are up wait instead of being refused.
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _config(application: Any, settings: Settings, *, factory: bool) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        factory=factory,
        workers=settings.server.workers,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=SERVER_GRACE_S,
    )


def _launch(settings: Settings, source: Source) -> _Launch:
    server = settings.server
    return _Launch(
        config_file=None if source.config_file is None else str(source.config_file),
        env_file=None if source.env_file is None else str(source.env_file),
        overrides={"host": server.host, "port": server.port, "data_dir": str(server.data_dir)},
    )


def worker_application() -> Application:
    """Make the application inside a worker process, from what its parent left in the environment."""
    launch = msgspec.json.decode(os.environ[_LAUNCH], type=_Launch)
    source = Source(
        config_file=None if launch.config_file is None else Path(launch.config_file),
        env_file=None if launch.env_file is None else Path(launch.env_file),
        overrides=launch.overrides,
    )
    settings = source.read()
    gateway = build(settings, instance_id=os.environ[_INSTANCE])
    return make_application(settings, gateway, source, is_worker=True)
