import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from support.forking import COMMAND, run_command

SECOND = """\
[providers.second]
dialect = "openai"
base_url = "http://127.0.0.1:{port}/v1"
auth = {{ kind = "bearer", env = "SECOND_API_KEY" }}
[[providers.second.models]]
name = "m"
context_window = 4096
prices = [
  {{ unit = "input_tokens", per = 1_000_000, usd = "0.15" }},
  {{ unit = "output_tokens", per = 1_000_000, usd = "0.60" }},
]
[[providers.second.models]]
name = "unpriced"

[aliases.best]
targets = ["second/m"]
"""


class Vendor(ThreadingHTTPServer):
    """An upstream of the OpenAI dialect that waits in the middle of each answer until it is told to go on."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), VendorRequest)
        self.go_on = threading.Event()
        self.status = 200
        self.cut = False
        self.seen = []
        self.port = self.server_address[1]


class VendorRequest(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.path, self.headers["authorization"], body))
        if self.server.status != 200:
            text = json.dumps(
                {"error": {"message": "wrong key sk-geheim", "code": "invalid_api_key"}}
            ).encode()
            self.send_response(self.server.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": "Hello"}}])
        self.server.go_on.wait(20)
        if self.server.cut:
            return
        self.chunk(choices=[{"index": 0, "delta": {"content": " world"}, "finish_reason": "stop"}])
        self.chunk(choices=[], usage={"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15})
        self.wfile.write(b"data: [DONE]\n\n")

    def chunk(self, **fields):
        document = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **fields}
        self.wfile.write(f"data: {json.dumps(document)}\n\n".encode())

    def log_message(self, format, *args):  # noqa: A002 - the name is the standard library's
        pass


@pytest.fixture
def vendor():
    server = Vendor()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def clean(**environment):
    return {"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", **environment}


def run(folder, *words, stdin="", **environment):
    return run_command(*words, folder=folder, environment=clean(**environment), text=stdin)


def configure(folder, vendor):
    (folder / "llm-gate.toml").write_text(SECOND.format(port=vendor.port), encoding="utf-8")
    (folder / ".env").write_text("SECOND_API_KEY=sk-geheim\n", encoding="utf-8")


def test_help_lists_every_command(folder):
    """`llm-gate --help` names each command with what it is for, and each command's help has an example."""
    top = run(folder, "--help")

    assert top.returncode == 0
    for name in ("serve", "chat", "models", "providers", "explain", "check", "version"):
        assert f"\n  {name} " in top.stdout
        one = run(folder, name, "--help")
        assert one.returncode == 0
        assert f"llm-gate {name}" in one.stdout.partition("Example")[2]


def test_version(folder):
    """The version is printed for people and for programs, and soon."""
    started_s = time.monotonic()
    done = subprocess.run([COMMAND, "version"], cwd=folder, env=clean(), capture_output=True, check=True)
    assert done.stdout == b"llm-gate 0.1.0\n"
    assert time.monotonic() - started_s < 2.0
    assert run(folder, "--version").stdout == "llm-gate 0.1.0\n"
    assert json.loads(run(folder, "version", "--json").stdout)["version"] == "0.1.0"


def test_the_module_is_the_command(folder):
    """`python -m llm_gate` does the same as `llm-gate`."""
    done = subprocess.run(
        [sys.executable, "-m", "llm_gate", "version"],
        cwd=folder,
        env=clean(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "llm-gate 0.1.0\n", "")


def test_a_wrong_command_line_exits_2(folder):
    """Unknown commands, options and values are usage faults."""
    assert run(folder, "sing").returncode == 2
    assert run(folder, "models", "--loud").returncode == 2
    assert run(folder, "serve", "--port", "70000").returncode == 2
    assert run(folder, "chat", stdin="  \n").returncode == 2

    unknown = run(folder, "models", "--provider", "nobody")

    assert unknown.returncode == 2
    assert "'nobody' is none of anthropic, " in unknown.stderr


def test_chat_needs_neither_key_nor_server(folder):
    """In an empty folder a question is answered, with model, tokens, cost and time below the answer."""
    done = run(folder, "chat", "Good morning")

    assert done.returncode == 0
    assert "synthetic" in done.stdout
    assert done.stdout.endswith("Good morning\n")
    assert done.stderr.startswith("sandbox/chat | ")
    assert " in, " in done.stderr
    assert " out | $0 | " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("words", [["chat"], ["chat", "-"]])
def test_the_prompt_may_come_from_standard_input(folder, words):
    """Without a prompt, or with a dash, standard input is the prompt."""
    assert run(folder, *words, stdin="Grüß Gott").stdout.endswith("Grüß Gott\n")


def test_chat_for_programs(folder, vendor):
    """`chat --json` prints one object with the text, who wrote it, the tokens and the exact cost."""
    configure(folder, vendor)
    vendor.go_on.set()

    done = run(folder, "chat", "--json", "-m", "best", "--system", "Be brief.", "Hi")

    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["text"] == "Hello world"
    assert (document["provider"], document["model"]) == ("second", "m")
    assert document["finish_reason"] == "stop"
    assert document["usage"]["input_tokens"] == 12
    assert document["usage"]["output_tokens"] == 3
    assert document["usage"]["total_tokens"] == 15
    assert document["cost_usd"] == 0.0000036
    ((path, authorization, body),) = vendor.seen
    assert (path, authorization) == ("/v1/chat/completions", "Bearer sk-geheim")
    assert [(message["role"], message["content"]) for message in body["messages"]] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]


