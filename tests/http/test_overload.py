"""Beyond the cap calls are turned away at once, and those inside it go on as if nobody else had come."""

import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from support.figures import PROVES, full, proved
from support.gateway import NATIVE_HEADERS, running_gateway
from support.upstream import Answer, fake_upstream
from support.web import call

CHAT = "/v1/chat/completions"
NATIVE = "/llm-gate/v1/chat"
MESSAGES = "/v1/messages"
CAP = 8
UPSTREAM_S = 0.1
ASK = {"model": "second/m", "messages": [{"role": "user", "content": "Hi"}]}
GOOD = {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
TOML = """
    [server]
    max_in_flight = {cap}

    [providers.second]
    dialect = "openai"
    base_url = "{url}/v1"
    auth = {{ kind = "bearer", env = "SECOND_API_KEY" }}
    [[providers.second.models]]
    name = "m"
    operations = ["chat"]
"""


@pytest.fixture(scope="module")
def vendor():
    """Run a provider of its own, since it is told how slow to be."""
    with fake_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def capped(vendor):
    """Run a gateway that takes a few calls at a time."""
    with running_gateway(
        {"SECOND_API_KEY": "second-fake-0123456789"}, toml=TOML.format(cap=CAP, url=vendor.url)
    ) as running:
        yield running


@pytest.fixture
def full_house(capped, vendor):
    """Fill the cap with calls that take a while, and wait for them at the end."""
    vendor.will(Answer.json(GOOD, date="x"), *[slow(1.5)] * CAP)
    assert call(capped.url, CHAT, ASK).status == 200
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(call(capped.url, CHAT, ASK))) for _ in range(CAP)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 5
    while len(vendor.seen) < CAP + 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    yield answers
    for thread in threads:
        thread.join(10)
    assert [answer.status for answer in answers] == [200] * CAP


def slow(delay_s):
    body = json.dumps(GOOD).encode()
    return Answer(headers={"content-type": "application/json"}, body=body, delay_s=delay_s)


@dataclass
class Tally:
    """What became of many calls: how many were answered, and how long each refusal took, in seconds."""

    answered: int = 0
    refused_s: list = field(default_factory=list)
    other: list = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, status, headers, seconds):
        with self.lock:
            if status == 200:
                self.answered += 1
            elif status == 503 and headers.get("retry-after") == "1":
                self.refused_s.append(seconds)
            else:
                self.other.append((status, headers))


