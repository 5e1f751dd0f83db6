"""An end in good order: new calls are told, those under way finish or end honestly, and all is settled."""

import http.client
import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from support.figures import full, proved
from support.gateway import NATIVE_HEADERS, running_gateway
from support.upstream import Answer, fake_upstream
from support.web import call

CHAT = "/v1/chat/completions"
ASK = {"model": "second/m", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**ASK, "stream": True}
GOOD = {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
TOML = """
    [server]
    drain_s = {drain_s}
    workers = {workers}

    [providers.second]
    dialect = "openai"
    base_url = "{url}/v1"
    auth = {{ kind = "bearer", env = "SECOND_API_KEY" }}
    [[providers.second.models]]
    name = "m"
    operations = ["chat"]
"""
SLACK_S = 3.0


def chunk(text, **more):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(body)}\n\n".encode()


def stream_of(seconds, pause_s=0.1):
    pieces = [chunk("x")] * round(seconds / pause_s)
    return Answer.events(*pieces, chunk("", finish_reason="stop"), b"data: [DONE]\n\n", pause_s=pause_s)


@contextmanager
def gateway_at(vendor, *, drain_s=10, workers=1):
    toml = TOML.format(drain_s=drain_s, workers=workers, url=vendor.url)
    with running_gateway({"SECOND_API_KEY": "second-fake-0123456789"}, toml=toml) as running:
        if workers > 1:
            until(lambda: call(running.url, "/readyz").status == 200)
        yield running


@pytest.fixture
def vendor():
    """Run a provider for one test."""
    with fake_upstream() as running:
        yield running


class Caller(threading.Thread):
    """Makes one call beside the test; `answer` is there when it has ended."""

    def __init__(self, url, path=CHAT, body=STREAM, headers=()):
        super().__init__(daemon=True)
        self.answer = None
        self._call = (url, path, body, dict(headers))
        self.start()

    def run(self):
        self.answer = call(*self._call)


def until(holds, patience_s=5.0):
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


def stop(gateway, number=signal.SIGTERM):
    gateway.process.send_signal(number)
    return time.monotonic()


def ended(gateway, since, within_s):
    gateway.process.wait(within_s + SLACK_S)
    return time.monotonic() - since


def records(gateway):
    """Return how the calls of a gateway that has ended were recorded, and how many it left open."""
    connection = sqlite3.connect(gateway.folder / "data" / "llm-gate.db")
    try:
        found = [row[0] for row in connection.execute("SELECT status FROM usage_record")]
        [(open_calls,)] = connection.execute("SELECT count(*) FROM reservation")
    finally:
        connection.close()
    return found, open_calls


def test_an_idle_gateway_ends_at_once(vendor):
    """There is nothing to wait for."""
    with gateway_at(vendor, drain_s=60) as gateway:
        assert call(gateway.url, "/readyz").status == 200
        assert ended(gateway, stop(gateway), 0) < SLACK_S


@pytest.mark.parametrize("workers", [1, 2])
def test_calls_under_way_finish(vendor, workers):
    """Probes are told at once and new calls in words, while streams and whole answers come to their ends."""
    body = json.dumps(GOOD).encode()
    vendor.will(stream_of(1.5), Answer(headers={"content-type": "application/json"}, body=body, delay_s=1.5))
    with gateway_at(vendor, workers=workers) as gateway:
        streamed = Caller(gateway.url)
        until(lambda: len(vendor.seen) == 1)
        whole = Caller(gateway.url, body=ASK)
        until(lambda: len(vendor.seen) == 2)
        since = stop(gateway)
        if workers == 1:
            until(lambda: call(gateway.url, "/readyz").status == 503, 1.0)
            refused = call(gateway.url, CHAT, ASK)
            assert (refused.status, refused.json["error"]["code"]) == (503, "shutting_down")
            assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
            assert call(gateway.url, "/healthz").headers["connection"] == "close"
        took_s = ended(gateway, since, 2.0)
        streamed.join(1)
        whole.join(1)

        assert streamed.answer.events[-1] == "[DONE]"
        assert whole.answer.status == 200
        assert took_s < 2.0 + SLACK_S
        assert records(gateway) == (["ok", "ok"], 0)
        assert not any("gateway fault" in line or "Traceback" in line for line in gateway.log)


