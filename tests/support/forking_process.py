"""The process that `support.forking` starts: it has loaded the command, and forks it for whoever asks.

It has one thread, no event loop and one socket, its own; a child closes that before the command's `main` begins.
"""

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

_PACKAGES = ("llm_gate.cli", "llm_gate.providers", "llm_gate.dialects")
_STREAMS = 3
_CHUNK_BYTES = 65_536


def _next_word(wire: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return the next thing asked, and the descriptors that came with it; None at the end."""
    read, fds, *_ = socket.recv_fds(wire, _CHUNK_BYTES, _STREAMS)
    while read and not read.endswith(b"\n"):
        more = wire.recv(_CHUNK_BYTES)
        if not more:
            return None
        read += more
    return (json.loads(read), fds) if read else None


def _become(asked: dict[str, Any], fds: list[int]) -> None:
    """Take over what the command would have been started with."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.closerange(_STREAMS, max(fds) + 1)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    sys.argv = asked["words"]


def _ended(pid: int, children: set[int], codes: dict[int, int]) -> int | None:
    """Return the exit code of a child that has ended, however often it is asked for."""
    if pid in children:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            children.remove(pid)
            codes[pid] = os.waitstatus_to_exitcode(status)
    return codes.get(pid)


def serve(wire: socket.socket) -> bool:
    """Fork children until nobody asks any more; True in a child, which is to run the command."""
    children: set[int] = set()
    codes: dict[int, int] = {}
    while (word := _next_word(wire)) is not None:
        asked, fds = word
        if "pid" in asked:
            answer = _ended(asked["pid"], children, codes)
        else:
            answer = os.fork()
            if answer == 0:
                wire.close()
                _become(asked, fds)
                return True
            children.add(answer)
            codes.pop(answer, None)
            for fd in fds:
                os.close(fd)
        wire.sendall(json.dumps(answer).encode() + b"\n")
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    return False


if __name__ == "__main__":
    sys.path[0] = str(Path(sys.executable).parent)
    cli = importlib.import_module("llm_gate.cli")
    for package in map(importlib.import_module, _PACKAGES):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
    importlib.import_module("alembic.context")
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as asked_over:
        is_child = serve(asked_over)
    if is_child:
        cli.main()
