"""The embedded store under load on a bad disk: callers are told to come back, nothing is lost, it goes on by itself."""

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_gate.storage.database import FILE_NAME
from support.figures import full, proved
from support.oracle import running_oracle
from support.spending import differences, place_at
from support.storeload import RETURN_S, SETTLE_S, away, check_told, steady_load

ROOM_NANOS = 10**12
AWAY_S = full(0, 8)
ROUNDS = full(1, 5)
AS_OTHERS = ("setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search")
"""Root may write to files that nobody may write to; so started, it may not."""


@contextmanager
def locked(gateway, place):
    """Another process has begun to write, and does not end."""
    other = sqlite3.connect(
        place.folder / FILE_NAME, isolation_level=None, check_same_thread=False, timeout=20
    )
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@contextmanager
def unwritable(gateway, place):
    """No file may grow any more, or be written to at all."""
    _limit_files(gateway, 0)
    yield
    _limit_files(gateway, resource.RLIM_INFINITY)


@contextmanager
def read_only(gateway, place):
    """The files may only be read, which whoever opens them anew finds out."""
    files = [path for path in place.folder.glob(f"{FILE_NAME}*") if not path.name.endswith("-shm")]
    for path in files:
        path.chmod(0o444)
    _limit_files(gateway, 0)
    time.sleep(0.5)
    _limit_files(gateway, resource.RLIM_INFINITY)
    yield
    for path in files:
        if path.exists():
            path.chmod(0o644)


def _limit_files(gateway, most_bytes):
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


def failing(calls, error):
    """Return a fault in which some calls of the system fail, as strace makes them."""

    @contextmanager
    def fault(gateway, place):
        command = ["strace", "-f", "-q", "-o", "/dev/null", "-e", f"trace={calls}"]
        command += ["-e", f"inject={calls}:error={error}", "-p", str(gateway.process.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        yield
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)

    return fault


TRACED = (failing("pwrite64,ftruncate,fallocate", "ENOSPC"), failing("fsync,fdatasync", "EIO"))


def may_trace():
    """Tell whether strace is here, and may look into a process that it has not started."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    is_free = os.geteuid() == 0 or not scope.exists() or scope.read_text(encoding="ascii").strip() == "0"
    return shutil.which("strace") is not None and is_free


@proved
def test_sqlite_that_cannot_be_written_to_under_load(tmp_path):
    """Locked, unwritable, read-only: 503 and nothing else, no call lost, and back without a restart."""
    _survive(tmp_path, (locked, unwritable, read_only))


@proved
@pytest.mark.skipif(
    not may_trace(), reason="strace, by which the disk is made to fail, is missing or may not attach"
)
def test_sqlite_on_a_failing_disk_under_load(tmp_path):
    """Full, failing to sync: the same."""
    _survive(tmp_path, TRACED)


def _survive(folder, faults):
    with (
        running_oracle(folder) as oracle,
        place_at(None, folder / "data", oracle.url) as place,
    ):
        place.set_cap(ROOM_NANOS)
        key = place.command("keys", "create", "--client", "load")["key"]
        with place.serving(runner=AS_OTHERS if os.geteuid() == 0 else ()) as gateway:
            load = asyncio.run(_fail(gateway, place, key, faults))
            asyncio.run(place.settled(SETTLE_S))
            found = differences(place, oracle.ended_attempts(), load.seen)
            checked = place.command("ledger", "check")

    check_told(load)
    assert found == []
    assert (checked["drift_nanos"], checked["open_reservations"]) == (0, 0)


async def _fail(gateway, place, key, faults):
    async with steady_load(gateway.url, [key]) as load:
        await load.answered(RETURN_S)
        for _ in range(ROUNDS):
            for fault in faults:
                await away(load, fault(gateway, place), AWAY_S)
    return load