ENDS = {
    "openai": (CHAT, STREAM, {}, b'"code":"shutting_down"'),
    "responses": (
        "/v1/responses",
        {"model": "second/m", "input": "Hi", "stream": True},
        {},
        b"response.failed",
    ),
    "anthropic": ("/v1/messages", {**STREAM, "max_tokens": 50}, {}, b'"type":"overloaded_error"'),
    "native": (
        "/llm-gate/v1/chat/stream",
        {
            "provider": {"name": "second", "model": {"name": "m"}},
            "prompt": {"messages": [{"role": "user", "content": "Hi"}]},
        },
        NATIVE_HEADERS,
        b'"details":"shutting_down"',
    ),
}


def test_what_lasts_too_long_ends_with_an_error(vendor):
    """Beyond the deadline each stream gets an error in its surface's form, a whole answer a 503; all is settled."""
    vendor.will(stream_of(20))
    with gateway_at(vendor, drain_s=0.5) as gateway:
        callers = [Caller(gateway.url, path, body, headers) for path, body, headers, _ in ENDS.values()]
        until(lambda: len(vendor.seen) == len(ENDS))
        time.sleep(0.3)
        vendor.will(Answer(delay_s=20))
        whole = Caller(gateway.url, body=ASK)
        until(lambda: len(vendor.seen) == 1)
        took_s = ended(gateway, stop(gateway), 0.5)
        for caller in (*callers, whole):
            caller.join(1)

        for caller, (_, _, _, sign) in zip(callers, ENDS.values(), strict=True):
            assert caller.answer.status == 200
            assert sign in caller.answer.body
            assert b"[DONE]" not in caller.answer.body
        assert (whole.answer.status, whole.answer.json["error"]["code"]) == (503, "shutting_down")
        assert whole.answer.headers["retry-after"] == "1"
        assert took_s < 0.5 + SLACK_S
        found, open_calls = records(gateway)
        assert (len(found), open_calls) == (len(ENDS) + 1, 0)
        assert not any("gateway fault" in line or "Traceback" in line for line in gateway.log)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_is_a_hurry(vendor, number, workers):
    """Nobody waits for the deadline any more; what is cut is told and settled all the same."""
    vendor.will(stream_of(30))
    with gateway_at(vendor, drain_s=60, workers=workers) as gateway:
        caller = Caller(gateway.url)
        until(lambda: len(vendor.seen) == 1)
        time.sleep(0.2)
        stop(gateway)
        time.sleep(0.3)
        assert gateway.process.poll() is None
        took_s = ended(gateway, stop(gateway, number), 0)
        caller.join(1)

        assert caller.answer.events[-1]["error"]["code"] == "shutting_down"
        assert took_s < SLACK_S
        assert records(gateway) == (["cut"], 0)


def test_an_interrupt_of_everybody_is_no_hurry(vendor):
    """A terminal interrupts the workers beside their supervisor: that counts once."""
    vendor.will(stream_of(1.5))
    with gateway_at(vendor, workers=2) as gateway:
        caller = Caller(gateway.url)
        until(lambda: len(vendor.seen) == 1)
        listed = subprocess.run(
            ["/usr/bin/pgrep", "-P", str(gateway.process.pid)], capture_output=True, text=True, check=True
        )
        for pid in (*map(int, listed.stdout.split()), gateway.process.pid):
            os.kill(pid, signal.SIGINT)
        gateway.process.wait(10)
        caller.join(1)

        assert caller.answer.events[-1] == "[DONE]"


def test_a_reader_who_does_not_read_holds_nobody_up(vendor):
    """The connection is cut when its time is up."""
    vendor.will(Answer.events(*[chunk("y" * 60_000)] * 400))
    with gateway_at(vendor, drain_s=0.5) as gateway:
        parts = urlsplit(gateway.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
        connection.request("POST", CHAT, json.dumps(STREAM), {"content-type": "application/json"})
        time.sleep(0.5)
        assert ended(gateway, stop(gateway), 0.5) < 0.5 + 2.0 + SLACK_S
        connection.close()
        assert records(gateway) == (["cut"], 0)


@proved
def test_many_streams_finish(vendor):
    """Not one of a hundred is cut within the deadline."""
    count = full(20, 100)
    vendor.will(stream_of(full(1, 20)))
    with gateway_at(vendor, drain_s=60) as gateway:
        callers = [Caller(gateway.url) for _ in range(count)]
        until(lambda: len(vendor.seen) == count, 20)
        stop(gateway)
        gateway.process.wait(60)
        for caller in callers:
            caller.join(5)

        assert [caller.answer.events[-1] for caller in callers] == ["[DONE]"] * count
        assert records(gateway) == (["ok"] * count, 0)
