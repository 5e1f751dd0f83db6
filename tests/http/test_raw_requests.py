"""Requests as no client library writes them, over a bare socket: none gets past the door, however it is spelt."""

import json
import random
import re
import socket
from urllib.parse import urlsplit

import pytest

from llm_gate.http.guard import host_name
from support.figures import full, proved
from support.gateway import running_gateway
from support.issued import issuer_at, places
from support.office import bearer
from support.web import call

VARIANTS = full(250, 5_000)
GUARDED = (
    "/v1/models",
    "/v1/models/sandbox/chat",
    "/v1/chat/completions",
    "/v1/messages",
    "/llm-gate/v1/providers",
    "/llm-gate/v1/chat",
    "/llm-gate/docs",
    "/llm-gate/docs/assets/swagger-ui.css",
    "/llm-gate/openapi.json",
    "/llm-gate/admin/v1/keys",
    "/llm-gate/admin/v1/ledger/check",
    "/api/subscription/plans",
    "/api/subscription/usage/ann",
)
METHODS = (
    "GET",
    "GET",
    "GET",
    "HEAD",
    "POST",
    "POST",
    "OPTIONS",
    "PUT",
    "DELETE",
    "TRACE",
    "get",
    "PROPFIND",
)
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
ASK = json.dumps({"model": "sandbox/chat", "messages": [{"role": "user", "content": "Hello"}]}).encode()
_PATIENCE_S = 5.0


def spelt(rng, path):
    """Write a path in another way."""
    encoded = "".join(f"%{ord(char):02{rng.choice('xX')}}" if rng.random() < 0.2 else char for char in path)
    return rng.choice(
        (
            path,
            encoded,
            path.replace("/", "%2f"),
            path.replace("/", "//"),
            f"/{path}",
            f"/.{path}",
            f"{path}/",
            f"{path}/.",
            f"{path};x=/healthz",
            f"{path}?x=/healthz",
            f"{path}#/healthz",
            f"{path}%00",
            f"{path}%20",
            f"{path}%2f..%2fhealthz",
            f"/healthz/..{path}",
            f"/healthz%2f..{path}",
            f"/healthz/..;{path}",
            f"/llm-gate/health/../..{path}",
            path.upper(),
            path.replace("a", "%61").replace("e", "%2565"),
            f"http://localhost{path}",
            f"http://localhost@evil.example{path}",
            f"https://evil.example{path}",
            f"//localhost{path}",
            f"\\{path}",
            path.replace("/", "\\"),
            "*",
        )
    )


def named(rng, port):
    """Write Host headers, sometimes none and sometimes two."""
    return rng.choice(
        (
            ["Host: localhost"] * 1,
            [f"Host: 127.0.0.1:{port}"],
            ["Host: [::1]"],
            ["Host: LOCALHOST"],
            [],
            ["Host:"],
            ["Host: evil.example"],
            [f"Host: evil.example:{port}"],
            ["Host: evil.example", "Host: localhost"],
            ["Host: localhost", "Host: evil.example"],
            ["Host: localhost.evil.example"],
            ["Host: localhost, evil.example"],
            ["Host: localhost:80:evil.example"],
            ["Host: evil.example/localhost"],
            ["Host: localhost@evil.example"],
            ["Host: [::1].evil.example"],
            ["Host: 127.0.0.1.evil.example"],
            ["Host: 0x7f000001"],
            ["Host : localhost"],
            ["X-Forwarded-Host: localhost", "Host: evil.example"],
        )
    )


def presented(rng, key):
    """Present a key, but never where one belongs."""
    return rng.choice(
        (
            [],
            ["Authorization: Bearer"],
            ["Authorization: Bearer "],
            ["Authorization: Bearer garbage", "Authorization: Bearer"],
            ["Authorization: Bearer null", "x-api-key: undefined"],
            [f"Authorization: {key}"],
            [f"Authorization: Basic {key}"],
            [f"Authorization: Bearer {key[:-1]}"],
            [f"Authorization: Bearer {key} {key}"],
            [f"Authorization: Bearer,{key}"],
            [f"Authorization: Bearer x, Bearer {key}"],
            [f"Proxy-Authorization: Bearer {key}"],
            [f"X-Authorization: Bearer {key}"],
            [f"Cookie: key={key}; authorization=Bearer {key}"],
            [f"x-api-keys: {key}"],
            [f"x_api_key: {key}"],
            ["x-api-key:"],
            ["x-api-key: '"],
            [f"x-api-key: {key}\x00"],
            ["X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1"],
            ["X-Original-URL: /healthz", "X-Rewrite-URL: /healthz"],
            ["X-HTTP-Method-Override: GET"],
            ["client_id: demo", "X-User-Id: ann"],
        )
    )


