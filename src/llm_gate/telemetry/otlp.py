"""Traces and metrics through OpenTelemetry's SDK; imported only where a collector is named.

Spans and metrics bear the names of the semantic conventions for generative AI. They hold no text of a conversation, no
user and no key. What is sent goes out from threads of the SDK; a collector that is away costs nothing but the data.
"""

import asyncio
import logging
import threading
from collections.abc import Collection, Mapping
from time import monotonic
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from llm_gate import __version__
from llm_gate.domain.provider import Target
from llm_gate.domain.tracing import STATE_HEADER, TRACE_HEADER, Span, trace_headers
from llm_gate.domain.usage import Usage, total_usage

CLOSE_S = 3.0
"""How long the end waits for a collector."""

_NAME = "llm_gate"
_OPERATIONS: Mapping[str, str] = {"embedding": "embeddings"}
_PORTS: Mapping[str, int] = {"http": 80, "https": 443}
_MAX_NAME_CHARS = 128
_FAULT_STATUS = 500
_DURATION_ENDS_S = tuple(0.01 * 2**step for step in range(14))
_TOKEN_ENDS = tuple(4**step for step in range(14))
_UNLISTED = "unlisted"
_logger = logging.getLogger("llm_gate.telemetry")

Attributes = dict[str, str | int]


class OpenTelemetry:
    """The tracer over the SDK, with providers of its own: nothing global is set.

    `wanted` are the variables of OpenTelemetry; `sent` says which of "TRACES" and "METRICS" go to the collector.
    """

    def __init__(self, wanted: Mapping[str, str], sent: Collection[str]) -> None:
        resource = Resource.create({"service.version": __version__} | _own_name(wanted))
        self._traces = TracerProvider(resource=resource)
        if "TRACES" in sent:
            self._traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        readers = [PeriodicExportingMetricReader(OTLPMetricExporter())] if "METRICS" in sent else []
        self._meters = MeterProvider(readers, resource=resource)
        self._tracer = self._traces.get_tracer(_NAME, __version__)
        self._propagator = TraceContextTextMapPropagator()
        meter = self._meters.get_meter(_NAME, __version__)
        self.durations = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="Duration of an attempt at a provider.",
            explicit_bucket_boundaries_advisory=_DURATION_ENDS_S,
        )
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of an attempt at a provider.",
            explicit_bucket_boundaries_advisory=_TOKEN_ENDS,
        )
        _log_alike()

    def request(self, method: str, headers: Mapping[str, str]) -> Span:
        """Begin a request, within the trace that its headers name, if they do."""
        above = self._propagator.extract(trace_headers(headers), context=Context())
        span = self._tracer.start_span(
            method, context=above, kind=SpanKind.SERVER, attributes={"http.request.method": method}
        )
        return _Request(self, span, method)

    def under(self, parent: OtelSpan, name: str, kind: SpanKind, attributes: Attributes) -> OtelSpan:
        """Begin a span within another, whatever else the program traces."""
        return self._tracer.start_span(
            name[:_MAX_NAME_CHARS],
            context=set_span_in_context(parent, Context()),
            kind=kind,
            attributes=attributes,
        )

    async def close(self) -> None:
        """Send what is left, for a few seconds at most, and make no more."""
        loop, is_done = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            self._traces.shutdown()
            self._meters.shutdown(timeout_millis=CLOSE_S * 1000)
            try:
                loop.call_soon_threadsafe(is_done.set)
            except RuntimeError:
                # Nobody waits any more: the loop is gone.
                return

        # A pool's thread would keep the process from ending while a collector is away.
        threading.Thread(target=end, name="traces end", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_S):
                await is_done.wait()
        except TimeoutError:
            _logger.warning("the collector did not take the last traces")


