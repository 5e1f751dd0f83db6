"""No spoilt configuration file, of thousands, changes or disturbs a gateway at work."""

import asyncio
import gc
import logging
import os
import socket
import time
import weakref
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
import uvicorn
from aiohttp import web

from llm_gate.bootstrap import access_rules, build, load_working
from llm_gate.configuration import Source, placed_faults
from llm_gate.domain.errors import GateFault
from llm_gate.http import server
from llm_gate.http.live import LiveConfiguration
from support.figures import full, proved
from support.gateway import clean_environment
from support.mutants import KINDS, mutants

CHAT = "/v1/chat/completions"
CALLERS, LISTENERS = 3, 2
PARTS = 6
MUTANTS = full(120, 10_000)

# The first one's provider and alias stand in all: they are what the traffic asks for.
FIRST = """\
[logging]
level = "CRITICAL"

[providers.first]
dialect = "openai"
base_url = "{url}/first/v1"
auth = {{ kind = "none" }}

[aliases.best]
targets = ["first/m"]
"""
PRICED = (
    FIRST
    + """
[providers.second]
label = "Second"
description = "größer 🙂"
dialect = "openai"
base_url = "{url}/second/v1"
auth = {{ kind = "bearer", env = "SECOND_API_KEY", optional = true }}
rank = 5
defaults = {{ chat = "m" }}
max_tokens_field = "max_completion_tokens"
drop = ["seed", "user"]
rename = {{ seed = "random_seed" }}

[[providers.second.models]]
name = "m"
aliases = ["n"]
operations = ["chat"]
abilities = ["tools", "json_object"]
context_window = 32_000
max_output_tokens = 4096
prices = [
  {{ unit = "input_tokens", per = 1_000_000, usd = "0.15", since = 2026-01-01 }},
  {{ unit = "output_tokens", per = 1_000_000, usd = "0.60", condition = {{ above_input_tokens = 2000 }} }},
]

[[providers.second.models]]
name = "old"
retired_on = 2026-01-01
replacement = "m"
"""
)
SERVED = (
    """\
[server]
host = "127.0.0.1"
port = 0
max_body_bytes = 8_388_608
allowed_hosts = ["llm.example.com"]
allowed_origins = ["https://app.example.com"]

[timeouts]
connect_s = 5
headers_s = 60.0
idle_s = 60
total_s = 120
stream_total_s = 3600
heartbeat_s = 15

[api]
title = "Mine"
description = "For us"
path = "/llm-gate"

"""
    + FIRST
)
LAID_OVER = (
    FIRST
    + """
[providers.azure_openai]
api_version = "2024-10-21"

[[providers.azure_openai.models]]
name = "gpt-4o"
deployment = "gpt-4o-production"
region = "WEST_US"

[providers.openai]
base_url = "https://eu.api.openai.com/v1"
enabled = false

[[providers.anthropic.models]]
name = "claude-sonnet-5-5"
max_output_tokens = 1000

[aliases.fast]
targets = ["openai/gpt-4o-mini", "anthropic/claude-sonnet-5-5", "sandbox/chat"]
"""
)
MANY = (
    FIRST
    + """
[logging.providers]
first = "ERROR"
sandbox = "critical"
"""
    + "".join(
        f"""
[providers.own-{number}]
dialect = "{dialect}"
base_url = "{{url}}/own/{number}"
auth = {{{{ kind = "header", header = "api-key", env = ["OWN_{number}_KEY", "OWN_KEY"] }}}}
finish_is_end = true
models = [{{{{ name = "m" }}}}, {{{{ name = "e", operations = ["embedding"] }}}}]

[aliases.alias-{number}]
targets = ["own-{number}/m", "first/m"]
"""
        for number, dialect in enumerate(("openai", "anthropic", "gemini", "cohere", "ollama"))
    )
)
# Everything about retries, room and several places; what slows or refuses the traffic is far from it.
RESILIENT = (
    """\
[server]
max_in_flight = 10_000
drain_s = 5.0

[timeouts]
first_event_s = 60

[retries]
preset = "factory"
tries = 2
last_tries = 3
pause_s = 0.1
last_pause_s = 0.2
longest_pause_s = 1.5
rate_pause_s = 0
hedge_after_s = 30
budget_percent = 20
budget_floor = 5
hedge_percent = 1
wait = true

[cooldown]
failures = 100
window = 1_000
first_s = 0.5
longest_s = 2
broken_first_s = 1
broken_longest_s = 60
longest_wish_s = 0

"""
    + FIRST
    + """
[providers.own]
dialect = "openai"
base_url = "{url}/own/v1"
auth = {{ kind = "bearer", env = "OWN_API_KEY", optional = true }}
strategy = "least_busy"
weight = 2
rpm = 600
tpm = 100_000
max_concurrent = 50
max_waiting = 10
timeouts = {{ connect_s = 2, headers_s = 30, first_event_s = 20.5, idle_s = 20 }}

[providers.own.deployments.default]
rpm = 60
models = ["m", "n"]

[providers.own.deployments.second]
env = "OWN_API_KEY_SECOND"
base_url = "{url}/own/second/v1"
region = "EAST"
api_version = "v1"
weight = 3
max_waiting = 0
timeouts = {{ idle_s = 10 }}

[aliases.shared]
strategy = "weighted"
sticky = "user"
targets = [{{ target = "first/m", weight = 3 }}, "own/m"]
"""
)
GOOD = {
    "small": FIRST,
    "priced": PRICED,
    "served": SERVED,
    "laid over": LAID_OVER,
    "many": MANY,
    "resilient": RESILIENT,
}
assert len(GOOD) == PARTS


