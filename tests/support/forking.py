"""Runs the `llm-gate` command in processes of its own that need not import everything anew.

A process that has imported the command and nothing else (`support.forking_process`) forks a child for each one. The
child takes over folder, environment, words and standard streams, runs the command's real `main`, and ends as that
does. What a command costs is then its work, and not the second that Python takes to load it. Tests of how the command
starts run the installed one.
"""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

COMMAND = str(Path(sys.executable).parent / "llm-gate")
_FORKS = Path(__file__).with_name("forking_process.py")
_TIMEOUT_S = 60.0
_FIRST_LOOK_S, _LAST_LOOK_S = 0.002, 0.02
_INHERITED = ("PATH", "HOME", "LANG")
_READ_BY_PYTHON = ("PYTHON", "LC_", "LD_", "MALLOC_")
"""What Python and its libraries read only when they start: a process with any of it has to start anew."""


def clean_environment(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """Return an environment without any vendor's key, plus what the test wants."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**kept, **extra}


def can_fork(environment: Mapping[str, str]) -> bool:
    """Return whether a command with this environment is the same forked and started."""
    return os.environ.get("LANG") == environment.get("LANG") and not any(
        name.startswith(_READ_BY_PYTHON) for name in environment
    )


class _Source:
    """The process that forks. Several threads may ask it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wire, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(_FORKS), str(theirs.fileno())],
                cwd="/",
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # An interrupt at the terminal is the tests' own, which end what they started.
                start_new_session=True,
            )
        self._answers = self._wire.makefile("r")

    def ask(self, asked: Mapping[str, object], fds: list[int]) -> int | None:
        """Ask for a child, or for a child's end."""
        with self._lock:
            word = json.dumps(asked).encode() + b"\n"
            sent = socket.send_fds(self._wire, [word], fds)
            self._wire.sendall(word[sent:])
            line = self._answers.readline()
        assert line, "the process that forks commands has ended"
        answer: int | None = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process, and what it forked."""
        self._answers.close()
        self._wire.close()
        self._process.wait(_TIMEOUT_S)


@functools.cache
def _source() -> _Source:
    return _Source()


def close_source() -> None:
    """End the process that forks, if there is one."""
    if _source.cache_info().currsize:
        _source().close()
        _source.cache_clear()


class Forked:
    """A command that was forked, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        words: list[str],
        *,
        cwd: str | Path,
        env: Mapping[str, str],
        stdin: IO | None = None,
        stdout: IO | None = None,
        stderr: IO | None = None,
    ) -> None:
        """Fork the command: without streams, its input is empty and its output comes through pipes."""
        self.returncode: int | None = None
        self._looking = threading.Lock()
        self.stdout, self.stderr = stdout, stderr
        fds = [os.dup(stdin.fileno()) if stdin else os.open(os.devnull, os.O_RDONLY)]
        for name in ("stdout", "stderr"):
            if given := getattr(self, name):
                fds.append(os.dup(given.fileno()))
            else:
                ours, theirs = os.pipe()
                fds.append(theirs)
                setattr(self, name, os.fdopen(ours, encoding="utf-8"))
        asked = {"words": words, "folder": str(cwd), "environment": dict(env)}
        try:
            pid = _source().ask(asked, fds)
        finally:
            for fd in fds:
                os.close(fd)
        assert pid
        self.pid = pid

    def poll(self) -> int | None:
        """Return the exit code, once it has ended."""
        # An exit code is told once, and several threads may look.
        with self._looking:
            if self.returncode is None:
                self.returncode = _source().ask({"pid": self.pid}, [])
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when it has ended."""
        deadline = time.monotonic() + (_TIMEOUT_S if timeout is None else timeout)
        look_s = _FIRST_LOOK_S
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("llm-gate", timeout or _TIMEOUT_S)
            time.sleep(look_s)
            look_s = min(2 * look_s, _LAST_LOOK_S)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def run_command(
    *words: str,
    folder: Path | str,
    environment: Mapping[str, str],
    text: str = "",
    timeout_s: float = _TIMEOUT_S,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a folder and an environment of its own."""
    if not can_fork(environment):
        return subprocess.run(
            [COMMAND, *words],
            cwd=folder,
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as err,
    ):
        said.write(text)
        said.seek(0)
        process = Forked([COMMAND, *words], cwd=folder, env=environment, stdin=said, stdout=out, stderr=err)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([COMMAND, *words], code, out.read(), err.read())
