"""A provider that comes and goes is asked whether it is there, beside the calls; lists and choices follow."""

import asyncio
import json
import socket
import time
from collections.abc import Mapping
from datetime import date
from urllib.parse import urlsplit

import pytest

from llm_gate.bootstrap import load_working
from llm_gate.dialects.ollama_presence import OllamaPresence
from llm_gate.domain.errors import ProviderUnavailable
from llm_gate.settings import load_settings
from support.forking import clean_environment, run_command
from support.gateway import NATIVE_HEADERS, running_gateway
from support.targets import make_reply
from support.upstream import Answer, fake_upstream
from support.web import call

CHAT = "/v1/chat/completions"
TIMEOUT_S = 15.0
TODAY = date(2026, 11, 20)
SAYS = {"model": "llama3.2", "message": {"role": "assistant", "content": "here"}, "done": True}
CHOICE = {"message": {"role": "assistant", "content": "instead"}, "finish_reason": "stop"}


@pytest.fixture
def upstream():
    with fake_upstream() as running:
        yield running


@pytest.fixture
def nowhere():
    """Return an address at which nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


def until(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def provider(gateway, name="ollama"):
    listed = call(gateway.url, "/llm-gate/v1/providers", headers=NATIVE_HEADERS).json["data"]
    return next(entry for entry in listed if entry["name"] == name)


def usable(gateway, headers: Mapping[str, str] = {}):
    """Return the names of the provider's models in the list of models, in one of its two shapes."""
    listed = call(gateway.url, "/v1/models?limit=1000", headers=headers).json["data"]
    return [model["id"] for model in listed if model["id"].startswith("ollama/")]


def ask(model):
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}]}


def with_second(url):
    return f"""
        [providers.second]
        dialect = "openai"
        base_url = "{url}/v1"
        auth = {{ kind = "none" }}
        [aliases]
        either = {{ targets = ["ollama/llama3.2", "second/m"] }}
        alone = {{ targets = ["ollama/llama3.2", "ollama/llama3"] }}
    """


def test_exactly_what_the_server_lists_can_be_used(upstream):
    """A subset of the catalog, with or without its tag, and a model the catalog does not know: in every list."""
    upstream.models = ["llama3.2:latest", "nomic-embed-text", "phi4:14b"]
    upstream.will(Answer.json(SAYS))
    listed = ["ollama/llama3.2", "ollama/nomic-embed-text", "ollama/phi4:14b"]
    environment = {
        "OLLAMA_HOST": upstream.url,
        "LLM_PRIMARY_PROVIDER": "ollama, second",
        "LLM_GATE_SECOND_MODEL": "m",
    }
    with running_gateway(environment, toml=with_second(upstream.url)) as gateway:
        until(lambda: usable(gateway) == listed)
        assert usable(gateway, {"anthropic-version": "2023-06-01"}) == ["ollama/llama3.2", "ollama/phi4:14b"]
        assert call(gateway.url, "/v1/models/ollama/phi4:14b").json["id"] == "ollama/phi4:14b"
        assert call(gateway.url, "/v1/models/ollama/phi5").status == 404
        entry = provider(gateway)
        assert entry["enabled"] is True
        assert [f"ollama/{model['name']}" for model in entry["model"] if model["enabled"]] == listed
        assert "llama3" in [model["name"] for model in entry["model"]]

        assert call(gateway.url, CHAT, ask("either")).headers["x-llm-gate-provider"] == "ollama"
        assert call(gateway.url, CHAT, ask("alone")).headers["x-llm-gate-model"] == "llama3.2"
        upstream.will(Answer.json({"choices": [CHOICE]}))
        assert call(gateway.url, CHAT, ask("default")).headers["x-llm-gate-provider"] == "second"

        upstream.will(Answer.json(SAYS))
        asked, calls = upstream.asked_for_models, len(upstream.seen)
        for _ in range(20):
            assert call(gateway.url, CHAT, ask("ollama/llama3.2")).status == 200
        assert upstream.asked_for_models <= asked + 1, "calls do not ask"
        assert len(upstream.seen) == calls + 20


def test_who_is_away_is_not_chosen(upstream, nowhere):
    """Nobody at the address: off in the lists, left out of aliases, no default; but tried when it is named."""
    upstream.will(Answer.json({"choices": [CHOICE]}))
    environment = {"OLLAMA_HOST": nowhere, "LLM_PRIMARY_PROVIDER": "ollama"}
    with running_gateway(environment, toml=with_second(upstream.url)) as gateway:
        until(lambda: not provider(gateway)["enabled"])
        assert "does not answer at its address" in gateway.logged("provider is away")
        assert not any(model["enabled"] for model in provider(gateway)["model"])
        assert usable(gateway) == []

        other = call(gateway.url, CHAT, ask("either"))
        assert other.headers["x-llm-gate-provider"] == "second"
        assert other.headers["x-llm-gate-attempts"] == "1"
        nobody = call(gateway.url, CHAT, ask("alone"))
        assert (nobody.status, nobody.json["error"]["code"]) == (503, "provider_unavailable")
        assert "does not answer at its address" in nobody.json["error"]["message"]
        default = call(gateway.url, CHAT, ask("default"))
        assert default.status == 503, "made-up answers must not stand in"
        assert "'ollama' is away" in default.json["error"]["message"]
        tried = call(gateway.url, CHAT, ask("ollama/llama3.2"))
        assert (tried.status, tried.json["error"]["code"]) == (503, "provider_unavailable")
        assert "cannot be reached" in tried.json["error"]["message"]


