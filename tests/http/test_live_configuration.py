"""A changed configuration is taken over while calls go on; a bad one changes nothing and is told where it is bad."""

import json
import os
import signal
import threading
import time

import pytest

from llm_gate.configuration import Source
from llm_gate.http.live import LiveConfiguration
from support.gateway import clean_environment, running_gateway
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


DOWN = Answer.json({"error": {"message": "down", "type": "server_error"}}, 503)
PATIENT = "[retries]\ntries = 1\nlast_tries = 1\n[cooldown]\nfailures = 0\n"


def take_over(live, text):
    """Change the file, and wait until the gateway serves from it."""
    before = sum("was taken over" in line for line in live.log)
    draft = live.folder / "draft"
    draft.write_text(text, encoding="utf-8")
    draft.replace(live.folder / "llm-gate.toml")
    until(lambda: sum("was taken over" in line for line in live.log) > before)


@pytest.fixture
def live(upstream):
    """A gateway that repeats nothing and forgets every failure, until it is told otherwise."""
    with running_gateway(toml=PATIENT + toml(upstream), resilient=True) as running:
        until(lambda: any("following the configuration" in line for line in running.log))
        yield running


def test_retries_and_cooldowns_are_taken_over(upstream, live):
    """The next call is tried as the new file says, and places are left alone as it says."""
    upstream.will(DOWN, good())
    assert call(live.url, CHAT, ask()).status == 503
    assert call(live.url, CHAT, ask()).status == 200

    take_over(live, "[retries]\nwait = false\n[cooldown]\nfailures = 0\n" + toml(upstream))
    upstream.will(DOWN, DOWN, good())
    assert call(live.url, CHAT, ask()).headers["x-llm-gate-attempts"] == "3"

    take_over(live, "[retries]\nlast_tries = 1\n[cooldown]\nfailures = 1\nfirst_s = 600\n" + toml(upstream))
    upstream.will(DOWN, good())
    assert [call(live.url, CHAT, ask()).status for _ in range(3)] == [503] * 3
    assert len(upstream.seen) == 1


def test_places_and_their_room_are_taken_over(upstream, live):
    """A place that is new in the file gets calls, and no more than it may have."""
    upstream.will(good())
    more = f"""
        [providers.second.deployments.default]
        rpm = 1
        [providers.second.deployments.other]
        base_url = "{upstream.url}/other/v1"
        rpm = 2
    """
    take_over(live, PATIENT + "[timeouts]\ntotal_s = 2\n" + toml(upstream) + more)

    assert [call(live.url, CHAT, ask()).status for _ in range(3)] == [200] * 3
    assert [seen.path for seen in upstream.seen] == [
        f"/{name}{CHAT}" for name in ("second", "other", "other")
    ]
    assert call(live.url, CHAT, ask()).status in {429, 503}
    assert len(upstream.seen) == 3


def test_the_targets_of_an_alias_are_taken_over(upstream, live):
    """Weights count from the next call on."""
    upstream.will(good())
    text = PATIENT + toml(upstream).partition("[aliases.best]")[0]
    text += toml(upstream, "third").partition("[aliases.best]")[0]
    text += """
        [aliases.best]
        strategy = "weighted"
        targets = [{ target = "second/m" }, { target = "third/m", weight = 1_000_000_000 }]
    """
    take_over(live, text)
    answers = [call(live.url, CHAT, ask()) for _ in range(5)]
    assert {answer.headers["x-llm-gate-provider"] for answer in answers} == {"third"}


def test_the_first_event_has_the_deadline_of_the_new_file(upstream, live):
    """A deadline that is shortened holds for streams that begin after it."""
    piece = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
    upstream.will(Answer.events(b": wait\n\n", piece, b"data: [DONE]\n\n", pause_s=2.0))
    take_over(live, PATIENT + "[timeouts]\nfirst_event_s = 0.3\n" + toml(upstream))
    started = time.monotonic()
    assert call(live.url, CHAT, ask(stream=True)).status == 504
    assert time.monotonic() - started < TIMEOUT_S


