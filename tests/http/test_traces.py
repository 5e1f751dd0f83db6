"""Traces: passed on as they come, and, where a collector is named, sent to it with what each request led to."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llm_gate.domain.tracing import NoTracer, trace_headers
from llm_gate.telemetry.traces import open_tracer
from support.gateway import running_gateway
from support.upstream import Answer
from support.web import call

CHAT = "/v1/chat/completions"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
SECRET, USER, WORDS = "second-fake-0123456789", "ann-the-user", "words of a conversation"
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
GOOD = {
    "model": "m-2026",
    "choices": [{"message": {"role": "assistant", "content": WORDS}, "finish_reason": "stop"}],
    "usage": USAGE,
}
TOML = """
    [providers.second]
    dialect = "openai"
    base_url = "{url}/v1"
    auth = {{ kind = "bearer", env = "SECOND_API_KEY" }}
    [[providers.second.models]]
    name = "m"
    operations = ["chat"]
    [[providers.second.models]]
    name = "n"
    operations = ["chat"]

    [aliases.either]
    targets = ["second/n", "second/m"]
"""


class Collector:
    """A collector that keeps what it gets."""

    def __init__(self, url):
        self.url = url
        self.bodies = []

    def spans(self):
        """Return every span that has arrived, by kind and name."""
        found = []
        for path, body in list(self.bodies):
            if path == "/v1/traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    def services(self):
        """Return the names that the senders give themselves."""
        requests = [
            ExportTraceServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/traces"
        ]
        return {attributes(each.resource)["service.name"] for one in requests for each in one.resource_spans}

    def points(self, name):
        """Return the data points of a histogram that came last."""
        for path, body in reversed(self.bodies):
            if path != "/v1/metrics":
                continue
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        if metric.name == name:
                            return list(metric.histogram.data_points)
        return []

    def until(self, look, timeout_s=8.0):
        """Wait until something has arrived, and return it."""
        deadline = time.monotonic() + timeout_s
        while not (found := look()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found, [span.name for span in self.spans()]
        return found

    def trace_of(self, trace, count):
        """Wait for the spans of a trace."""

        def whole():
            spans = [span for span in self.spans() if span.trace_id.hex() == trace]
            return spans if len(spans) >= count else None

        return self.until(whole)


def attributes(each):
    """Return the attributes of a span, a resource or a point."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in each.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            collector.bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


def telling(url):
    """Return the variables that name a collector, and have it hear at once."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
        "SECOND_API_KEY": SECRET,
    }


@pytest.fixture(scope="module")
def collector():
    """Run one collector for all tests that share a gateway."""
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def traced(collector, upstream):
    """Run a gateway that sends to it."""
    with running_gateway(telling(collector.url), toml=TOML.format(url=upstream.url)) as running:
        yield running


@pytest.fixture(scope="module")
def plain(upstream):
    """Run a gateway that makes no traces."""
    with running_gateway({"SECOND_API_KEY": SECRET}, toml=TOML.format(url=upstream.url)) as running:
        yield running


def ask(url, headers={}, model="second/m", **more):  # noqa: B006 - never changed
    body = {"model": model, "messages": [{"role": "user", "content": WORDS}], **more}
    return call(url, CHAT, body, {"X-User-Id": USER, **headers})


def fresh_trace(number):
    """Return the headers of a trace of its own, and its id."""
    trace = f"{number:032x}"
    return {"traceparent": f"00-{trace}-{PARENT}-01", "tracestate": "shop=a1"}, trace


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"traceparent": TRACEPARENT}, {"traceparent": TRACEPARENT}),
        (
            {"traceparent": TRACEPARENT, "tracestate": "shop=a1, rojo@x=b:2"},
            {"traceparent": TRACEPARENT, "tracestate": "shop=a1, rojo@x=b:2"},
        ),
        ({"traceparent": f"cc-{TRACE}-{PARENT}-01-more"}, {"traceparent": f"cc-{TRACE}-{PARENT}-01-more"}),
        ({"traceparent": TRACEPARENT, "tracestate": "no list"}, {"traceparent": TRACEPARENT}),
        ({"traceparent": TRACEPARENT, "tracestate": f"a={'x' * 600}"}, {"traceparent": TRACEPARENT}),
        ({"tracestate": "shop=a1"}, {}),
        ({"traceparent": TRACEPARENT.upper()}, {}),
        ({"traceparent": f"ff-{TRACE}-{PARENT}-01"}, {}),
        ({"traceparent": f"00-{'0' * 32}-{PARENT}-01"}, {}),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, {}),
        ({"traceparent": f"{TRACEPARENT}-more"}, {}),
        ({"traceparent": "x" * 5_000}, {}),
        ({}, {}),
    ],
)
def test_a_trace_is_passed_on_as_it_came(plain, upstream, given, sent):
    """Providers get the caller's own valid trace headers, and never an invalid one."""
    upstream.will(Answer.json(GOOD))
    assert ask(plain.url, given).status == 200
    found = upstream.only.headers

    assert {name: found[name] for name in ("traceparent", "tracestate") if name in found} == sent
    assert trace_headers(given) == sent


