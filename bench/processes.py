"""Processes of a run: pinned to a core, started, watched in /proc, and ended by their own id."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STOP_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 30.0
_POLL_S = 0.001
_PACKAGES = {"nginx": "nginx", "wrk": "wrk"}


class NotPossibleError(Exception):
    """The benchmark cannot run here; the text says why and what to do."""


def require_tools() -> None:
    """See to it that nginx and wrk are there; root on a Debian gets them installed.

    Raises:
        NotPossibleError: they are missing.
    """
    missing = [package for command, package in _PACKAGES.items() if which(command) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotPossibleError(
            f"{' and '.join(missing)} missing: install with `apt-get install {' '.join(missing)}`"
        )
    print(f"installing {' and '.join(missing)} with apt-get")
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", *command], check=True, env=environment, stdout=subprocess.DEVNULL)  # noqa: S607


def which(command: str) -> str | None:
    """Find a command, also where only root's PATH leads."""
    return shutil.which(command) or shutil.which(command, path="/usr/sbin:/usr/local/sbin")


def require_cores() -> tuple[int, int]:
    """Return the core of what is measured and the core of the load.

    Raises:
        NotPossibleError: this is no Linux, or there is one core only.
    """
    if not Path("/proc/self/stat").exists():
        raise NotPossibleError("the benchmark reads CPU times from /proc: it needs Linux")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:  # noqa: PLR2004 - one for the gateway, one for the load
        raise NotPossibleError("the benchmark needs two cores: one for the gateway, one for the load")
    return cores[0], cores[1]


def allow_many_files() -> None:
    """Raise the limit of open files, for this process and those it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def cpu_nanos(pid: int) -> int:
    """Return the CPU time that a process has used, all threads together."""
    try:
        threads = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
    except FileNotFoundError:
        # A kernel without scheduler statistics: ticks of user and system time, behind the name in brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // _TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(
    command: Sequence[str], core: int, *, environment: Mapping[str, str] | None = None, log: Path
) -> subprocess.Popen[bytes]:
    """Start a process on one core; what it writes goes to a file."""
    with log.open("ab") as out:
        return subprocess.Popen(
            ["taskset", "-c", str(core), *command],  # noqa: S607 - part of every Linux
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and wait for it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_ready(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    """Wait until a GET is answered with 200.

    Raises:
        NotPossibleError: the process ended, or never answered so.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    ask = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(ask)
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(_POLL_S)
    said = log.read_text(errors="replace")[-2000:]
    raise NotPossibleError(f"{process.args!r} did not start:\n{said}")
