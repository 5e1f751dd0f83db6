"""The instruments of the proofs are worth something only if they do what they say."""

import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress

import psycopg
import pytest
import redis

from support import servers
from support.faultproxy import fault_proxy
from support.oracle import marked, running_oracle
from support.web import call

CALL_TIMEOUT_S = 10


def ask(oracle, text, *, provider="first", stream=False, max_tokens=20):
    body = {"model": "m", "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}]}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return call(oracle.url, f"/{provider}/v1/chat/completions", body)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    with running_oracle(tmp_path_factory.mktemp("oracle")) as running:
        yield running


def test_the_book_says_what_the_answers_say(oracle):
    """Whole and streamed answers carry the counts that are billed; the same call counts the same again."""
    whole = ask(oracle, marked("agree"))
    streamed = ask(oracle, marked("agree"), stream=True)
    usage = streamed.events[-2]["usage"]
    first, second = (each for each in oracle.attempts() if each.call == "agree")

    assert whole.json["usage"] == usage
    assert (first.input_tokens, first.output_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert 1 <= usage["completion_tokens"] <= 20
    assert len(streamed.events) == usage["completion_tokens"] + 3
    assert streamed.events[-1] == "[DONE]"
    assert second.output_tokens == first.output_tokens
    assert (first.is_stream, second.is_stream, first.is_billed, second.is_billed) == (False, True, True, True)


def test_ordered_faults_are_booked(oracle):
    """A refusal bills nothing, a cut stream what was sent, and a fault for another provider is none."""
    assert ask(oracle, marked("refused", fault="500")).status == 500
    assert ask(oracle, marked("spared", fault="500", only="second")).status == 200
    with pytest.raises(Exception, match="IncompleteRead"):
        ask(oracle, marked("cut", fault="cut"), stream=True)
    # The reader may see the cut before it is booked.
    ends_s = time.monotonic() + CALL_TIMEOUT_S
    found = {each.call: each for each in oracle.attempts()}
    while found["cut"].ended is None and time.monotonic() < ends_s:
        time.sleep(0.01)
        found = {each.call: each for each in oracle.attempts()}

    assert (found["refused"].ended, found["refused"].output_tokens) == ("refused", 0)
    assert found["spared"].is_billed
    assert found["cut"].ended == "cut"
    assert found["cut"].output_tokens >= 1


def test_a_caller_who_leaves_is_noticed(oracle):
    """A stream bills the pieces it could send; a whole answer is billed though nobody reads it."""
    for name, stream in (("left", True), ("left whole", False)):
        text = marked(name, pause_s=0.05, delay_s=0 if stream else 0.3)
        body = {"max_tokens": 4000, "stream": stream, "messages": [{"role": "user", "content": text}]}
        data = json.dumps(body).encode()
        host, _, port = oracle.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=CALL_TIMEOUT_S) as caller:
            head = f"POST /first/v1/chat/completions HTTP/1.1\r\ncontent-length: {len(data)}\r\n\r\n"
            caller.sendall(head.encode() + data)
            if stream:
                assert caller.recv(4096)
    left, whole = _ended(oracle, "left"), _ended(oracle, "left whole")

    assert (left.ended, left.is_billed) == ("gone", True)
    assert left.output_tokens < 4000
    assert (whole.ended, whole.is_billed) == ("gone", True)


def _ended(oracle, name):
    return next(each for each in oracle.ended_attempts() if each.call == name)


@contextmanager
def echoing():
    """Run a server that sends everything back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection, suppress(ConnectionError):
            while data := connection.recv(1000):
                connection.sendall(data)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_the_relay_misbehaves_as_told():
    """Passes on, pauses without losing anything, cuts, resets, swallows, refuses, and listens again."""
    with echoing() as port, fault_proxy("127.0.0.1", port) as proxy:

        def connect():
            return socket.create_connection(("127.0.0.1", proxy.port), timeout=CALL_TIMEOUT_S)

        with connect() as caller:
            caller.sendall(b"hello")
            assert caller.recv(100) == b"hello"
            proxy.pause()
            caller.sendall(b"later")
            caller.settimeout(0.1)
            with pytest.raises(TimeoutError):
                caller.recv(100)
            proxy.resume()
            caller.settimeout(CALL_TIMEOUT_S)
            assert caller.recv(100) == b"later"
            proxy.cut_after_bytes = 3
            caller.sendall(b"abcdef")
            assert caller.recv(100) == b"abc"
            assert caller.recv(100) == b""
            proxy.cut_after_bytes = None
        with connect() as caller:
            caller.sendall(b"x")
            assert caller.recv(1) == b"x"
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                caller.recv(1)
        proxy.is_blackhole = True
        with connect() as caller:
            caller.sendall(b"x")
            caller.settimeout(0.1)
            with pytest.raises(TimeoutError):
                caller.recv(1)
        proxy.is_blackhole = False
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect()
        proxy.listen()
        with connect() as caller:
            caller.sendall(b"back")
            assert caller.recv(100) == b"back"


def test_a_private_postgresql_can_be_crashed_frozen_and_started_again():
    """What was committed is there afterwards."""
    with servers.private_postgresql() as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE t AS SELECT 7 AS n")
            server.freeze()
            server.thaw()
            assert connection.execute("SELECT n FROM t").fetchone() == (7,)
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url, connect_timeout=2)
        server.start()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT n FROM t").fetchone() == (7,)
        folder = server.folder
    assert not folder.exists()


def test_a_private_redis_can_be_killed_and_comes_back_empty():
    """On its own port."""
    with servers.private_redis() as server, redis.Redis.from_url(server.url) as client:
        client.set("a", "b")
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("a")
        server.restart()
        assert client.get("a") is None


def test_where_no_server_answers_one_is_started_for_all(monkeypatch):
    """The same for every test of the run, and gone at its end."""
    monkeypatch.setenv(servers.RUN_VARIABLE, f"rig-{os.getpid()}")
    monkeypatch.delenv(servers.REDIS_VARIABLE, raising=False)
    monkeypatch.setattr(servers, "_USUAL_REDIS", "redis://127.0.0.1:1/0")
    first = servers.redis_url()
    with redis.Redis.from_url(first) as client:
        assert servers.redis_url() == first
        assert client.ping()
        servers.stop_shared_servers()
        with pytest.raises(redis.ConnectionError):
            client.ping()


def test_a_missing_program_is_said_clearly(monkeypatch):
    """With what can be done about it."""
    monkeypatch.setattr(servers, "_find", lambda name: None)
    monkeypatch.setattr(servers.shutil, "which", lambda name: None)
    with pytest.raises(servers.NoServer, match=servers.DATABASE_VARIABLE), servers.private_postgresql():
        pass