async def _vendor(request):
    """Answer a chat at once, or as a stream that outlives several reloads."""
    assert request.path == f"/first{CHAT}"
    if not (await request.json()).get("stream"):
        message = {"role": "assistant", "content": "hi"}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})
    answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await answer.prepare(request)
    for _ in range(8):
        await answer.write(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n')
        await asyncio.sleep(0.05)
    await answer.write(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
    await answer.write(b"data: [DONE]\n\n")
    return answer


class Traffic:
    """Callers who ask without a pause, over real connections, and note whatever was not as it should be."""

    def __init__(self, client, url):
        self.answers = 0
        self.streams = 0
        self.wrong = []
        self._client = client
        self._url = url
        self._headless = 0
        self._may_ask = asyncio.Event()
        self._may_ask.set()

    async def ask(self, *, stream=False):
        body = {"model": "best", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        self._headless += 1
        try:
            answer = await self._client.post(f"{self._url}{CHAT}", json=body)
        finally:
            self._headless -= 1
        async with answer:
            text = await answer.text()
        provider = answer.headers.get("x-llm-gate-provider")
        whole = text.endswith("data: [DONE]\n\n") if stream else '"hi"' in text
        if (answer.status, provider, whole) != (200, "first", True):
            self.wrong.append((answer.status, provider, text[-200:]))
        self.answers += 1
        self.streams += stream

    async def go_on(self, *, stream):
        while True:
            await self._may_ask.wait()
            await self.ask(stream=stream)

    @asynccontextmanager
    async def held(self):
        """Let nobody ask meanwhile; what has begun, streams above all, goes on."""
        self._may_ask.clear()
        while self._headless:
            await asyncio.sleep(0.001)
        yield
        self._may_ask.set()


class Live:
    """A real gateway in this process, its file, and everything that ever was its state."""

    def __init__(self, file, good):
        self.file = file
        self.good = good
        self.kept = weakref.WeakSet()
        self._reloaders = []

    def _reloader(self, source, settings, apply):
        def noted(new_settings, working):
            self.kept.add(working)
            self.kept.add(working.transport)
            apply(new_settings, working)

        self._reloaders.append(self._kind(source, settings, noted))
        return self._reloaders[-1]

    @asynccontextmanager
    async def running(self, monkeypatch):
        """Serve on a free port, following the file as always."""
        self._kind = server.LiveConfiguration
        monkeypatch.setattr(server, "LiveConfiguration", self._reloader)
        source = Source(config_file=self.file)
        settings = source.read()
        self.gateway = build(settings)
        self.application = server.make_application(settings, self.gateway, source)
        listener = socket.create_server(("127.0.0.1", 0))
        serving = uvicorn.Server(server._config(self.application, settings, factory=False))
        task = asyncio.create_task(serving.serve(sockets=[listener]))
        try:
            while not serving.started:
                await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            serving.should_exit = True
            await task
            listener.close()

    def reload(self, content):
        """Put a content into the file and read it at once."""
        # In one step, so that who looks at the file on its own never sees half of it.
        draft = self.file.with_suffix(".draft")
        draft.write_bytes(content)
        draft.replace(self.file)
        return self._reloaders[0].reload()

    @property
    def state(self):
        return (self.gateway.gate._working, self.application.rules)


def fault_of(file):
    """Read a file as the gateway does, apart from it, and return what is wrong with it, if anything is."""
    try:
        settings = Source(config_file=file).read()
        with placed_faults(settings):
            load_working(settings)
    except GateFault as fault:
        return fault.message
    return None


async def _spoil(live, url, client, traffic, judged, count):
    faulty = 0
    for kind, content in mutants(live.good.decode(), count):
        judged.write_bytes(content)
        fault = fault_of(judged)
        before = live.state
        if fault is not None:
            assert judged.name in fault
            assert live.reload(content) is False, (kind, content)
            assert all(now is then for now, then in zip(live.state, before, strict=True)), (kind, content)
            await traffic.ask()
            faulty += 1
        else:
            # With everybody asking, but back before anybody is led by it.
            assert live.reload(content) is True, (kind, content)
            assert live.reload(live.good) is True
            await traffic.ask()
            # And with streams alone under way, to see that the mutant serves.
            async with traffic.held():
                assert live.reload(content) is True, (kind, content)
                async with client.get(f"{url}/v1/models") as answer:
                    assert answer.status == 200, (kind, content)
                assert live.reload(live.good) is True
        assert traffic.wrong == [], (kind, content)
    return faulty


async def _closed(live):
    """Wait until nothing but the state at work is kept."""
    deadline = time.monotonic() + 10
    while len(live.kept) > 2 and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        gc.collect()
    return len(live.kept)


async def _prove(live, judged, monkeypatch, count):
    async with AsyncExitStack() as stack:
        vendor = web.AppRunner(web.Application(), access_log=None)
        vendor.app.router.add_post("/{path:.*}", _vendor)
        await vendor.setup()
        stack.push_async_callback(vendor.cleanup)
        site = web.TCPSite(vendor, "127.0.0.1", 0)
        await site.start()
        live.good = live.good.format(url=site.name.removesuffix("/")).encode()
        live.file.write_bytes(live.good)

        url = await stack.enter_async_context(live.running(monkeypatch))
        client = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        traffic = Traffic(client, url)
        asking = [
            asyncio.create_task(traffic.go_on(stream=n < LISTENERS)) for n in range(CALLERS + LISTENERS)
        ]
        faulty = await _spoil(live, url, client, traffic, judged, count)
        assert live.reload(live.good) is True
        # The last streams hold the states they began with, and let go of them when they end.
        async with traffic.held():
            left = await _closed(live)
        for task in asking:
            task.cancel()
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []
        return faulty, traffic, left


@pytest.fixture
def own_logging():
    """Leave the loggers as they were, for the tests that come after."""
    loggers = [logging.getLogger(f"llm_gate{rest}") for rest in ("", ".provider.first", ".provider.sandbox")]
    before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, handlers, propagate, level in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@proved
@pytest.mark.parametrize("name", GOOD)
def test_no_mutant_disturbs_a_gateway_at_work(name, tmp_path, monkeypatch, own_logging):
    """A faulty file changes nothing, a sound one is taken over, no request fails, and no old state is kept."""
    for variable in set(os.environ) - set(clean_environment()):
        if not variable.startswith("PYTEST"):
            monkeypatch.delenv(variable)
    count = MUTANTS // PARTS
    live = Live(tmp_path / "llm-gate.toml", GOOD[name])
    faulty, traffic, left = asyncio.run(_prove(live, tmp_path / "judged.toml", monkeypatch, count))

    figures = {"mutants": count, "faulty": faulty, "requests": traffic.answers, "streams": traffic.streams}
    print(name, figures)  # noqa: T201 - shown by -rP
    assert traffic.wrong == []
    assert left <= 2
    assert faulty > count // 2
    assert count > faulty
    assert traffic.answers > count
    assert traffic.streams > 0


def test_where_the_process_listens_decides_not_the_file(tmp_path, monkeypatch):
    """A host that waits for a restart neither opens a public gateway without its key nor blocks later changes."""
    file = tmp_path / "llm-gate.toml"
    file.write_text('[server]\nhost = "0.0.0.0"', encoding="utf-8")
    source = Source(config_file=file)
    monkeypatch.setenv("LLM_GATE_API_KEY", "key-of-the-callers-0123456789")
    monkeypatch.delenv("HEIMDALL_SERVER_HOST", raising=False)
    applied = []
    live = LiveConfiguration(source, source.read(), lambda settings, _working: applied.append(settings))

    file.write_text('[server]\nhost = "127.0.0.1"', encoding="utf-8")
    assert live.reload() is True
    monkeypatch.delenv("LLM_GATE_API_KEY")
    assert live.reload() is True
    assert [settings.server.host for settings in applied] == ["0.0.0.0", "0.0.0.0"]
    assert all(access_rules(settings).needs_key for settings in applied)


def test_mutants_are_the_same_every_time():
    """The generator gives each kind its turn, and the same mutants in every run."""
    good = FIRST.format(url="http://127.0.0.1:9000")
    once = list(mutants(good, 2 * len(KINDS)))

    assert once == list(mutants(good, 2 * len(KINDS)))
    assert [kind for kind, _ in once] == [*KINDS, *KINDS]
    assert len({content for _, content in once}) > len(KINDS)