def test_a_reload_asks_afresh(upstream, nowhere):
    """A new state of the configuration begins with nothing known, and asks at once."""
    upstream.models = ["llama3"]
    toml = '[providers.ollama]\nbase_url = "{}"\n'
    with running_gateway(toml=toml.format(nowhere)) as gateway:
        until(lambda: not provider(gateway)["enabled"])
        (gateway.folder / "llm-gate.toml").write_text(toml.format(upstream.url), encoding="utf-8")
        until(lambda: usable(gateway) == ["ollama/llama3"])


def test_a_server_that_never_answers_delays_nothing():
    """The gateway is ready at once; the provider counts as there until the wait for its word is over."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        environment = {"OLLAMA_HOST": f"127.0.0.1:{mute.getsockname()[1]}"}
        with running_gateway(environment) as gateway:
            assert provider(gateway)["enabled"] is True
            assert call(gateway.url, "/readyz").status == 200
            until(lambda: not provider(gateway)["enabled"])


def test_it_goes_and_comes_back(tmp_path, monkeypatch):
    """What is heard follows the server: there, gone, there again with other models, without a list."""
    monkeypatch.chdir(tmp_path)
    with fake_upstream() as first:
        url, port = first.url, urlsplit(first.url).port
    working = load_working(load_settings({"OLLAMA_HOST": url, "LLM_PRIMARY_PROVIDER": "ollama"}))
    directory = working.directory

    def default():
        return directory.resolve("", "chat", TODAY, {})[0].name

    async def soon(condition):
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                await asyncio.sleep(0.01)

    async def follow():
        assert directory.is_enabled("ollama"), "nothing is known yet"
        assert default() == "ollama/gpt-oss:20b"
        asking = asyncio.create_task(directory.presence.keep_asking(working.transport, every_s=0.02))
        with fake_upstream(port=port) as server:
            server.models = ["gpt-oss:20b"]
            await soon(lambda: directory.presence.models("ollama") == ("gpt-oss:20b",))
            assert default() == "ollama/gpt-oss:20b"
        await soon(lambda: not directory.is_enabled("ollama"))
        assert "does not answer" in directory.hint("ollama")
        with pytest.raises(ProviderUnavailable, match="'ollama' is away"):
            default()
        with fake_upstream(port=port) as server:
            server.models = ["llama3:latest"]
            await soon(lambda: directory.is_enabled("ollama"))
            with pytest.raises(ProviderUnavailable, match="does not have model 'gpt-oss:20b'"):
                default()
            named = directory.resolve("ollama/gpt-oss:20b", "chat", TODAY, {})
            assert named[0].wire_model == "gpt-oss:20b"
            server.models = None
            await soon(lambda: not directory.is_enabled("ollama"))
            assert "status 404" in directory.hint("ollama")
        asking.cancel()
        await working.close()

    asyncio.run(follow())


@pytest.mark.parametrize(
    "body", [b"", b"Ollama is running", b"[]", b'{"models": 1}', b'{"models": [{"name": ""}]}']
)
def test_what_is_no_list_of_models_is_none(body):
    """Whatever else answers at the address does not count as an empty list."""
    assert OllamaPresence().decode(make_reply(body)) is None


def test_the_command_line_tells_it_too(upstream, nowhere, tmp_path):
    """`providers` and `models` ask once, and show what is there."""
    upstream.models = ["llama3.2:latest", "phi4:14b"]

    def run(command, url):
        done = run_command(
            *(command, "--no-env-file", "--json"),
            folder=tmp_path,
            environment=clean_environment({"OLLAMA_HOST": url}),
        )
        assert (done.returncode, done.stderr) == (0, "")
        return [row for row in json.loads(done.stdout) if row["name"].startswith("ollama")]

    [row] = run("providers", upstream.url)
    assert (row["enabled"], row["hint"]) == (True, None)
    assert [row["name"] for row in run("models", upstream.url)] == ["ollama/llama3.2", "ollama/phi4:14b"]
    [row] = run("providers", nowhere)
    assert (row["enabled"], row["hint"]) == (False, "it does not answer at its address")
    assert run("models", nowhere) == []
