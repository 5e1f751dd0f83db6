"""Streams are uniform and honest: first piece at once, no false end, both sides let go of each other."""

import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

from support.gateway import NATIVE_HEADERS
from support.upstream import Answer
from support.web import call

CHAT = "/v1/chat/completions"
SLACK_S = 1.0


def chunk(text="x", **more):
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
    return f"data: {json.dumps({**body, 'choices': [choice]})}\n\n".encode()


STOP = chunk("", finish_reason="stop")
USAGE = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":1000,"completion_tokens":2000,"total_tokens":3000}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def ask(model="second/m", **more):
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "stream": True, **more}


class OpenStream:
    """A raw connection on which a stream is being read, as slowly as one likes."""

    def __init__(self, url, body, path=CHAT, headers=()):
        parts = urlsplit(url)
        self.connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
        data = json.dumps(body).encode()
        head = [
            f"POST {path} HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            *(f"{name}: {value}" for name, value in headers),
        ]
        self.connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + data)
        self.received = b""

    def read_until(self, needle):
        while needle not in self.received:
            piece = self.connection.recv(65536)
            assert piece, self.received
            self.received += piece

    def close(self):
        self.connection.close()


def test_the_first_piece_is_passed_on_at_once(fronted, upstream):
    """The caller has the first piece long before the provider has sent the second."""
    upstream.will(Answer.events(chunk("first"), chunk("second"), DONE, pause_s=1.4))
    stream = OpenStream(fronted.url, ask())
    started = time.monotonic()
    stream.read_until(b"first")
    elapsed = time.monotonic() - started
    stream.read_until(b"[DONE]")
    stream.close()

    assert elapsed < 1.2


def test_usage_is_asked_for_and_priced(fronted, upstream):
    """The provider is always asked for usage; the caller gets it with the cost, if it asked."""
    upstream.will(Answer.events(chunk("a"), STOP, USAGE, DONE))
    headers = {"X-Request-Id": "req-priced"}
    answer = call(fronted.url, CHAT, ask(stream_options={"include_usage": True}), headers)

    assert upstream.only.json["stream_options"] == {"include_usage": True}
    assert answer.events[-2]["usage"]["cost"] == 0.00135
    assert answer.events[-1] == "[DONE]"
    line = json.loads(fronted.logged("req-priced"))
    assert line["cost_usd"] == "0.00135"


def test_usage_is_kept_from_who_did_not_ask(fronted, upstream):
    """Without include_usage no chunk without choices reaches the caller."""
    upstream.will(Answer.events(chunk("a"), STOP, USAGE, DONE))
    answer = call(fronted.url, CHAT, ask())

    assert all(event == "[DONE]" or event["choices"] for event in answer.events)
    assert b'"usage":{' not in answer.body


@pytest.mark.parametrize("cut", [True, False])
def test_a_stream_without_its_end_is_an_error(fronted, upstream, cut):
    """Whether the connection broke or closed in order: without [DONE] the answer ends with an error."""
    upstream.will(Answer.events(chunk("a"), STOP, cut=cut))
    answer = call(fronted.url, CHAT, ask())

    assert "error" in answer.events[-1]
    assert b"[DONE]" not in answer.body


def test_a_stream_that_fails_before_its_first_event_keeps_its_status(fronted, upstream):
    """Nothing has been sent yet, so the error is a proper 502."""
    upstream.will(Answer.events(b": hello\n\n"))
    answer = call(fronted.url, CHAT, ask())

    assert answer.status == 502
    assert answer.json["error"]["code"] == "bad_provider_response"


@pytest.mark.parametrize(
    "failure",
    [
        b'data: {"error":{"message":"overloaded","type":"server_error","code":503}}\n\n',
        b'{"error":{"message":"overloaded","type":"server_error","code":503}}',
        b'event: error\ndata: {"error":{"message":"overloaded"}}\n\n',
    ],
)
def test_an_error_inside_a_stream_is_an_error(fronted, upstream, failure):
    """An error event, or a bare JSON object in its place, ends the answer as an error."""
    upstream.will(Answer.events(chunk("a"), failure))
    answer = call(fronted.url, CHAT, ask())

    assert "overloaded" in answer.events[-1]["error"]["message"]
    assert b"[DONE]" not in answer.body


def test_a_caller_who_leaves_stops_the_provider(fronted, upstream):
    """Within half a second of the caller's leaving the provider's connection is closed."""
    upstream.will(Answer.events(*[chunk("x" * 200)] * 200, pause_s=0.05))
    stream = OpenStream(fronted.url, ask())
    stream.read_until(b"xxx")
    left = time.monotonic()
    stream.close()
    while not upstream.hung_up_at and time.monotonic() < left + 5:
        time.sleep(0.01)

    assert upstream.hung_up_at
    # Half a second to notice, and up to two pauses until the fake provider writes again and sees it.
    assert upstream.hung_up_at[0] - left < 0.5 + 0.1 + SLACK_S
    assert '"status":200' in fronted.logged('"stream":"cut"')