def load(url, callers, for_s, *, pause_s=0.0):
    """Call from several places for a while; one who is turned away comes back after a pause."""
    parts = urlsplit(url)
    tally = Tally()
    body = json.dumps(ASK)
    ends = time.monotonic() + for_s

    def one():
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
        while time.monotonic() < ends:
            started = time.monotonic()
            connection.request("POST", CHAT, body, {"content-type": "application/json"})
            reply = connection.getresponse()
            reply.read()
            tally.note(
                reply.status, {n.lower(): v for n, v in reply.getheaders()}, time.monotonic() - started
            )
            if reply.status != 200:
                time.sleep(pause_s)
        connection.close()

    threads = [threading.Thread(target=one) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(for_s + 20)
    return tally


@proved
def test_three_times_the_load_leaves_the_goodput(capped, vendor):
    """Whoever is let in is answered; the others are told at once when to come back."""
    vendor.will(slow(UPSTREAM_S))
    for_s = full(1, 20)
    alone = load(capped.url, CAP, for_s)
    # Each of the others asks again and again: together they are twice what the cap can take.
    crowded = load(capped.url, 3 * CAP, for_s, pause_s=UPSTREAM_S)

    assert not alone.other
    assert not crowded.other
    assert not alone.refused_s
    assert crowded.refused_s
    assert crowded.answered > 0
    late = sorted(crowded.refused_s)[int(len(crowded.refused_s) * 0.99)]
    assert late < (0.05 if PROVES else 1.0)
    if PROVES:
        assert crowded.answered >= 0.9 * alone.answered


def test_a_refusal_is_in_its_surfaces_form(capped, full_house):
    """Every surface says in its own words that there is no room, and when to come back."""
    openai = call(capped.url, CHAT, ASK)
    streamed = call(capped.url, CHAT, {**ASK, "stream": True})
    anthropic = call(capped.url, MESSAGES, {**ASK, "max_tokens": 5})
    native = call(
        capped.url,
        NATIVE,
        {"prompt": {"messages": [{"role": "user", "content": "Hi"}]}},
        NATIVE_HEADERS,
    )

    for answer in (openai, streamed, anthropic, native):
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "x-should-retry" not in answer.headers
    assert (openai.json["error"]["type"], openai.json["error"]["code"]) == ("server_error", "overloaded")
    assert streamed.json["error"]["code"] == "overloaded"
    assert anthropic.json["error"]["type"] == "overloaded_error"
    assert native.json["errorDetails"][0]["details"] == "overloaded"
    line = json.loads(capped.logged('"error_code":"overloaded"'))
    assert line["status"] == 503
    assert not any("gateway fault" in line for line in capped.log)


def test_what_costs_nothing_is_never_turned_away(capped, full_house):
    """Probes, lists and the status answer while there is no room for calls."""
    for path in ("/healthz", "/readyz", "/v1/models", "/llm/status", "/llm-gate/v1/status"):
        assert call(capped.url, path).status == 200


def test_the_connection_outlives_a_refusal(capped, full_house):
    """The body of what was turned away is dropped, however large, and the connection serves on."""
    parts = urlsplit(capped.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    large = json.dumps({**ASK, "messages": [{"role": "user", "content": "x" * 3_000_000}]})
    for body in (json.dumps(ASK), large, json.dumps(ASK)):
        connection.request("POST", CHAT, body, {"content-type": "application/json"})
        reply = connection.getresponse()
        assert (reply.status, reply.getheader("connection")) == (503, None)
        reply.read()
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_body_without_a_length_ends_the_connection(capped, full_house):
    """What may never end is not waited for."""
    parts = urlsplit(capped.url)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
    body = 'transfer-encoding: chunked\r\n\r\n9\r\n{"model":\r\n'
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        # In one go: whoever writes on after the answer may find the connection closed.
        connection.sendall((head + body).encode())
        reply = http.client.HTTPResponse(connection)
        reply.begin()

        assert (reply.status, reply.getheader("connection")) == (503, "close")


def test_the_cap_is_live(capped, vendor):
    """A cap that is taken away lets everybody in, without a restart."""
    file = capped.folder / "llm-gate.toml"
    before = file.read_text()
    file.write_text(TOML.format(cap=1, url=vendor.url))
    try:
        capped.logged("the configuration was taken over")
        vendor.will(slow(0.5))
        first = threading.Thread(target=call, args=(capped.url, CHAT, ASK))
        first.start()
        deadline = time.monotonic() + 5
        while not vendor.seen and time.monotonic() < deadline:
            time.sleep(0.01)
        assert call(capped.url, CHAT, ASK).status == 503
        first.join(5)
        assert call(capped.url, CHAT, ASK).status == 200
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-llm-gate-timeout-ms", "0"),
        ("x-llm-gate-timeout-ms", "1.5"),
        ("x-llm-gate-timeout-ms", "-1"),
        ("x-llm-gate-timeout-ms", "604800001"),
        ("x-llm-gate-timeout-ms", "9" * 5000),
        ("x-llm-gate-timeout-ms", ""),
        ("x-llm-gate-fallbacks", ""),
        ("x-llm-gate-fallbacks", "a/b,,c/d"),
        ("x-llm-gate-fallbacks", ",".join("abcdefghi")),
        ("x-llm-gate-sticky", ""),
        ("x-llm-gate-sticky", "x" * 129),
    ],
)
def test_a_malformed_header_of_a_call_is_told(capped, header, value):
    """Each surface names the header."""
    openai = call(capped.url, CHAT, ASK, {header: value})
    anthropic = call(capped.url, MESSAGES, {**ASK, "max_tokens": 5}, {header: value})

    assert (openai.status, openai.json["error"]["param"]) == (400, header)
    assert anthropic.status == 400
    assert header in anthropic.json["error"]["message"]
