"""The gateway as a library: in programs of their own, beside a running gateway, with the same limits."""

import asyncio
import json
import subprocess
import sys

import pytest

from llm_gate import GateError, LLMGate, QuotaExceeded
from llm_gate.configuration import Source
from support.gateway import clean_environment, running_gateway
from support.office import command
from support.upstream import Answer, fake_upstream
from support.web import call

USER = {"X-User-Id": "u1"}
TOML = """
    [providers.second]
    dialect = "openai"
    base_url = "{url}/second/v1"
    auth = {{ kind = "none" }}
    [[providers.second.models]]
    name = "m"
    operations = ["chat"]
    prices = [
        {{ unit = "input_tokens", per = 1_000_000, usd = "0.15" }},
        {{ unit = "output_tokens", per = 1_000_000, usd = "0.60" }},
    ]

    [plans.custom.two.limits]
    text_calls = 2
    [plans.custom.short]
    max_output_tokens = 500
"""


def says(text, finish_reason="stop"):
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    return Answer.json({"id": "c", "model": "m", "choices": [choice], "usage": usage})


@pytest.fixture(scope="module")
def upstream():
    with fake_upstream() as running:
        yield running


@pytest.fixture
def folder(tmp_path, upstream):
    (tmp_path / "llm-gate.toml").write_text(TOML.format(url=upstream.url))
    return tmp_path


@pytest.fixture
def library(folder):
    """Open a gateway in this process, on a data folder of its own."""
    source = Source(config_file=folder / "llm-gate.toml", overrides={"data_dir": folder / "data"})

    def ask(*arguments, **named):
        async def work():
            async with LLMGate(source) as gate:
                return await gate.text_gen(*arguments, **{"user_id": "u1", "model": "second/m", **named})

        return asyncio.run(work())

    return ask


def program(folder, code, **environment):
    """Run a program that uses the library in a folder; it must end well and say nothing but what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- What is asked, and what is answered


def test_a_text_from_a_prompt(library, upstream):
    """The prompt goes out as it is, with the usual parameters and no words of our own; the text comes back."""
    upstream.will(says("```\nprint(1)\n```"))

    assert library("Write a program") == "```\nprint(1)\n```"
    body = upstream.only.json
    assert body["messages"] == [{"role": "user", "content": "Write a program"}]
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 0.9, 4_000)
    assert "n" not in body


def test_a_system_prompt_and_parameters_of_ones_own(library, upstream):
    """What the caller says goes out instead of what is usual."""
    upstream.will(says("Bonjour"))
    library("Hello", "Answer in French.", temperature=0.1, max_tokens=50)
    body = upstream.only.json

    assert body["messages"][0] == {"role": "system", "content": "Answer in French."}
    assert (body["temperature"], body["max_tokens"]) == (0.1, 50)


def refuses(message, param=None):
    return Answer.json({"error": {"message": message, "type": "invalid_request_error", "param": param}}, 400)


@pytest.mark.parametrize(
    ("refusal", "kept"),
    [
        (refuses("Unsupported value: 'temperature'.", "temperature"), {"top_p", "max_tokens"}),
        (refuses("`temperature` and `top_p` cannot both be specified for this model."), {"max_tokens"}),
        (refuses("max_tokens is too large: 4000", "max_tokens"), {"temperature", "top_p"}),
    ],
)
def test_usual_parameters_are_left_out_where_a_model_takes_none(library, upstream, refusal, kept):
    """A model that refuses a parameter nobody asked for is asked again without it."""
    upstream.will(refusal, says("Hi"))

    assert library("Hello") == "Hi"
    assert {"temperature", "top_p", "max_tokens"} & upstream.seen[1].json.keys() == kept


def test_a_parameter_that_was_asked_for_is_not_left_out(library, upstream):
    """What the caller wants and the model refuses is an error."""
    upstream.will(refuses("Unsupported value: 'temperature'.", "temperature"))

    with pytest.raises(GateError, match="temperature"):
        library("Hello", temperature=1.5)
    assert len(upstream.seen) == 1


def test_an_object_from_a_prompt(library, upstream):
    """With a form the answer is asked for in it, checked, asked for again if need be, and parsed."""
    upstream.will(says('{"city": "Oslo"}'), says('{"city": "Oslo", "inhabitants": 700000}'))

    found = library("Which city?", json_struct={"city": "string", "inhabitants": "integer"})

    assert found == {"city": "Oslo", "inhabitants": 700_000}
    asked = upstream.seen[0].json["response_format"]["json_schema"]["schema"]
    assert asked["required"] == ["city", "inhabitants"]
    assert len(upstream.seen) == 2


@pytest.mark.parametrize("answer", [says("{}"), says('{"city": "Os', "length"), says("no JSON")])
def test_an_object_that_does_not_fit_is_an_error(library, upstream, answer):
    """What does not fit, or was cut short, is never handed out as if it did."""
    upstream.will(answer)

    with pytest.raises(GateError) as caught:
        library("Which city?", json_struct={"city": "string"})
    assert caught.value.code == "structured_output_invalid"


@pytest.mark.parametrize("user", [None, "", " "])
def test_nobody_is_not_counted(library, upstream, user):
    """A call that belongs to nobody is refused, and nobody hears of it."""
    upstream.will(says("Hi"))

    with pytest.raises(RuntimeError, match="user_id is required"):
        library("Hello", user_id=user)
    assert upstream.seen == []


# --- The same limits


def test_a_gateway_and_a_program_share_limits(upstream):
    """What a gateway and another process use up together, neither goes beyond, and both say so alike."""
    code = """