def test_chat_shows_the_answer_as_it_comes(folder, vendor):
    """The first words are on the terminal while the vendor still writes; an unknown cost is called unknown."""
    configure(folder, vendor)
    with subprocess.Popen(
        [COMMAND, "chat", "-m", "second/unpriced", "Hi"],
        cwd=folder,
        env=clean(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.read(5) == b"Hello"
        assert process.poll() is None
        vendor.go_on.set()
        rest, below = process.communicate(timeout=30)

    assert rest == b" world\n"
    assert below.startswith(b"second/unpriced | 12 in, 3 out | cost unknown | ")
    assert process.returncode == 0


def test_chat_can_be_interrupted(folder, vendor):
    """An interrupt in the middle of an answer ends the command at once, without a traceback."""
    configure(folder, vendor)
    with subprocess.Popen(
        [COMMAND, "chat", "-m", "second/m", "Hi"],
        cwd=folder,
        env=clean(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.read(5) == b"Hello"
        process.send_signal(signal.SIGINT)
        rest, below = process.communicate(timeout=10)

    assert (process.returncode, rest) == (1, b"\n")
    assert below.strip() == b"Aborted!"


def test_serve_runs_until_it_is_interrupted(folder):
    """`serve` says where it listens, answers there with the flags it was given, and ends well when told to."""
    with subprocess.Popen(
        [COMMAND, "serve", "--port", "0", "--data-dir", "here"],
        cwd=folder,
        env=clean(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        with urllib.request.urlopen(f"{url}/healthz", timeout=10) as reply:
            assert reply.status == 200
        process.send_signal(signal.SIGINT)
        _, below = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "Traceback" not in below
    assert "Aborted" not in below
    assert (folder / "here").is_dir()


def test_serve_opens_to_others_only_with_a_key(folder):
    """On an address that others can reach, `serve` refuses to start without a key and names the remedy."""
    done = run(folder, "serve", "--host", "0.0.0.0", "--port", "0")

    assert (done.returncode, done.stdout) == (2, "")
    assert "LLM_GATE_API_KEY" in done.stderr


def test_a_refusal_is_one_line_without_the_credential(folder, vendor):
    """What the vendor refuses is told in one line, exit code 1, and its echo of the key is not repeated."""
    configure(folder, vendor)
    vendor.status = 401

    done = run(folder, "chat", "-m", "second/m", "Hi")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("llm-gate: ")
    assert len(done.stderr.splitlines()) == 1
    assert "second" in done.stderr
    assert "geheim" not in done.stderr


def test_a_cut_answer_is_no_success(folder, vendor):
    """An answer that breaks off is shown as far as it came, and then called broken."""
    configure(folder, vendor)
    vendor.cut = True
    vendor.go_on.set()

    done = run(folder, "chat", "-m", "second/m", "Hi")

    assert (done.returncode, done.stdout) == (1, "Hello\n")
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_model_fails(folder):
    """A model that nobody offers is named in one line, exit code 1."""
    done = run(folder, "chat", "-m", "no-such-model", "Hi")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "llm-gate: model 'no-such-model' is not known here\n"


def test_models_of_usable_providers_are_listed_with_prices(folder, vendor):
    """Only what can be used is listed, with window and prices for a million tokens; --all lists the rest too."""
    configure(folder, vendor)

    lines = run(folder, "models", "--provider", "second").stdout.splitlines()

    assert [line.split() for line in lines] == [
        ["NAME", "OPERATIONS", "CONTEXT", "IN", "$/1M", "OUT", "$/1M"],
        ["second/m", "chat", "4,096", "0.15", "0.6"],
        ["second/unpriced", "chat", "-", "-", "-"],
    ]
    usable = json.loads(run(folder, "models", "--json").stdout)
    assert {row["provider"] for row in usable} == {"second", "sandbox"}
    everything = json.loads(run(folder, "models", "--all", "--json").stdout)
    row = next(row for row in everything if row["name"] == "azure_openai/gpt-4o-mini")
    assert row["enabled"] is False
    assert (row["input_usd_per_million"], row["output_usd_per_million"]) == (0.15, 0.6)


def test_models_of_a_provider_that_lacks_its_key(folder):
    """Asking for the models of a provider without a key says which variable to set; other names work too."""
    done = run(folder, "models", "--provider", "claude")

    assert done.returncode == 0
    assert "set ANTHROPIC_API_KEY" in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_providers_say_what_they_lack(folder, vendor):
    """Every provider is listed; one that cannot be used names the variable that would change that."""
    configure(folder, vendor)

    rows = {row["name"]: row for row in json.loads(run(folder, "providers", "--json").stdout)}

    assert (rows["second"]["enabled"], rows["second"]["hint"]) == (True, None)
    assert rows["openai"]["enabled"] is False
    assert rows["openai"]["hint"] == "set OPENAI_API_KEY"
    without = run(folder, "providers", "--no-env-file").stdout
    assert "set SECOND_API_KEY" in without
    assert "sk-geheim" not in without


def test_check_says_ok_and_what_it_read(folder, vendor):
    """A sound configuration is called ok, with the files that were read and the usable providers."""
    configure(folder, vendor)

    done = run(folder, "check")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "ok",
        "files read: llm-gate.toml, .env",
        "providers usable: sandbox, second",
        "aliases: best",
    ]
    assert json.loads(run(folder, "check", "--json").stdout) == {
        "ok": True,
        "files": ["llm-gate.toml", ".env"],
        "providers": ["sandbox", "second"],
        "warnings": [],
    }


def test_check_warns_of_variables_for_nobody(folder):
    """A variable for a provider that does not exist has no effect, which is said, but is no fault."""
    (folder / ".env").write_text("LLM_GATE_CLAUDE_MODEL=x\n", encoding="utf-8")

    done = run(folder, "check", LLM_GATE_OPNAI_BASE_URL="http://x/v1", LLM_GATE_OPENAI_MODEL="x")

    assert done.returncode == 0
    assert done.stdout.splitlines()[3:] == [
        "warning: .env:1: LLM_GATE_CLAUDE_MODEL: no provider is called 'claude': write LLM_GATE_ANTHROPIC_MODEL",
        "warning: environment: LLM_GATE_OPNAI_BASE_URL: no provider is called 'opnai'",
    ]
    assert json.loads(run(folder, "check", "--json", LLM_GATE_NONE_MODEL="x").stdout)["warnings"][1] == {
        "file": "environment",
        "line": None,
        "key": "LLM_GATE_NONE_MODEL",
        "message": "no provider is called 'none'",
    }


def test_check_names_every_fault_of_the_file(folder):
    """Faults of types come with file, line and key, all in one run, and exit code 2."""
    (folder / "gate.toml").write_text(
        '[server]\nport = "x"\n\n[providers.second]\ndialect = "openai"\n[[providers.second.models]]\nnaem = "m"\n',
        encoding="utf-8",
    )

    done = run(folder, "check", "--config", "gate.toml", HTTPX_CLIENT_VERIFY="maybe")

    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "llm-gate: the configuration has 5 faults:",
        "gate.toml:2: server.port: expected `int`, got `str`",
        "gate.toml:4: providers.second.base_url: required field is missing",
        "gate.toml:6: providers.second.models[0].name: required field is missing",
        "gate.toml:7: providers.second.models[0].naem: unknown field",
        "environment: HTTPX_CLIENT_VERIFY: expected True or False",
    ]


def test_check_places_what_only_the_catalog_knows(folder, vendor):
    """Faults in the meaning of providers, prices and aliases are placed in the file too."""
    configure(folder, vendor)
    file = folder / "llm-gate.toml"
    text = file.read_text(encoding="utf-8").replace('"0.60"', '"cheap"').replace('"second/m"', '"thrid/m"')
    file.write_text(text, encoding="utf-8")

    done = run(folder, "check", "--json")

    assert done.returncode == 2
    assert json.loads(done.stdout) == {
        "ok": False,
        "faults": [
            {
                "file": "llm-gate.toml",
                "line": 10,
                "key": "providers.second.models[0].prices[1].usd",
                "message": "'cheap' is not a plain, non-negative decimal amount",
            },
            {
                "file": "llm-gate.toml",
                "line": 16,
                "key": "aliases.best.targets[0]",
                "message": "there is no provider 'thrid'",
            },
        ],
    }


PORT = ('[server]\nport = "x"\n', "server.port: expected `int`, got `str`")
TYPE = (
    '[providers.typed]\ndialect = "openai"\nbase_url = 7\n',
    "providers.typed.base_url: expected `str | null`, got `int`",
)
DIALECT = (
    '[providers.strange]\ndialect = "klingon"\nbase_url = "http://127.0.0.1/v1"\n',
    "providers.strange.dialect: 'klingon' is none of anthropic, cohere, gemini, ollama, openai",
)
MODULE = (
    '[providers.own]\nmodule = "nobody"\nbase_url = "http://127.0.0.1/v1"\n',
    "providers.own.module: there is no provider module 'nobody'",
)
ADDRESS = (
    '[providers.lost]\ndialect = "openai"\nbase_url = "http://127.0.0.1:port"\n',
    "providers.lost.base_url: must be an http(s) address without user name or query",
)
PRICE = (
    (
        '[providers.dear]\ndialect = "openai"\nbase_url = "http://127.0.0.1/v1"\n'
        '[[providers.dear.models]]\nname = "d"\nprices = [ { unit = "input_tokens", usd = "cheap" } ]\n'
    ),
    "providers.dear.models[0].prices[0].usd: 'cheap' is not a plain, non-negative decimal amount",
)
ALIAS = ('[aliases.best]\ntargets = ["nobody/m"]\n', "aliases.best.targets[0]: there is no provider 'nobody'")
LEVEL = ('[logging.providers]\nnobody = "INFO"\n', "logging.providers.nobody: no provider is called 'nobody'")
KINDS = [PORT, TYPE, DIALECT, MODULE, ADDRESS, PRICE, ALIAS, LEVEL]


@pytest.mark.parametrize("hidden", KINDS[1:], ids=lambda kind: kind[1].partition(":")[0])
def test_no_stage_of_the_check_hides_another(folder, hidden):
    """A fault of each kind is named beside every other kind, with its line, and beside faulty variables."""
    others = [kind for kind in KINDS if kind is not hidden]
    (folder / "llm-gate.toml").write_text(hidden[0] + "".join(text for text, _ in others), encoding="utf-8")

    done = run(
        folder,
        "check",
        GPT_PROVIDER="nobody",
        LLM_GATE_OPENAI_BASE_URL="http://[::1",
        HTTPX_CLIENT_VERIFY="maybe",
    )

    lines = done.stdout.splitlines()
    assert done.returncode == 2
    assert lines[0] == "llm-gate: the configuration has 11 faults:"
    assert sorted(re.sub(r"^llm-gate\.toml:\d+: ", "", line) for line in lines[1:]) == sorted(
        [
            *(message for _, message in KINDS),
            "environment: GPT_PROVIDER: no provider is called 'nobody'",
            "environment: HTTPX_CLIENT_VERIFY: expected True or False",
            "environment: LLM_GATE_OPENAI_BASE_URL: must be an http(s) address without user name or query",
        ]
    )
    numbers = [int(line.split(":")[1]) for line in lines if line.startswith("llm-gate.toml:")]
    assert len(numbers) == 8
    assert numbers == sorted(numbers)


def test_a_file_that_is_no_toml_accuses_nobody_else(folder):
    """Beside the broken line only what does not depend on the file is named."""
    (folder / "llm-gate.toml").write_text("[providers.second\n", encoding="utf-8")

    done = run(
        folder, "check", GPT_PROVIDER="second", OPENAI_API_KEY="k", LLM_GATE_OPENAI_BASE_URL="ftp://x/v1"
    )

    assert done.stdout.splitlines()[1:] == [
        "llm-gate.toml:1: expected ']' at the end of a table declaration",
        "environment: LLM_GATE_OPENAI_BASE_URL: must be an http(s) address without user name or query",
    ]


@pytest.mark.parametrize("words", [["chat", "Hi"], ["models"], ["providers"], ["serve"]])
def test_no_command_works_with_a_faulty_configuration(folder, words):
    """Every command that needs the configuration tells its faults on standard error and exits 2."""
    text = "[api]\npath = '/'\n[aliases.x]\ntargets = []\n[aliases.y]\ntargets = ['nobody/m']\n"
    (folder / "llm-gate.toml").write_text(text, encoding="utf-8")

    done = run(folder, *words)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == "llm-gate: the configuration has 3 faults:"
    assert done.stderr.splitlines()[1].startswith("llm-gate.toml:2: api.path: ")
    assert done.stderr.splitlines()[2].startswith("llm-gate.toml:4: aliases.x.targets: ")
    assert done.stderr.splitlines()[3].startswith("llm-gate.toml:6: aliases.y.targets[0]: ")
