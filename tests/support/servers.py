"""Real PostgreSQL and Redis servers for tests: those that are there, or private ones from the installed programs.

Tests of stores run against what answers at 127.0.0.1 (or LLM_GATE_TEST_DATABASE_URL, LLM_GATE_TEST_REDIS_URL). Where
nothing does, the first test that asks starts a private server, which the whole run then shares; as root, missing
programs are installed from the distribution's packages. Tests that stop or kill a server always start their own.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_WAIT_S = 30.0
_LOOK_S = 0.05
_USER = "postgres"
_POSTGRESQL_PROGRAMS = "/usr/lib/postgresql"
_SETTINGS = (
    "unix_socket_directories=''",
    "listen_addresses=127.0.0.1",
    "shared_buffers=32MB",
)
_USUAL_POSTGRESQL = f"postgresql://{_USER}@127.0.0.1:5432/postgres"
_USUAL_REDIS = "redis://127.0.0.1:6379/0"
DATABASE_VARIABLE, REDIS_VARIABLE = "LLM_GATE_TEST_DATABASE_URL", "LLM_GATE_TEST_REDIS_URL"

RUN_VARIABLE = "LLM_GATE_TEST_RUN"
"""Names the run to all of its processes; set where it begins."""

_STARTED: list[subprocess.Popen] = []
"""Held, because Python complains of processes that nobody remembers while they run."""


class NoServer(Exception):
    """No server answers, and none can be started; the message says what to do."""


@dataclass
class PrivatePostgresql:
    """A server of one's own. It keeps its port and its data over `stop` and `start`."""

    folder: Path
    port: int
    most_connections: int = 300

    @property
    def url(self) -> str:
        """The address of its first database."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """The process that all others of the server come from."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        own = (f"port={self.port}", f"max_connections={self.most_connections}")
        options = " ".join(f"-c {each}" for each in (*_SETTINGS, *own))
        log = str(self.folder / "log")
        _as_owner([_program("pg_ctl"), "-D", self._data, "-l", log, "-w", "-o", options, "start"])

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: "immediate" as by a crash, "fast" in order."""
        _as_owner([_program("pg_ctl"), "-D", self._data, "-m", mode, "-w", "stop"])

    def freeze(self) -> None:
        """Halt all its processes (SIGSTOP), so that connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        pids = subprocess.run(
            ["/usr/bin/pgrep", "-P", str(self.pid)], capture_output=True, text=True, check=False
        )
        for pid in (self.pid, *map(int, pids.stdout.split())):
            # Some of them come and go.
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")


@contextmanager
def private_postgresql(most_connections: int = 300) -> Iterator[PrivatePostgresql]:
    """Run a PostgreSQL server of one's own, in a folder that is deleted in the end."""
    server = _make_postgresql(most_connections)
    try:
        yield server
    finally:
        _end_postgresql(server.folder)


def _make_postgresql(most_connections: int = 300) -> PrivatePostgresql:
    initdb = _program("initdb")
    folder = Path(tempfile.mkdtemp(prefix="llm-gate-postgresql-"))
    if os.geteuid() == 0:
        shutil.chown(folder, _USER)
    server = PrivatePostgresql(folder, _free_port(), most_connections)
    _as_owner([initdb, "-D", str(folder / "data"), "-A", "trust", "-U", _USER, "--no-sync", "-E", "UTF8"])
    server.start()
    return server


def _end_postgresql(folder: Path) -> None:
    server = PrivatePostgresql(folder, 0)
    if (folder / "data" / "postmaster.pid").exists():
        server.thaw()
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class PrivateRedis:
    """A server of one's own."""

    process: subprocess.Popen
    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def freeze(self) -> None:
        """Halt it (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as by a crash."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it anew on its port, empty, after `kill`."""
        self.process = _start_redis(self.port)


@contextmanager
def private_redis() -> Iterator[PrivateRedis]:
    """Run a Redis server of one's own, which keeps nothing on disk."""
    port = _free_port()
    server = PrivateRedis(_start_redis(port), port)
    try:
        yield server
    finally:
        server.kill()


