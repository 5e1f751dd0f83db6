"""A changed configuration is taken over while calls go on; a bad one changes nothing and is told where it is bad."""

import json
import signal
import threading
import time

import pytest

from support.gateway import running_gateway
from support.upstream import Answer, fake_upstream
from support.web import call

CHAT = "/v1/chat/completions"
TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def upstream():
    """Run a scripted provider of this module's own."""
    with fake_upstream() as running:
        yield running


def toml(upstream, name="second", **more):
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    return f"""
        [providers.{name}]
        dialect = "openai"
        base_url = "{upstream.url}/{name}/v1"
        auth = {{ kind = "none" }}
        {lines}
        [aliases.best]
        targets = ["{name}/m"]
    """


def good(text="hi"):
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Answer.json({"choices": [choice]})


def ask(model="best", **more):
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}


def until(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_changed_file_is_taken_over_while_a_stream_goes_on(upstream):
    """New calls follow the new file; a stream that began under the old one runs to its end."""
    piece = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
    upstream.will(Answer.events(*[piece] * 8, b"data: [DONE]\n\n", pause_s=0.4), good())
    with running_gateway(toml=toml(upstream)) as live:
        ends = []
        stream = threading.Thread(
            target=lambda: ends.append(call(live.url, CHAT, ask(stream=True)).events[-1])
        )
        stream.start()
        until(lambda: len(upstream.seen) == 1)
        (live.folder / "llm-gate.toml").write_text(toml(upstream, "third"), encoding="utf-8")
        live.logged("the configuration was taken over", timeout_s=TIMEOUT_S)

        answer = call(live.url, CHAT, ask())
        assert answer.headers["x-llm-gate-provider"] == "third"
        assert call(live.url, CHAT, ask("second/m")).status == 404
        stream.join(TIMEOUT_S)
        assert ends == ["[DONE]"]


def test_a_bad_file_changes_nothing_and_is_named(upstream):
    """A faulty file is told with its line and key, and the gateway goes on as it was."""
    upstream.will(good())
    with running_gateway(toml=toml(upstream)) as live:
        bad = toml(upstream, colour="red") + "\n[aliases.other]\ntargets = []\n"
        (live.folder / "llm-gate.toml").write_text(bad, encoding="utf-8")
        line = live.logged("the configuration was not taken over", timeout_s=TIMEOUT_S)

        assert "llm-gate.toml:6" in line
        assert "providers.second.colour" in line
        assert "aliases.other.targets" in line
        assert call(live.url, CHAT, ask()).status == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sighup_reloads(upstream, workers):
    """SIGHUP reads the configuration again in every process, and ends none."""
    upstream.will(good())
    with running_gateway(toml=toml(upstream), arguments=("--workers", workers)) as live:
        until(lambda: sum("following the configuration" in line for line in live.log) == int(workers))
        # The parent asks each worker whether it is ready, which it is a moment after it says so here.
        time.sleep(0.5)
        live.process.send_signal(signal.SIGHUP)
        until(lambda: sum("was taken over" in line for line in live.log) == int(workers))

        assert call(live.url, CHAT, ask()).status == 200


def test_a_reload_under_load_fails_no_call(upstream):
    """Calls that run while the file changes again and again all succeed."""
    upstream.will(good())
    with running_gateway(toml=toml(upstream)) as live:
        statuses = []
        stop = threading.Event()

        def load():
            while not stop.is_set():
                statuses.append(call(live.url, CHAT, ask()).status)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            live.process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT_S)

        assert set(statuses) == {200}
        assert len(statuses) > 20


def test_limits_and_levels_are_taken_over(upstream):
    """What the edge checks follows the file too; what cannot is named."""
    with running_gateway(toml=toml(upstream)) as live:
        more = "[server]\nmax_body_bytes = 20\nport = 1\n[logging]\nprompts = true\n"
        (live.folder / "llm-gate.toml").write_text(toml(upstream) + more, encoding="utf-8")
        live.logged("the configuration was taken over", timeout_s=TIMEOUT_S)

        assert call(live.url, CHAT, ask()).status == 413