class _Span:
    """A model call, and what all spans have in common."""

    def __init__(self, owner: OpenTelemetry, span: OtelSpan) -> None:
        self._owner = owner
        self._span = span
        self._error: str | None = None
        self._has_ended = False

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by which what is asked within it joins its trace."""
        found = self._span.get_span_context()
        headers = {
            TRACE_HEADER: f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags):02x}"
        }
        if found.trace_state:
            headers[STATE_HEADER] = found.trace_state.to_header()
        return headers

    def call(self, operation: str, model: str) -> Span:
        """Begin a model call within this."""
        operation = _OPERATIONS.get(operation, operation)
        named: Attributes = {"gen_ai.operation.name": operation}
        if model:
            named["gen_ai.request.model"] = model[:_MAX_NAME_CHARS]
        name = f"{operation} {model}".rstrip()
        return _Span(self._owner, self._owner.under(self._span, name, SpanKind.INTERNAL, named))

    def attempt(self, operation: str, target: Target) -> Span:
        """Begin an attempt within this."""
        operation = _OPERATIONS.get(operation, operation)
        place = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": target.provider,
            **_address(target),
        }
        model = target.wire_model
        named = {**place, "gen_ai.request.model": model[:_MAX_NAME_CHARS]}
        span = self._owner.under(self._span, f"{operation} {model}", SpanKind.CLIENT, named)
        # Callers may name models that nobody has heard of; metrics must not grow with them.
        measured = {**place, "gen_ai.request.model": target.model.name if target.model.listed else _UNLISTED}
        return _Attempt(self._owner, span, measured)

    def used(self, target: Target, usage: Usage | None, model: str | None = None) -> None:
        """Say who answered and what it used."""
        self._span.set_attribute("gen_ai.provider.name", target.provider)
        if model:
            self._span.set_attribute("gen_ai.response.model", model[:_MAX_NAME_CHARS])
        if usage is not None:
            self._span.set_attribute("gen_ai.usage.input_tokens", usage.input_tokens)
            self._span.set_attribute("gen_ai.usage.output_tokens", usage.output_tokens)

    def failed(self, code: str) -> None:
        """Say that it failed; what was said first stands."""
        self._error = self._error or code

    def end(self, *, route: str | None = None, status: int | None = None) -> None:
        """End it; `route` and `status` are a request's."""
        if self._has_ended:
            return
        self._has_ended = True
        self._complete(route, status)
        if self._error is not None:
            self._span.set_attribute("error.type", self._error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def _complete(self, route: str | None, status: int | None) -> None:
        """Say what is known only at the end."""


class _Request(_Span):
    """A request of a caller."""

    def __init__(self, owner: OpenTelemetry, span: OtelSpan, method: str) -> None:
        super().__init__(owner, span)
        self._method = method

    def _complete(self, route: str | None, status: int | None) -> None:
        if route is not None:
            self._span.update_name(f"{self._method} {route}")
            self._span.set_attribute("http.route", route)
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
            if status >= _FAULT_STATUS and self._error is None:
                self._error = str(status)


class _Attempt(_Span):
    """An attempt at a target, which is also measured; `measured` are the attributes of its metrics."""

    def __init__(self, owner: OpenTelemetry, span: OtelSpan, measured: Attributes) -> None:
        super().__init__(owner, span)
        self._measured = measured
        self._usage: Usage | None = None
        self._began_s = monotonic()

    def used(self, target: Target, usage: Usage | None, model: str | None = None) -> None:
        """Say who answered and what it used; an answer that was asked for again is counted on top."""
        if self._usage is not None:
            usage = total_usage((self._usage, usage)) or self._usage
        super().used(target, usage, model)
        self._usage = usage

    def _complete(self, route: str | None, status: int | None) -> None:  # noqa: ARG002 - an attempt has neither
        owner, measured = self._owner, self._measured
        if self._usage is not None:
            owner.tokens.record(self._usage.input_tokens, {**measured, "gen_ai.token.type": "input"})
            owner.tokens.record(self._usage.output_tokens, {**measured, "gen_ai.token.type": "output"})
        if self._error is not None:
            measured = {**measured, "error.type": self._error}
        owner.durations.record(monotonic() - self._began_s, measured)


def _own_name(wanted: Mapping[str, str]) -> dict[str, str]:
    """Return a name for the service where the variables give none."""
    is_named = "OTEL_SERVICE_NAME" in wanted or "service.name=" in wanted.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {} if is_named else {"service.name": "llm-gate"}


def _address(target: Target) -> Attributes:
    parts = urlsplit(target.deployment.base_url)
    if not parts.hostname:
        return {}
    port = parts.port or _PORTS.get(parts.scheme)
    return {"server.address": parts.hostname} | ({} if port is None else {"server.port": port})


def _log_alike() -> None:
    """Let the kit's own words, such as that a collector is away, go where the gateway's go."""
    kit = logging.getLogger("opentelemetry")
    # The very list, which is filled anew when the configuration changes.
    kit.handlers = logging.getLogger(_NAME).handlers
    kit.propagate = False