def test_a_caller_who_leaves_a_unary_call_stops_the_provider(fronted, upstream):
    """The same holds while the provider has not even answered."""
    upstream.will(Answer(delay_s=2.0, body=b"x" * 5_000_000))
    stream = OpenStream(fronted.url, {**ask(), "stream": False})
    time.sleep(0.2)
    stream.close()

    assert '"status":499' in fronted.logged('"status":499', timeout_s=1.5)


def test_a_slow_reader_pauses_the_provider(fronted, upstream):
    """While the caller does not read, the provider is not drained into memory."""
    pieces = [chunk("y" * 60_000)] * 600
    upstream.will(Answer.events(*pieces, STOP, DONE))
    stream = OpenStream(fronted.url, ask())
    stream.read_until(b"yyy")
    time.sleep(1.0)
    held = upstream.sent_pieces
    stream.close()

    assert held < 300


def test_silence_in_the_middle_is_a_timeout(fronted, upstream):
    """A provider that falls silent for longer than the idle deadline ends the answer as an error."""
    upstream.will(Answer.events(chunk("a"), b"", chunk("b"), STOP, DONE, pause_s=2.5))
    started = time.monotonic()
    answer = call(fronted.url, CHAT, ask())

    assert answer.events[-1]["error"]["code"] == "provider_timeout"
    assert time.monotonic() - started < 1.5 + SLACK_S


def test_comments_do_not_count_as_life(fronted, upstream):
    """Keep-alive comments of the provider do not hold the idle deadline off."""
    upstream.will(Answer.events(chunk("a"), *[b": ping\n\n"] * 20, DONE, pause_s=0.3))
    answer = call(fronted.url, CHAT, ask())

    assert answer.events[-1]["error"]["code"] == "provider_timeout"


def test_heartbeats_fill_silences(fronted, upstream):
    """A caller hears a comment whenever nothing has come for a while."""
    upstream.will(Answer.events(chunk("a"), chunk("b"), STOP, DONE, pause_s=1.0))
    answer = call(fronted.url, CHAT, ask())

    assert answer.body.count(b": keep-alive\n\n") >= 2
    assert answer.events[-1] == "[DONE]"


def test_heartbeats_begin_before_the_first_event(fronted, upstream):
    """A provider that thinks long before it answers does not leave the caller in the dark."""
    upstream.will(Answer.events(chunk("a"), STOP, DONE, delay_s=1.0))
    answer = call(fronted.url, CHAT, ask())

    assert answer.body.startswith(b": keep-alive\n\n")
    assert answer.events[-1] == "[DONE]"


def test_a_provider_that_never_answers_is_a_timeout(fronted, upstream):
    """A unary call ends with 504 when the total deadline passes."""
    upstream.will(Answer(delay_s=4.0))
    started = time.monotonic()
    answer = call(fronted.url, CHAT, {**ask(), "stream": False})

    assert answer.status == 504
    assert time.monotonic() - started < 3.0 + SLACK_S


def test_an_alias_moves_on_to_its_next_target(fronted, upstream):
    """Targets are tried in order; the answer says who gave it and after how many attempts."""
    good = {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
    upstream.will(Answer.json({"error": {"message": "down"}}, 500), Answer.json(good))
    answer = call(fronted.url, CHAT, {**ask("best"), "stream": False})

    assert answer.status == 200
    assert answer.headers["x-llm-gate-provider"] == "second"
    assert answer.headers["x-llm-gate-attempts"] == "2"
    assert [seen.path for seen in upstream.seen] == ["/v1/chat/completions", "/second/v1/chat/completions"]


def test_a_streaming_alias_moves_on_before_the_first_event(fronted, upstream):
    """A stream that breaks before its first event is taken up by the next target."""
    upstream.will(Answer.events(cut=True), Answer.events(chunk("hi"), STOP, DONE))
    answer = call(fronted.url, CHAT, ask("best"))

    assert answer.headers["x-llm-gate-attempts"] == "2"
    assert answer.events[-1] == "[DONE]"


def test_native_streams_translate(fronted, upstream):
    """The native surface tells the same story in its own form, with the cost in the last event."""
    upstream.will(Answer.events(chunk("a"), chunk("b"), STOP, USAGE, DONE))
    body = {
        "provider": {"name": "second", "model": {"name": "m"}},
        "prompt": {"messages": [{"role": "user", "content": "Hi"}]},
    }
    answer = call(fronted.url, "/llm-gate/v1/chat/stream", body, NATIVE_HEADERS)

    assert "".join(event["message"]["content"] for event in answer.events[:-1]) == "ab"
    assert answer.events[-1]["cost"]["token"]["total"] == 0.00135


def test_many_streams_at_once(fronted, upstream):
    """A hundred streams side by side all come to their end."""
    upstream.will(Answer.events(*[chunk("z")] * 5, STOP, DONE, pause_s=0.02))
    ends = []

    def one():
        ends.append(call(fronted.url, CHAT, ask()).events[-1])

    threads = [threading.Thread(target=one) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert ends == ["[DONE]"] * 100
