"""Runs the real gateway as a user would: the command, in a process, a folder and an environment of its own."""

import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from support.forking import COMMAND, Forked, can_fork, clean_environment

_LISTENS = re.compile(r"listens on (http://\S+)")
_SEVERAL = re.compile(r"^\s*workers\s*=\s*[^1\s]", re.MULTILINE)
_START_TIMEOUT_S = 20.0

NATIVE_HEADERS = {
    "X-Correlation-Id": "7f1c2c1e-6f0e-4b53-9a43-0d4c4a1f5b10",
    "X-User-Id": "someone",
    "client_id": "tests",
}


@dataclass
class RunningGateway:
    """A gateway that listens. `log` grows with what it writes to stderr."""

    url: str
    process: subprocess.Popen | Forked
    ready_after_s: float
    folder: Path
    log: list[str] = field(default_factory=list)

    def logged(self, needle: str, timeout_s: float = 5.0) -> str:
        """Wait for a log line that contains a text, and return it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for line in list(self.log):
                if needle in line:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"no log line contains {needle!r}: {self.log[-20:]}")


PLAIN = "\n[retries]\ntries = 1\nlast_tries = 1\n\n[cooldown]\nfailures = 0\nlongest_wish_s = 0\n"
"""What makes every attempt the only one at its target, and forgets failures: for tests of anything else."""


@contextmanager
def running_gateway(
    environment: Mapping[str, str] = {},
    *,
    toml: str | None = None,
    arguments: tuple[str, ...] = (),
    runner: tuple[str, ...] = (),
    resilient: bool = False,
    installed: bool = False,
) -> Iterator[RunningGateway]:
    """Start a gateway on a free port of 127.0.0.1 and stop it at the end; `runner` is a command that runs it.

    Its file of settings ends with PLAIN, unless the gateway is to be `resilient`, as it is without any. It is forked
    from a process that has loaded the command, unless it is to be the `installed` one, has several workers, or an
    environment that Python reads when it starts.
    """
    with tempfile.TemporaryDirectory() as folder:
        if toml is not None or not resilient:
            text = toml or ""
            text = text if resilient or "[retries]" in text else text.rstrip() + "\n" + PLAIN
            (Path(folder) / "llm-gate.toml").write_text(text, encoding="utf-8")
        started = time.monotonic()
        words = [COMMAND, "serve", "--port", "0", "--data-dir", f"{folder}/data", "--no-env-file", *arguments]
        surroundings = clean_environment(environment)
        if installed or runner or _has_workers(toml, arguments) or not can_fork(surroundings):
            process: subprocess.Popen | Forked = subprocess.Popen(
                [*runner, *words],
                cwd=folder,
                env=surroundings,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        else:
            process = Forked(words, cwd=folder, env=surroundings)
        log: list[str] = []
        reader = threading.Thread(target=lambda: log.extend(iter(process.stderr.readline, "")), daemon=True)
        reader.start()
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        try:
            url = _wait_for_url(process, log)
            drain.start()
            yield RunningGateway(
                url=url,
                process=process,
                ready_after_s=time.monotonic() - started,
                folder=Path(folder),
                log=log,
            )
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reader.join(2)
            if drain.ident is not None:
                drain.join(2)
            process.stdout.close()
            process.stderr.close()


def _has_workers(toml: str | None, arguments: tuple[str, ...]) -> bool:
    asked = dict(pairwise(arguments)).get("--workers", "1")
    return asked != "1" or _SEVERAL.search(toml or "") is not None


def _wait_for_url(process: subprocess.Popen | Forked, log: list[str]) -> str:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        if not line:
            break
        if match := _LISTENS.search(line):
            return match[1]
    raise AssertionError(f"the gateway did not start: {''.join(log)}")