import asyncio, json
from llm_gate import QuotaExceeded, llm_text_gen

def ask():
    try:
        return llm_text_gen("Hello", user_id="u1", model="second/m")
    except QuotaExceeded as error:
        return {"status": error.status_code, "detail": error.detail, "wait_s": error.retry_after_s}

async def inside():
    return ask()

print(json.dumps(ask()))
print(json.dumps(asyncio.run(inside())))
"""
    with running_gateway(toml=TOML.format(url=upstream.url)) as gateway:
        assert command(gateway, "users", "subscribe", "u1", "--plan", "two", "--json").returncode == 0
        upstream.will(says("Hi"))
        body = {"model": "second/m", "messages": [{"role": "user", "content": "Hello"}]}
        first = call(gateway.url, "/v1/chat/completions", body, USER)
        text, refused = program(gateway.folder, code)
        last = call(gateway.url, "/v1/chat/completions", body, USER)
        checked = command(gateway, "ledger", "check", "--json")
        used = json.loads(command(gateway, "usage", "--user", "u1", "--json").stdout)

    assert (first.status, text, last.status) == (200, "Hi", 429)
    assert refused["status"] == 429
    assert refused["detail"].keys() == {"error", "message", "provider", "usage_info"}
    info = refused["detail"]["usage_info"]
    assert (info["type"], info["current_calls"], info["limit"]) == ("ai_text_generation_calls", 2, 2)
    assert refused["wait_s"] > 0
    assert len(upstream.seen) == 2
    assert (used["requests"], json.loads(checked.stdout)["drift_nanos"]) == (2, 0)


def test_a_plan_bounds_the_usual_length(folder, library, upstream):
    """The usual length of an answer is no more than the plan allows; more than that is refused when asked for."""
    source = Source(config_file=folder / "llm-gate.toml", overrides={"data_dir": folder / "data"})
    (folder / "llm-gate.toml").write_text('[plans]\ndefault = "short"\n' + TOML.format(url=upstream.url))
    assert source.read().plans.default == "short"
    upstream.will(says("Hi"))
    library("Hello")

    assert upstream.only.json["max_tokens"] == 500
    with pytest.raises(GateError, match="more than the plan"):
        library("Hello", max_tokens=501)


# --- In a program


def test_importing_the_package_loads_nothing_else(folder):
    """`import llm_gate` is cheap: whatever it offers is loaded when it is asked for."""
    code = """
import sys, json
before = set(sys.modules)
import llm_gate
print(json.dumps(sorted(set(sys.modules) - before)))
print(json.dumps(sorted(dir(llm_gate))))
for name in dir(llm_gate):
    getattr(llm_gate, name)
from llm_gate import llm_text_gen
print(json.dumps("llm_gate.client.sync" in sys.modules))
"""
    loaded, names, is_there = program(folder, code)

    assert [name for name in loaded if name.startswith("llm_gate")] == ["llm_gate"]
    assert not {"asyncio", "typing", "msgspec", "aiohttp"} & set(loaded)
    assert {"GateError", "LLMFactory", "LLMGate", "QuotaExceeded", "__version__", "llm_text_gen"} < set(names)
    assert is_there


def test_threads_and_forks_have_a_gateway_too(folder, upstream):
    """Threads share one gateway, a child process opens its own, and everything is closed when a program ends."""
    code = """
import json, os, threading
from llm_gate import llm_text_gen

found = []
def ask(): found.append(llm_text_gen("Hello", user_id="u1", model="second/m"))
threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(found), flush=True)
print(json.dumps(sorted(each.name for each in threading.enumerate() if each.name == "llm-gate")), flush=True)
child = os.fork()
if child == 0:
    print(json.dumps(llm_text_gen("Hello", user_id="u1", model="second/m")), flush=True)
    raise SystemExit
os.waitpid(child, 0)
"""
    upstream.will(says("Hi"))
    texts, threads, childs = program(folder, code)

    assert texts == ["Hi"] * 8
    assert threads == ["llm-gate"]
    assert childs == "Hi"
    assert list((folder / "data" / "owners").iterdir()) == []


def test_a_faulty_configuration_is_said_at_each_call(folder):
    """What is wrong with the configuration is told as it is, and can be mended while the program runs."""
    code = """
import json, pathlib
from llm_gate import GateError, llm_text_gen

file = pathlib.Path("llm-gate.toml")
good = file.read_text()
file.write_text("[server]\\nport = 'none'")
try:
    llm_text_gen("Hello", user_id="u1")
except GateError as error:
    print(json.dumps(error.message))
file.write_text(good)
print(json.dumps(llm_text_gen("Hello", user_id="u1", model="sandbox/echo")[:9]))
"""
    fault, text = program(folder, code)

    assert "server.port" in fault
    assert text == "This is a"


def test_a_gate_must_be_opened():
    """An `LLMGate` that is not open says how to open it."""
    with pytest.raises(RuntimeError, match="async with"):
        asyncio.run(LLMGate().text_gen("Hello", user_id="u1"))


def test_the_error_is_the_gateways_own():
    """Whoever catches every error of the gateway catches refusals too."""
    assert issubclass(QuotaExceeded, GateError)