def written(rng, port, key):
    """Write a whole request; most of it as usual, so that one oddity is not refused for another."""

    def odd(share):
        return rng.random() < share

    target = rng.choice(GUARDED)
    if odd(0.5):
        target = spelt(rng, target)
    if rng.random() < 0.1:
        target += f"{'&' if '?' in target else '?'}api_key={key}&access_token={key}"
    lines = [
        f"{rng.choice(METHODS)} {target} HTTP/1.{rng.choice('1110')}",
        *(named(rng, port) if odd(0.2) else ["Host: localhost"]),
        *presented(rng, key),
        *(
            []
            if odd(0.7)
            else rng.choice(
                (["Origin: https://evil.example"], ["Sec-Fetch-Site: cross-site"], ["anthropic-version: 1"])
            )
        ),
        "Content-Type: application/json",
        f"Content-Length: {len(ASK)}",
        *([] if odd(0.8) else rng.choice(([f"Content-Length: {len(ASK)}"], ["Transfer-Encoding: chunked"]))),
        "Connection: close",
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + ASK


def answered(url, data, place="127.0.0.1"):
    """Send bytes and return every byte that comes back."""
    parts = urlsplit(url)
    received = b""
    with socket.create_connection(
        (parts.hostname, parts.port), timeout=_PATIENCE_S, source_address=(place, 0)
    ) as connection:
        try:
            connection.sendall(data)
            while piece := connection.recv(65_536):
                received += piece
        except (ConnectionError, TimeoutError):
            pass
    return received


def statuses(received):
    """Return the status of each answer in what came back."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


@pytest.fixture(scope="module")
def locked():
    """Run a gateway that needs keys, and yield it with one that works."""
    with running_gateway() as gateway, issuer_at(gateway.folder / "data") as issuer:
        key = issuer.key("inference", "usage:read", "admin", "operator")
        while call(gateway.url, "/v1/models").status != 401:
            pass
        assert call(gateway.url, "/v1/models", headers=bearer(key)).status == 200
        yield gateway, key


@proved
def test_no_spelling_gets_past_the_door(locked):
    """Without a key in its place there is no answer but a refusal, to any spelling of any guarded path."""
    gateway, key = locked
    rng = random.Random(20_261_121)  # noqa: S311 - to be the same again
    port = urlsplit(gateway.url).port
    place = places()
    counts = {}
    for _ in range(VARIANTS):
        data = written(rng, port, key)
        found = statuses(answered(gateway.url, data, place()))
        for status in found or [0]:
            counts[status] = counts.get(status, 0) + 1
            assert status == 0 or 400 <= status < 500, (status, data)
    print(VARIANTS, "requests:", dict(sorted(counts.items())))  # noqa: T201 - shown by -rP
    assert counts[401] > VARIANTS / 20


@proved
def test_no_spelling_of_a_foreign_host_gets_in(gateway):
    """In local mode only requests to this machine's own names are answered, so that no web page can reach in."""
    rng = random.Random(7)  # noqa: S311 - to be the same again
    port = urlsplit(gateway.url).port
    let_in = 0
    for _ in range(VARIANTS):
        hosts = named(rng, port)
        target = spelt(rng, "/v1/models")
        data = "\r\n".join((f"GET {target} HTTP/1.1", *hosts, "Connection: close", "", "")).encode()
        found = statuses(answered(gateway.url, data))
        own = [line.partition(":")[2] for line in hosts if line.startswith("Host:")]
        is_own = len(own) == 1 == len(hosts) and host_name(own[0]) in LOOPBACK and "evil" not in own[0]
        assert all(is_own or 400 <= status < 500 for status in found), data
        let_in += found == [200]
    assert let_in > VARIANTS / 100


def test_one_key_opens_one_request(locked):
    """What follows on a connection, or hides in the body of another request, needs a key of its own."""
    gateway, key = locked
    ask = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
    with_key, without = f"{ask}x-api-key: {key}\r\n\r\n", f"{ask}Connection: close\r\n\r\n"
    assert statuses(answered(gateway.url, (with_key + without).encode())) == [200, 401]

    inner = f"{ask}\r\n"
    for head in (
        f"Content-Length: {len(inner)}\r\nTransfer-Encoding: chunked\r\n",
        f"Transfer-Encoding: chunked\r\nContent-Length: {len(inner)}\r\n",
        f"Content-Length: {len(inner)}\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: xchunked\r\n",
        f"Content-Length: +{len(inner)}\r\n",
        f"Content-Length: {len(inner)}\r\n",
    ):
        outer = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nx-api-key: {key}\r\n{head}\r\n"
        found = statuses(answered(gateway.url, (outer + inner + without).encode()))
        assert found, head
        assert all(400 <= status < 500 for status in found), (head, found)


def test_what_says_who_calls_is_said_once(locked):
    """Of two such headers, a proxy before us may believe the other."""
    gateway, key = locked
    for name, value in (
        ("Authorization", f"Bearer {key}"),
        ("x-api-key", key),
        ("client_id", "demo"),
        ("X-User-Id", "ann"),
        ("Host", "localhost"),
    ):
        lines = [f"{name}: {value}", f"{name.upper()}: {value}"]
        if name != "Host":
            lines.append("Host: localhost")
        if name not in {"Authorization", "x-api-key"}:
            lines.append(f"x-api-key: {key}")
        text = "\r\n".join(("GET /v1/models HTTP/1.1", *lines, "Connection: close", "", ""))
        received = answered(gateway.url, text.encode())
        assert statuses(received) == [400], (name, received)
        assert b"header_repeated" in received