def test_a_stream_passes_its_trace_on(plain, upstream):
    """A streamed call sends the headers, too."""
    upstream.will(Answer.events(b"data: [DONE]\n\n"))
    ask(plain.url, {"traceparent": TRACEPARENT}, stream=True)

    assert upstream.only.headers["traceparent"] == TRACEPARENT


def test_a_request_becomes_a_trace(traced, collector, upstream):
    """Request, call and attempt hang on the caller's span, and the provider's would hang on the attempt's."""
    headers, trace = fresh_trace(0xA1)
    upstream.will(Answer.json(GOOD))
    assert ask(traced.url, headers).status == 200
    sent = upstream.only.headers
    spans = {span.kind: span for span in collector.trace_of(trace, 3)}
    request, made, attempt = (
        spans[kind] for kind in (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_CLIENT)
    )

    assert request.parent_span_id.hex() == PARENT
    assert made.parent_span_id == request.span_id
    assert attempt.parent_span_id == made.span_id
    assert sent["traceparent"] == f"00-{trace}-{attempt.span_id.hex()}-01"
    assert sent["tracestate"] == "shop=a1"
    assert (request.name, made.name, attempt.name) == (f"POST {CHAT}", "chat second/m", "chat m")
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
    }
    port = int(upstream.url.rpartition(":")[2])
    common = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "second",
        "gen_ai.response.model": "m-2026",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 7,
    }
    assert attributes(made) == common | {"gen_ai.request.model": "second/m"}
    assert attributes(attempt) == common | {
        "gen_ai.request.model": "m",
        "server.address": "127.0.0.1",
        "server.port": port,
    }
    assert collector.services() == {"llm-gate"}


def test_a_stream_is_traced_to_its_end(traced, collector, upstream):
    """The spans of a streamed call end with the stream, and know what it used."""
    headers, trace = fresh_trace(0xB2)
    chunk = b'data: {"id":"1","model":"m-2026","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    end = b'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    usage = (
        b'data: {"id":"1","choices":[],"usage":'
        b'{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}\n\n'
    )
    upstream.will(Answer.events(chunk, end, usage, b"data: [DONE]\n\n", pause_s=0.15))
    assert ask(traced.url, headers, stream=True).events[-1] == "[DONE]"
    spans = collector.trace_of(trace, 3)

    assert len(spans) == 3
    for span in spans:
        assert span.end_time_unix_nano - span.start_time_unix_nano >= 350_000_000
        if span.kind != Span.SPAN_KIND_SERVER:
            assert attributes(span)["gen_ai.usage.output_tokens"] == 7
            assert "error.type" not in attributes(span)


def test_a_stream_that_breaks_off_is_an_error(traced, collector, upstream):
    """Attempt and call say why a stream broke off."""
    headers, trace = fresh_trace(0xC3)
    chunk = b'data: {"id":"1","model":"m-2026","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    upstream.will(Answer.events(chunk, cut=True))
    ask(traced.url, headers, stream=True)
    spans = [span for span in collector.trace_of(trace, 3) if span.kind != Span.SPAN_KIND_SERVER]

    assert {attributes(span).get("error.type") for span in spans} == {"provider_unavailable"}


def test_each_attempt_is_a_span(traced, collector, upstream):
    """A target that fails and the one that answers after it are two spans under one call."""
    headers, trace = fresh_trace(0xD4)
    upstream.will(Answer.json({"error": {"message": "slow down"}}, 429), Answer.json(GOOD))
    assert ask(traced.url, headers, model="either").status == 200
    spans = collector.trace_of(trace, 4)
    attempts = sorted(
        (span for span in spans if span.kind == Span.SPAN_KIND_CLIENT), key=lambda s: s.start_time_unix_nano
    )
    sent = [seen.headers["traceparent"].split("-")[2] for seen in upstream.seen]

    assert [attributes(span).get("error.type") for span in attempts] == ["rate_limit_exceeded", None]
    assert [span.span_id.hex() for span in attempts] == sent
    assert len({span.parent_span_id for span in attempts}) == 1