def test_the_cap_and_the_time_to_end_are_taken_over(upstream, live):
    """Calls beyond a new cap are turned away, and a new time to end is kept."""
    piece = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
    upstream.will(Answer.events(*[piece] * 40, b"data: [DONE]\n\n", pause_s=0.5), good())
    take_over(live, "[server]\nmax_in_flight = 1\ndrain_s = 0.2\n" + PATIENT + toml(upstream))
    ends = []
    stream = threading.Thread(target=lambda: ends.append(call(live.url, CHAT, ask(stream=True)).events[-1]))
    stream.start()
    until(lambda: len(upstream.seen) == 1)

    refused = call(live.url, CHAT, ask())
    assert (refused.status, "retry-after" in refused.headers) == (503, True)
    live.process.send_signal(signal.SIGTERM)
    live.process.wait(TIMEOUT_S)
    stream.join(TIMEOUT_S)
    assert "error" in ends[0]


@pytest.mark.parametrize(
    ("bad", "key"),
    [
        ("[retries]\ntries = 0", "retries.tries"),
        ("[cooldown]\nfirst_s = inf", "cooldown.first_s"),
        ("[server]\nmax_in_flight = 0", "server.max_in_flight"),
        ("[server]\ndrain_s = 0", "server.drain_s"),
        ("[timeouts]\nfirst_event_s = -1", "timeouts.first_event_s"),
        ("[providers.second]\nrpm = 0", "providers.second.rpm"),
        ("[providers.second.deployments.a]\nweight = 0", "providers.second.deployments.a.weight"),
        ("[aliases.other]\nstrategy = []\ntargets = ['openai/m']", "aliases.other.strategy"),
        (
            "[aliases.other]\ntargets = [{ target = 'openai/m', weight = 2 }]",
            "aliases.other.targets[0].weight",
        ),
    ],
)
def test_a_faulty_new_key_changes_nothing(bad, key, tmp_path, monkeypatch, caplog):
    """What is wrong is told with its line and key, and nothing is swapped in."""
    applied = []
    live = _reloader(tmp_path, monkeypatch, "", applied)
    where = tmp_path / "llm-gate.toml"
    sound = '[providers.second]\ndialect = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n'
    merged = bad.replace("[providers.second]", sound) if "[providers.second]" in bad else f"{sound}{bad}"
    where.write_text(merged, encoding="utf-8")

    assert live.reload() is False
    assert applied == []
    (line,) = [record.error for record in caplog.records if hasattr(record, "error")]
    number = merged.splitlines().index(bad.splitlines()[1]) + 1
    assert f"{where}:{number}: {key}" in line


def test_the_share_of_a_place_follows_the_processes_that_are_there(tmp_path, monkeypatch):
    """A number of workers or a Redis that waits for a restart divides nothing before it."""
    place = '[providers.second]\ndialect = "openai"\nbase_url = "http://127.0.0.1:9/v1"\nrpm = 8\n'
    applied = []
    live = _reloader(tmp_path, monkeypatch, f"[server]\nworkers = 2\n{place}", applied)
    (tmp_path / "llm-gate.toml").write_text(f"[server]\nworkers = 8\n{place}", encoding="utf-8")
    assert live.reload() is True
    monkeypatch.setenv("LLM_GATE_REDIS_URL", "redis://127.0.0.1:6379/0")
    assert live.reload() is True

    rooms = [working.directory.deployments["second"][0].capacity.rpm for _, working in applied]
    assert rooms == [4, 4]
    assert [settings.server.workers for settings, _ in applied] == [2, 2]


def _reloader(folder, monkeypatch, text, applied):
    """Return the reloader of a process that began with a text; what it takes over is noted."""
    for variable in set(os.environ) - set(clean_environment()):
        if not variable.startswith("PYTEST"):
            monkeypatch.delenv(variable)
    file = folder / "llm-gate.toml"
    file.write_text(text, encoding="utf-8")
    source = Source(config_file=file)
    return LiveConfiguration(
        source, source.read(), lambda settings, working: applied.append((settings, working))
    )