def _start_redis(port: int) -> subprocess.Popen:
    command = [_program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir())
    _wait_for(lambda: _answers("127.0.0.1", port), "redis-server did not start")
    return process


def postgresql_url() -> str:
    """Return the address of a PostgreSQL server for tests; as often as asked, the same one.

    Raises:
        NoServer: none answers, and none can be started.
    """
    return _shared(DATABASE_VARIABLE, _USUAL_POSTGRESQL, _share_postgresql)


def redis_url() -> str:
    """Return the address of a Redis server for tests; as often as asked, the same one.

    Raises:
        NoServer: none answers, and none can be started.
    """
    return _shared(REDIS_VARIABLE, _USUAL_REDIS, _share_redis)


def stop_shared_servers() -> None:
    """End the private servers this run has started for all of its tests."""
    folder = _run_folder()
    for note in folder.glob("*.json"):
        started = json.loads(note.read_text(encoding="utf-8"))
        if "folder" in started:
            _end_postgresql(Path(started["folder"]))
        else:
            os.kill(started["pid"], signal.SIGTERM)
            port = urlsplit(started["url"]).port
            _wait_for(lambda port=port: not _answers("127.0.0.1", port), "redis-server did not stop")
    shutil.rmtree(folder, ignore_errors=True)


def _run_folder() -> Path:
    """Return the folder in which the processes of one test run tell each other what they started."""
    return Path(tempfile.gettempdir()) / f"llm-gate-servers-{os.environ[RUN_VARIABLE]}"


def _shared(variable: str, usual: str, start: Callable[[], dict[str, object]]) -> str:
    url = os.environ.get(variable)
    if url is not None:
        return url
    parts = urlsplit(usual)
    if _answers(parts.hostname, parts.port):
        return usual
    folder = _run_folder()
    folder.mkdir(exist_ok=True)
    note = folder / f"{variable}.json"
    with (folder / f"{variable}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not note.exists():
            note.write_text(json.dumps(start()), encoding="utf-8")
        return json.loads(note.read_text(encoding="utf-8"))["url"]


def _share_postgresql() -> dict[str, object]:
    server = _make_postgresql()
    return {"url": server.url, "folder": str(server.folder)}


def _share_redis() -> dict[str, object]:
    port = _free_port()
    process = _start_redis(port)
    _STARTED.append(process)
    return {"url": f"redis://127.0.0.1:{port}/0", "pid": process.pid}


def _program(name: str) -> str:
    """Return the path of a server's program; root installs the package where it is missing."""
    found = _find(name)
    if found is None and os.geteuid() == 0 and (installer := shutil.which("apt-get")):
        package = "redis-server" if name == "redis-server" else "postgresql"
        subprocess.run([installer, "install", "-y", "-qq", package], check=False, stdout=subprocess.DEVNULL)
        found = _find(name)
    if found is None:
        raise NoServer(
            f"no server answers on 127.0.0.1, and the program {name!r} is not installed: install PostgreSQL and "
            f"Redis, or set {DATABASE_VARIABLE} and {REDIS_VARIABLE} to servers that tests may use"
        )
    return found


def _find(name: str) -> str | None:
    places = sorted(Path(_POSTGRESQL_PROGRAMS).glob(f"*/bin/{name}"))
    return str(places[-1]) if places else shutil.which(name)


def _as_owner(command: list[str]) -> None:
    """Run a command of PostgreSQL, which refuses to be run by root."""
    if os.geteuid() == 0:
        command = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--init-groups", *command]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if "initdb" in " ".join(command) else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tempfile.gettempdir(),
        check=False,
    )
    if done.returncode != 0:
        raise NoServer(f"{' '.join(command)} failed: {done.stdout}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _wait_for(is_there: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not is_there():
        if time.monotonic() > deadline:
            raise NoServer(complaint)
        time.sleep(_LOOK_S)
