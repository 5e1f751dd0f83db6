"""The fake providers fail as they are told, seen with nothing but sockets: what the proofs stand on."""

import http.client
import json
import socket
import ssl
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest

from support.certificates import unknown_certificate
from support.faulty import CERTIFICATE, running_faulty
from support.wire import text_of

TIMEOUT_S = 10
SHORT_S = 0.3
DIALECTS = ("openai", "anthropic", "gemini")
ENDS = {"openai": b"[DONE]", "anthropic": b"message_stop", "gemini": b'"finishReason"'}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    other = unknown_certificate(tmp_path_factory.mktemp("certificate"))
    with running_faulty("first", "second", other_certificate=other) as running:
        yield running


@pytest.fixture(autouse=True)
def healed(faulty):
    yield
    faulty.heal()
    faulty.forget()


def request(dialect, text="Hello", *, stream=False, model="m"):
    if dialect == "gemini":
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/v1beta/models/{model}:{method}", {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    path = "/v1/chat/completions" if dialect == "openai" else "/v1/messages"
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}
    return path, body | (
        {"stream_options": {"include_usage": True}} if dialect == "openai" and stream else {}
    )


def connect(url):
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)


def ask(faulty, dialect="openai", text="Hello", *, stream=False, model="m"):
    """Return status, headers and body, read to the end."""
    connection = connect(faulty.url("first"))
    path, body = request(dialect, text, stream=stream, model=model)
    try:
        connection.request("POST", path, json.dumps(body))
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def raw(faulty, *, stream=False, seconds=SHORT_S, text="Hello"):
    """Return what comes within so many seconds, and whether the connection is at its end by then."""
    parts = urlsplit(faulty.url("first"))
    path, body = request("openai", text, stream=stream)
    data, received = json.dumps(body).encode(), b""
    with socket.create_connection((parts.hostname, parts.port), timeout=seconds) as link:
        link.sendall(f"POST {path} HTTP/1.1\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                piece = link.recv(65_536)
            except TimeoutError:
                return received, False
            if not piece:
                return received, True
            received += piece
    return received, False


@pytest.mark.parametrize("dialect", DIALECTS)
def test_good_answers_are_whole(faulty, dialect):
    """In each dialect, whole and streamed, with the usage that is asked for."""
    faulty.will("first", words=3)
    status, _, body = ask(faulty, dialect)
    assert status == 200
    assert "wörd wörd wörd" in json.loads(body).__repr__()
    status, headers, body = ask(faulty, dialect, stream=True)
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert body.decode().count("wörd") == 3
    assert ENDS[dialect] in body
    assert [each.ended for each in faulty.attempts()] == ["complete"] * 2
    assert [each.pieces for each in faulty.attempts()] == [0, 3]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("usage", ["missing", "null", "negative", "absurd", "twice"])
def test_usage_is_told_wrongly(faulty, dialect, usage):
    """U13: the rest of the answer is as ever."""
    faulty.will("first", usage=usage)
    told = {
        "missing": b'"usage',
        "null": b"null",
        "negative": b"-5",
        "absurd": b"1000000000000000",
        "twice": b"7",
    }
    for stream in (False, True):
        _, _, body = ask(faulty, dialect, stream=stream)
        assert (told[usage] in body) == (usage != "missing")


def test_wishes_for_patience_come_in_every_form(faulty):
    """U1: as a number, as a date, in milliseconds, in Google's body, as nonsense; for a share of the requests."""
    for form, name in (("seconds", "retry-after"), ("ms", "retry-after-ms"), ("hours", "retry-after")):
        faulty.will("first", fault="limited", forms=[form], wish_s=2)
        status, headers, _ = ask(faulty, model=form)
        assert (status, headers[name]) == (429, {"seconds": "2", "ms": "2000", "hours": "18000"}[form])
    faulty.will("first", fault="limited", forms=["date"], wish_s=2, status=503)
    status, headers, _ = ask(faulty, model="date")
    gap = parsedate_to_datetime(headers["retry-after"]) - parsedate_to_datetime(headers["date"])
    assert (status, 2 <= gap.total_seconds() <= 4) == (503, True)
    faulty.will("first", fault="limited", forms=["google"], wish_s=0.5)
    assert b'"retryDelay": "0.5s"' in ask(faulty, "gemini", model="google")[2]
    faulty.will("first", fault="limited", forms=["garbage"])
    assert not ask(faulty, model="garbage")[1]["retry-after"].isdigit()
    faulty.will("first", fault="limited", share=0.25)
    assert [ask(faulty, model=f"s{n}")[0] for n in range(8)].count(429) == 2


def test_patience_is_watched(faulty):
    """Whoever comes back too early is counted, by model; shortly after the wish it may have been on its way."""
    text = text_of("a", fault="limited", forms=["ms"], wish_s=1)
    ask(faulty, text=text)
    ask(faulty)
    ask(faulty, model="other")
    time.sleep(0.4)
    ask(faulty)
    time.sleep(0.7)
    ask(faulty)
    counts = faulty.counts()["first"]
    assert {name: counts[name] for name in ("asked", "wishes", "crossed", "undercut")} == {
        "asked": 5,
        "wishes": 1,
        "crossed": 1,
        "undercut": 1,
    }


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_server_errors(faulty, dialect, status):
    """U2: with a body as the vendor has it."""
    faulty.will("first", fault="status", status=status)
    found, _, body = ask(faulty, dialect)
    assert found == status
    assert "error" in json.loads(body)


def test_connections_are_refused_and_kept_ones_torn_down(faulty):
    """U3: until it is healed."""
    kept = connect(faulty.url("first"))
    kept.request("POST", *request_of_bytes())
    kept.getresponse().read()
    faulty.will("first", fault="refuse")
    with pytest.raises(ConnectionRefusedError):
        ask(faulty)
    with pytest.raises(ConnectionResetError):
        kept.sock.recv(1)
    kept.close()
    faulty.heal("first")
    assert ask(faulty)[0] == 200


def request_of_bytes():
    path, body = request("openai")
    return path, json.dumps(body)


def shake_hands(faulty, seconds=TIMEOUT_S):
    parts = urlsplit(faulty.tls_url("first"))
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    with socket.create_connection((parts.hostname, parts.port), timeout=seconds) as link:
        context.wrap_socket(link, server_hostname=parts.hostname).close()


def test_tls_fails(faulty):
    """U3: by garbage, by silence, by a certificate nobody knows; and works else."""
    shake_hands(faulty)
    faulty.will("first", fault="tls_garbage")
    with pytest.raises(ssl.SSLError):
        shake_hands(faulty)
    faulty.will("first", fault="tls_untrusted")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(faulty)
    faulty.will("first", fault="tls_hang")
    with pytest.raises(TimeoutError):
        shake_hands(faulty, SHORT_S)
    faulty.heal("first")
    shake_hands(faulty)


def test_silences(faulty):
    """U4 to U7: no head; a head and no more; a few pieces; signs of life; one byte after the other."""
    for stream in (False, True):
        faulty.will("first", fault="no_headers")
        assert raw(faulty, stream=stream) == (b"", False)
    faulty.will("first", fault="stall")
    received, is_over = raw(faulty, stream=True)
    assert (received.endswith(b"\r\n\r\n"), is_over) == (True, False)
    assert 0 < len(raw(faulty)[0].partition(b"\r\n\r\n")[2]) < 200
    faulty.will("first", fault="stall", after=2)
    received, is_over = raw(faulty, stream=True)
    assert (received.count(b"data: "), is_over) == (2, False)
    faulty.will("first", fault="comments", after=1)
    received, is_over = raw(faulty, stream=True)
    assert (received.count(b"data: "), received.count(b": still here") > 2, is_over) == (1, True, False)
    assert raw(faulty)[0].endswith(b"   ")
    faulty.will("first", fault="trickle", pause_s=0.05)
    for stream in (False, True):
        received, is_over = raw(faulty, stream=stream, seconds=0.5)
        assert (3 < len(received.partition(b"\r\n\r\n")[2]) < 100, is_over) == (True, False)


def test_answers_break_off(faulty):
    """U8: with RST, with a closed connection, and cleanly but for the last event."""
    faulty.will("first", fault="rst", after=2)
    with pytest.raises(ConnectionResetError):
        raw(faulty, stream=True, seconds=TIMEOUT_S)
    with pytest.raises(ConnectionResetError):
        raw(faulty, seconds=TIMEOUT_S)
    for fault, chunks_end in (("cut", False), ("fin", True)):
        faulty.will("first", fault=fault, after=2)
        received, is_over = raw(faulty, stream=True, seconds=1)
        assert received.count(b"data: ") == 2
        assert received.endswith(b"0\r\n\r\n") == chunks_end
        assert is_over != chunks_end
        with pytest.raises(http.client.IncompleteRead):
            ask(faulty)
    assert {each.ended for each in faulty.attempts()} == {"cut"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_errors_and_nonsense_in_a_stream(faulty, dialect):
    """U9 and U10: an error as an event, broken JSON, an event without end, line ends and cuts of every kind."""
    for fault, sign in (
        ("error_event", b'"error"'),
        ("malformed", b'{"index"\n'),
        ("giant", b"y" * 2_000_000),
    ):
        faulty.will("first", fault=fault, after=1)
        _, _, body = ask(faulty, dialect, stream=True)
        assert sign in body
        assert ENDS[dialect] not in body
    faulty.will("first", crlf=True, split=True)
    _, _, body = ask(faulty, dialect, stream=True)
    assert ENDS[dialect] in body
    assert b"}\r\n\r\n" in body
    with suppress(ValueError):
        json.loads(ask(faulty, dialect, text=text_of("a", fault="malformed"))[2])
        raise AssertionError("it is sound JSON")


def test_what_is_no_answer(faulty):
    """U11 and U12: other types, nothing, too much, too little; U15: another address, that counts who comes."""
    for fault, body, kind in (
        ("html", b"<html>", "text/html"),
        ("empty", b"", "application/json"),
        ("null", b"null", "application/json"),
        ("wrong_type", b"it works", "text/plain"),
    ):
        faulty.will("first", fault=fault)
        status, headers, got = ask(faulty)
        assert (status, headers["content-type"], got[: len(body)]) == (200, kind, body)
    faulty.will("first", fault="false_length")
    with pytest.raises(http.client.IncompleteRead):
        ask(faulty)
    faulty.will("first", fault="bomb")
    assert len(ask(faulty)[2]) < 2**20
    faulty.will("first", fault="endless")
    received = 0
    connection = connect(faulty.url("first"))
    connection.request("POST", *request_of_bytes())
    answer = connection.getresponse()
    while received < 5 * 2**20:
        received += len(answer.read(2**20))
    connection.close()
    faulty.will("first", fault="redirect")
    status, headers, _ = ask(faulty)
    assert (status, headers["location"].startswith(faulty.trap_url)) == (307, True)
    assert faulty.counts()["trapped"] == 0
    with suppress(OSError):
        socket.create_connection(urlsplit(faulty.trap_url).netloc.split(":")).close()
    deadline = time.monotonic() + TIMEOUT_S
    while not faulty.counts()["trapped"]:
        assert time.monotonic() < deadline


def test_who_leaves_is_noticed_at_once(faulty):
    """In every wait, to the millisecond; U14: an answer that comes when nobody waits is never sent."""
    for number, orders in enumerate(
        ({"fault": "no_headers"}, {"fault": "stall"}, {"delay_s": 30}, {"pause_s": 30})
    ):
        text = text_of(f"left-{number}", **orders)
        raw(faulty, stream=True, text=text, seconds=0.1)
        left_s = time.monotonic()
        deadline = left_s + TIMEOUT_S
        while (last := faulty.attempts()[-1]).ended is None:
            assert time.monotonic() < deadline
        assert (last.call, last.ended) == (f"left-{number}", "gone")
        assert left_s - 0.2 <= last.ended_s <= left_s + 1


def test_orders_can_be_for_one_provider(faulty):
    """What a text orders is for the provider it names, and overrides what the provider was told."""
    faulty.will("first", fault="status", status=503)
    assert ask(faulty, text=text_of("a", fault="status", status=500))[0] == 500
    assert ask(faulty, text=text_of("b", fault="status", status=500, only="second"))[0] == 503