def test_what_fails_is_marked(traced, collector, upstream):
    """A call that nobody answers, and the request it belongs to, are errors."""
    headers, trace = fresh_trace(0xE5)
    upstream.will(Answer.json({"error": {"message": "broken"}}, 500))
    status = ask(traced.url, headers).status
    spans = {span.kind: span for span in collector.trace_of(trace, 3)}

    assert status == 503
    assert attributes(spans[Span.SPAN_KIND_SERVER])["error.type"] == "503"
    assert attributes(spans[Span.SPAN_KIND_INTERNAL])["error.type"] == "provider_unavailable"
    assert attributes(spans[Span.SPAN_KIND_CLIENT])["error.type"] == "provider_unavailable"


def test_attempts_are_measured(traced, collector, upstream):
    """The collector gets durations and tokens by operation, provider and model; made-up names are not told apart."""
    upstream.will(Answer.json(GOOD))
    assert ask(traced.url).status == 200
    assert ask(traced.url, model="second/made-up").status == 200

    def tokens():
        points = [(attributes(point), point.sum) for point in collector.points("gen_ai.client.token.usage")]
        kinds = {(each["gen_ai.request.model"], each["gen_ai.token.type"]) for each, _ in points}
        wanted = {(model, kind) for model in ("m", "unlisted") for kind in ("input", "output")}
        return points if wanted <= kinds else None

    assert all(total > 0 for _, total in collector.until(tokens))
    durations = collector.until(lambda: collector.points("gen_ai.client.operation.duration"))
    named = [attributes(point) for point in durations]
    assert {each["gen_ai.provider.name"] for each in named} == {"second"}
    assert "made-up" not in repr(named)


def test_nothing_private_is_sent(traced, collector, upstream):
    """Neither what was said, nor who said it, nor any key goes to the collector."""
    headers, trace = fresh_trace(0xF6)
    upstream.will(Answer.json(GOOD))
    ask(traced.url, headers)
    collector.trace_of(trace, 3)
    everything = b"".join(body for _, body in collector.bodies)

    for private in (SECRET, USER, WORDS):
        assert private.encode() not in everything


def test_the_last_traces_are_sent_at_the_end(upstream):
    """What was not sent yet goes out before the process ends."""
    with collecting() as collector:
        environment = telling(collector.url) | {"OTEL_BSP_SCHEDULE_DELAY": "60000"}
        with running_gateway(environment, toml=TOML.format(url=upstream.url)) as running:
            upstream.will(Answer.json(GOOD))
            assert ask(running.url).status == 200
            assert collector.spans() == []
        assert {span.name for span in collector.spans()} >= {"chat second/m", "chat m"}


def test_a_collector_that_is_away_costs_no_call(upstream):
    """Calls go on, the log says so in its own form, and the end does not wait long."""
    environment = telling("http://127.0.0.1:9") | {"LLM_GATE_LOG_FORMAT": "json"}
    with running_gateway(environment, toml=TOML.format(url=upstream.url)) as running:
        upstream.will(Answer.json(GOOD))
        for _ in range(5):
            assert ask(running.url).status == 200
        assert running.logged('"logger":"opentelemetry').startswith("{")
        began_s = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(10)
        assert time.monotonic() - began_s < 8


def test_without_the_extra_one_line_says_so(upstream, tmp_path):
    """Where a collector is named and the extra is missing, the gateway warns once, works, and passes traces on."""
    hidden = tmp_path / "opentelemetry"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ImportError('hidden')")
    environment = telling("http://127.0.0.1:9") | {"PYTHONPATH": str(tmp_path)}
    with running_gateway(environment, toml=TOML.format(url=upstream.url)) as running:
        running.logged("llm-gate[otel]")
        upstream.will(Answer.json(GOOD))
        assert ask(running.url, {"traceparent": TRACEPARENT}).status == 200
        assert upstream.only.headers["traceparent"] == TRACEPARENT
        assert sum("llm-gate[otel]" in line for line in running.log) == 1


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "shop"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
        },
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_who_names_no_collector_gets_no_traces(environment):
    """Nothing is made where nothing could be sent, or where it is switched off."""
    assert isinstance(open_tracer(environment), NoTracer)
