"""What stands in the ring: two upstreams on the load's core, nginx and the gateway on the other."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import answers
from bench.grown import prepare_store
from bench.processes import free_port, rss_bytes, start, stop, wait_ready, which

HERE = Path(__file__).parent
KEY = "sk-bench"
PAUSES_MS = {"stream": 10, "slow": 1000}
STREAM_CHUNKS = 64
SLOW_CHUNKS = 600
STREAM_MODEL = f"stream-{STREAM_CHUNKS}-{PAUSES_MS['stream']}"
SLOW_MODEL = f"stream-{SLOW_CHUNKS}-{PAUSES_MS['slow']}"
WHOLE_MODELS = {
    "openai": f"openai/{answers.MODEL}",
    "gemini": "gemini/gemini-2.5-flash",
    "anthropic": "anthropic/claude-haiku-4-5",
}

_PLANS = """
[plans]
default = "bench"

[plans.custom.bench]
limits = { monthly_cost_usd = 1_000_000, text_calls = 1_000_000_000, requests_per_minute = 1_000_000_000 }
"""

_CACHE = """
[cache]
exact = true
"""


@dataclass(frozen=True)
class Upstreams:
    """The ports of the upstreams: one for whole answers, one for streams."""

    whole_port: int
    stream_port: int


@dataclass(frozen=True)
class Contender:
    """Something to measure; `prefix` goes before the name of a streamed model."""

    name: str
    pid: int | None
    whole_port: int
    stream_port: int
    prefix: str = ""
    key: str = KEY
    start_s: float = 0.0
    idle_rss_bytes: int = 0


class Ring:
    """Starts upstreams and contenders, each on its core; files and logs go to `folder`."""

    def __init__(self, folder: Path, *, core: int, load_core: int) -> None:
        self._folder = folder
        self._core = core
        self._load_core = load_core

    @contextmanager
    def upstreams(self) -> Iterator[Upstreams]:
        """Run both upstreams."""
        folder, whole_port, stream_port = self._folder, free_port(), free_port()
        values = {name: getattr(answers, name).decode() for name in ("OPENAI", "ANTHROPIC", "GEMINI")}
        config = self._fill("nginx_upstream.conf", PORT=whole_port, **values)
        commands = (
            ([str(which("nginx")), "-c", str(config)], whole_port, "/healthz"),
            ([sys.executable, "-m", "bench.upstream", "--port", str(stream_port)], stream_port, None),
        )
        with ExitStack() as stack:
            for command, port, path in commands:
                log = folder / "upstreams.log"
                process = start(command, self._load_core, environment=dict(os.environ), log=log)
                stack.callback(stop, process)
                if path is not None:
                    wait_ready(process, port, path, log)
            yield Upstreams(whole_port=whole_port, stream_port=stream_port)

    @contextmanager
    def nginx(self, upstreams: Upstreams) -> Iterator[Contender]:
        """Run the reference."""
        ports = {"PORT": free_port(), "STREAM_PORT": free_port()}
        config = self._fill("nginx_proxy.conf", **ports, **_addresses(upstreams))
        command = [str(which("nginx")), "-c", str(config)]
        with self._measured(command, ports["PORT"], dict(os.environ)) as (pid, start_s, rss):
            yield Contender(
                name="nginx",
                pid=pid,
                whole_port=ports["PORT"],
                stream_port=ports["STREAM_PORT"],
                start_s=start_s,
                idle_rss_bytes=rss,
            )

    @contextmanager
    def gateway(
        self, upstreams: Upstreams, *, name: str = "gateway", rows: int = 0, keys: int = 0
    ) -> Iterator[Contender]:
        """Run the gateway: every caller has a key and a plan with three quotas, and every call is in the ledger.

        `rows` usage records and `keys` keys are in its store before.
        """
        data = self._folder / name
        key = prepare_store(data, rows=rows, keys=keys)
        command = [str(Path(sys.executable).parent / "llm-gate"), "serve", "--no-env-file"]
        with self._gateway(upstreams, command, data=data, key=key, plans=_PLANS) as contender:
            yield replace(contender, name=name)

    @contextmanager
    def caching(self, upstreams: Upstreams) -> Iterator[Contender]:
        """Run the gateway as `gateway` does, with answers kept for who asks the same."""
        data = self._folder / "caching"
        key = prepare_store(data, rows=0, keys=0)
        command = [str(Path(sys.executable).parent / "llm-gate"), "serve", "--no-env-file"]
        with self._gateway(upstreams, command, data=data, key=key, plans=_PLANS + _CACHE) as contender:
            yield replace(contender, name="caching")

    @contextmanager
    def unrecorded(self, upstreams: Upstreams) -> Iterator[Contender]:
        """Run the gateway without a ledger, behind the operator's one key."""
        data = self._folder / "unrecorded"
        command = [sys.executable, "-m", "bench.unrecorded"]
        with self._gateway(upstreams, command, data=data, key=KEY, plans="") as contender:
            yield replace(contender, name="unrecorded")

    @contextmanager
    def direct(self, upstreams: Upstreams) -> Iterator[Contender]:
        """Run the gateway without a ledger and without the attempts engine, behind the operator's one key."""
        data = self._folder / "direct"
        command = [sys.executable, "-m", "bench.direct"]
        with self._gateway(upstreams, command, data=data, key=KEY, plans="") as contender:
            yield replace(contender, name="direct")

    @contextmanager
    def _gateway(
        self, upstreams: Upstreams, command: list[str], *, data: Path, key: str, plans: str
    ) -> Iterator[Contender]:
        port = free_port()
        models = "\n".join(_priced_model(name) for name in (STREAM_MODEL, SLOW_MODEL))
        values = {**_addresses(upstreams), "STREAM_MODELS": models, "PLANS": plans}
        # A file of its own: whoever runs already follows theirs.
        config = self._fill("gateway.toml", into=f"{data.name}.toml", PORT=port, **values)
        command += ["--config", str(config), "--data-dir", str(data)]
        keys = ("LLM_GATE_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "BENCH_KEY")
        environment = {"PATH": os.environ["PATH"], **dict.fromkeys(keys, KEY)}
        with self._measured(command, port, environment) as (pid, start_s, rss):
            yield Contender(
                name="gateway",
                pid=pid,
                whole_port=port,
                stream_port=port,
                key=key,
                prefix="streamed/",
                start_s=start_s,
                idle_rss_bytes=rss,
            )

    @contextmanager
    def _measured(
        self, command: list[str], port: int, environment: Mapping[str, str]
    ) -> Iterator[tuple[int, float, int]]:
        log = self._folder / f"{Path(command[0]).name}.log"
        started_s = time.perf_counter()
        process = start(command, self._core, environment=environment, log=log)
        try:
            wait_ready(process, port, "/healthz", log)
            start_s = time.perf_counter() - started_s
            time.sleep(0.3)
            yield process.pid, start_s, rss_bytes(process.pid)
        finally:
            stop(process)

    def _fill(self, template: str, *, into: str | None = None, **values: object) -> Path:
        text = (HERE / template).read_text(encoding="utf-8")
        for name, value in {"FOLDER": self._folder, **values}.items():
            text = text.replace(f"@{name}@", str(value))
        path = self._folder / (into or template)
        path.write_text(text, encoding="utf-8")
        return path


def _addresses(upstreams: Upstreams) -> dict[str, int]:
    return {"WHOLE_UPSTREAM": upstreams.whole_port, "STREAM_UPSTREAM": upstreams.stream_port}


def _priced_model(name: str) -> str:
    prices = ", ".join(
        f'{{ unit = "{unit}", per = 1_000_000, usd = "{usd}" }}'
        for unit, usd in (
            ("input_tokens", "0.15"),
            ("cached_input_tokens", "0.075"),
            ("output_tokens", "0.60"),
        )
    )
    return f'[[providers.streamed.models]]\nname = "{name}"\nprices = [{prices}]\n'


def import_s(module: str, core: int) -> float:
    """Return how long a fresh interpreter takes to import a module."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    command = ["taskset", "-c", str(core), sys.executable, "-c", code]
    # Compiled once and kept, as an installed package is.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    seen_s = [
        float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
        for _ in range(3)
    ]
    return min(seen_s)
