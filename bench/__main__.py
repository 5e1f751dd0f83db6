"""`make bench`: measures the gateway beside nginx in the same run and prints the table; see docs/performance.md."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import answers
from bench.contenders import (
    HERE,
    SLOW_MODEL,
    STREAM_MODEL,
    WHOLE_MODELS,
    Contender,
    Ring,
    Upstreams,
    import_s,
)
from bench.figures import DIRECT, Row, summarise, table
from bench.processes import (
    NotPossibleError,
    allow_many_files,
    cpu_nanos,
    require_cores,
    require_tools,
    which,
)
from llm_gate import __version__

OUT = HERE / "out.json"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int = 3
    seconds: float = 3.0
    warm_s: float = 1.0
    connections: int = 32
    grown_rows: int = 1_000_000
    grown_keys: int = 20_000
    rate_per_s: int = 200
    rate_seconds: float = 5.0
    chunk_streams: int = 200
    first_event_streams: int = 20
    slow_streams: int = 1000
    slow_ramp_s: float = 4.0


QUICK = Sizes(
    rounds=1,
    seconds=0.5,
    warm_s=0.4,
    rate_seconds=0.5,
    chunk_streams=50,
    slow_streams=100,
    slow_ramp_s=0.4,
    grown_rows=10_000,
    grown_keys=100,
)


class FaultyRunError(Exception):
    """Answers were wrong or missing: a figure that counts them would be a lie."""


class Bench:
    """One run: rounds of phases, in each phase one contender right after the other."""

    def __init__(self, sizes: Sizes, *, core: int, load_core: int, folder: Path) -> None:
        self._sizes = sizes
        self._core = core
        self._load_core = load_core
        self._folder = folder
        self._ring = Ring(folder, core=core, load_core=load_core)

    def run(self) -> list[dict[str, dict[str, float]]]:
        """Return the values of each round."""
        with self._ring.upstreams() as upstreams:
            return [self._round(upstreams, number) for number in range(1, self._sizes.rounds + 1)]

    def _round(self, upstreams: Upstreams, number: int) -> dict[str, dict[str, float]]:
        say(f"round {number} of {self._sizes.rounds}")
        direct = Contender(DIRECT, None, upstreams.whole_port, upstreams.stream_port)
        with ExitStack() as stack:
            nginx = stack.enter_context(self._ring.nginx(upstreams))
            gateway = stack.enter_context(self._ring.gateway(upstreams))
            values: dict[str, dict[str, float]] = {DIRECT: {}}
            for one in (nginx, gateway):
                values[one.name] = {"start": one.start_s, "rss_idle": float(one.idle_rss_bytes)}
            for surface in WHOLE_MODELS:
                for one in (nginx, gateway) if surface == "openai" else (gateway,):
                    values[one.name] |= self._unary(one, surface)
            for phase in (self._latency, self._first_event):
                for one in (direct, nginx, gateway):
                    values[one.name] |= phase(one)
            for phase in (self._chunks, self._slow):
                for one in (nginx, gateway):
                    values[one.name] |= phase(one)
        values[gateway.name] |= self._ledger(upstreams) | self._cache(upstreams)
        values[gateway.name] |= {
            "import": import_s("llm_gate", self._core),
            "import_serve": import_s("llm_gate.cli", self._core),
        }
        return values

    def _ledger(self, upstreams: Upstreams) -> dict[str, float]:
        """Compare the gateway with one that has no ledger, one that has no attempts engine either, and a full one."""
        sizes = self._sizes
        with ExitStack() as stack:
            bare = stack.enter_context(self._ring.unrecorded(upstreams))
            straight = stack.enter_context(self._ring.direct(upstreams))
            gateway = stack.enter_context(self._ring.gateway(upstreams, name="fresh"))
            grown = stack.enter_context(
                self._ring.gateway(upstreams, name="grown", rows=sizes.grown_rows, keys=sizes.grown_keys)
            )
            seen = {one.name: self._unary(one, "openai") for one in (straight, bare, gateway, grown)}
        fresh, without = seen["fresh"], seen["unrecorded"]
        return {
            "unrecorded": without["openai"],
            "engine": without["openai"] - seen["direct"]["openai"],
            "ledger_cpu": fresh["openai"] / without["openai"],
            "ledger_kept": fresh["per_second"] / without["per_second"],
            "growth": seen["grown"]["openai"] / fresh["openai"],
        }

    def _cache(self, upstreams: Upstreams) -> dict[str, float]:
        """Compare an exact hit with a miss on the same route, both of a gateway that keeps answers."""
        with self._ring.caching(upstreams) as gateway:
            miss = self._unary(gateway, "openai", varied=True)["openai"]
            hit = self._unary(gateway, "openai")["openai"]
        return {"hit": hit, "hit_share": hit / miss}

    def _unary(self, contender: Contender, surface: str, *, varied: bool = False) -> dict[str, float]:
        body = self._folder / f"{surface}.json"
        body.write_bytes(answers.request_body(WHOLE_MODELS[surface], varied=varied))
        self._wrk(contender, body, self._sizes.warm_s, varied=varied)
        before = _cpu(contender)
        seen = self._wrk(contender, body, self._sizes.seconds, varied=varied)
        nanos = _cpu(contender) - before
        values = {surface: nanos / seen["answers"]}
        if surface == "openai":
            values["per_second"] = seen["answers"] / seen["seconds"]
        say(f"  {contender.name:8} {surface:12} {nanos / seen['answers'] / 1000:7.1f} µs")
        return values

    def _wrk(
        self, contender: Contender, body: Path, seconds: float, *, varied: bool = False
    ) -> dict[str, float]:
        # wrk takes whole seconds only, so its end is brought about by a signal, which makes it report.
        command = ["timeout", "--signal=INT", str(seconds), *self._on_load_core(str(which("wrk")))]
        command += ["-t1", f"-c{self._sizes.connections}", "-d600s", "-s", str(HERE / "wrk.lua")]
        command += [f"http://127.0.0.1:{contender.whole_port}/v1/chat/completions"]
        environment = {**os.environ, "BENCH_BODY": str(body), "BENCH_KEY": contender.key}
        if varied:
            environment["BENCH_VARIED"] = "1"
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        return _checked(json.loads(done.stdout.rstrip().rpartition("\n")[2]), contender)

    def _latency(self, contender: Contender) -> dict[str, float]:
        rate = str(self._sizes.rate_per_s)
        model = WHOLE_MODELS["openai"]
        seen = self._load(contender, "--rate", rate, "--model", model, seconds=self._sizes.rate_seconds)
        say(f"  {contender.name:8} at {rate}/s     {seen['answer_p50_s'] * 1000:7.2f} ms")
        return {"latency_p50": seen["answer_p50_s"], "latency_p99": seen["answer_p99_s"]}

    def _first_event(self, contender: Contender) -> dict[str, float]:
        seen = self._streams(contender, STREAM_MODEL, self._sizes.first_event_streams, ramp_s=0.6)
        say(f"  {contender.name:8} first event  {seen['first_event_p50_s'] * 1000:7.2f} ms")
        return {"first_event": seen["first_event_p50_s"]}

    def _chunks(self, contender: Contender) -> dict[str, float]:
        seen = self._streams(contender, STREAM_MODEL, self._sizes.chunk_streams, ramp_s=0.6)
        say(f"  {contender.name:8} chunk        {seen['cpu_nanos'] / seen['events'] / 1000:7.1f} µs")
        return {
            "chunk": seen["cpu_nanos"] / seen["events"],
            "chunks_per_second": seen["events"] / seen["seconds"],
        }

    def _slow(self, contender: Contender) -> dict[str, float]:
        number, ramp_s = self._sizes.slow_streams, self._sizes.slow_ramp_s
        seen = self._streams(contender, SLOW_MODEL, number, ramp_s=ramp_s)
        if seen["running"] != number:
            raise FaultyRunError(f"{contender.name}: only {seen['running']} of {number} streams are running")
        say(f"  {contender.name:8} {number} streams {seen['rss_bytes'] / 1e6:6.0f} MB")
        return {"rss_streams": float(seen["rss_bytes"])}

    def _streams(self, contender: Contender, model: str, number: int, *, ramp_s: float) -> dict[str, Any]:
        arguments = ["--streams", str(number), "--ramp", str(ramp_s), "--model", contender.prefix + model]
        return self._load(contender, *arguments, seconds=self._sizes.seconds, ramp_s=ramp_s)

    def _load(
        self, contender: Contender, *arguments: str, seconds: float, ramp_s: float = 0.0
    ) -> dict[str, Any]:
        port = contender.stream_port if "--streams" in arguments else contender.whole_port
        command = [
            *self._on_load_core(sys.executable),
            "-m",
            "bench.load",
            "--port",
            str(port),
            "--key",
            contender.key,
        ]
        command += ["--warm", str(ramp_s + self._sizes.warm_s), "--seconds", str(seconds), *arguments]
        if contender.pid is not None:
            command += ["--watch", str(contender.pid)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return _checked(json.loads(done.stdout), contender)

    def _on_load_core(self, program: str) -> list[str]:
        return ["taskset", "-c", str(self._load_core), program]


def _cpu(contender: Contender) -> int:
    return 0 if contender.pid is None else cpu_nanos(contender.pid)


def _checked(seen: dict[str, Any], contender: Contender) -> dict[str, Any]:
    if seen["faults"] or not (seen["answers"] or seen.get("running")):
        raise FaultyRunError(f"{contender.name}: {seen['faults']} faults in {seen['answers']} answers")
    return seen


def say(text: str) -> None:
    """Tell how far the run is."""
    print(text, flush=True)


def versions() -> dict[str, str]:
    """Return what was measured, with what, on what."""
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in cpus if line.startswith("model name")), "")
    return {
        "llm-gate": __version__,
        "python": platform.python_version(),
        "nginx": _first_line([str(which("nginx")), "-v"]).rpartition("/")[2],
        "wrk": _first_line([str(which("wrk")), "-v"]).partition(" [")[0].removeprefix("wrk "),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "cpu": f"{os.cpu_count()} x {model or platform.machine()}",
    }


def _first_line(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines()[0]


def report(rows: Sequence[Row], facts: dict[str, str], at: datetime) -> str:
    """Write the table with the date and the versions above it."""
    said = ", ".join(f"{name} {value}" for name, value in facts.items())
    return f"\n{at:%Y-%m-%d %H:%M} UTC; {said}\n\n{table(rows)}\n"


def main() -> int:
    """Measure, print, write bench/out.json."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run of some seconds; its figures mean little"
    )
    parser.add_argument("--rounds", type=int, help="how many rounds; 3 by default")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures are written as JSON")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.rounds is not None:
        sizes = Sizes(**{**asdict(sizes), "rounds": arguments.rounds})
    try:
        core, load_core = require_cores()
        require_tools()
        allow_many_files()
        os.sched_setaffinity(0, {load_core})
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(sizes, core=core, load_core=load_core, folder=Path(folder))
            rounds = bench.run()
    except (NotPossibleError, FaultyRunError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    at, facts, rows = datetime.now(UTC), versions(), summarise(rounds)
    document = {
        "at": at.isoformat(timespec="seconds"),
        "versions": facts,
        "sizes": asdict(sizes),
        "figures": {
            row.figure.name: {"nginx": row.reference, "gateway": row.subject, "ratio": row.ratio}
            for row in rows
        },
        "rounds": rounds,
    }
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    say(report(rows, facts, at))
    return 0


if __name__ == "__main__":
    sys.exit(main())
