"""Live configuration: a changed file or SIGHUP is read, checked, built, and only then swapped in."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from llm_gate.bootstrap import load_working
from llm_gate.configuration import Source, placed_faults
from llm_gate.domain.errors import GateFault
from llm_gate.domain.secret import Secret
from llm_gate.engine.working import Working
from llm_gate.settings import Settings

LOOK_EVERY_S = 1.0

_logger = logging.getLogger("llm_gate.configuration")
_Stamp = tuple[tuple[int, int, int] | None, ...]


class LiveConfiguration:
    """Keeps the running gateway in step with its files. `apply` swaps the new state in.

    A faulty configuration changes nothing: what is wrong is logged with file, line and key, and the gateway
    goes on as it was until the file changes again.
    """

    def __init__(
        self, source: Source, settings: Settings, apply: Callable[[Settings, Working], None]
    ) -> None:
        self._source = source
        self._settings = settings
        self._apply = apply
        self._asked = asyncio.Event()
        self._stamp = _stamp(source.files)

    def ask(self) -> None:
        """Reload now, whether a file changed or not; this is what SIGHUP does."""
        self._asked.set()

    async def run(self) -> None:
        """Look at the files now and then until cancelled."""
        _logger.info("following the configuration")
        while True:
            try:
                await asyncio.wait_for(self._asked.wait(), LOOK_EVERY_S)
            except TimeoutError:
                stamp = _stamp(self._source.files)
                if stamp == self._stamp:
                    continue
            self._asked.clear()
            self._stamp = _stamp(self._source.files)
            self.reload()

    def reload(self) -> bool:
        """Read, check, build and swap; return whether there is a new state now."""
        try:
            read = self._source.read()
            # What a place may be given hangs on the processes and the stores that are really there.
            settings = _as_started(self._settings, read)
            with placed_faults(settings):
                working = load_working(settings)
        except GateFault as fault:
            self._refuse(fault.message)
            return False
        fixed = _needs_restart(self._settings, read)
        if fixed:
            _logger.warning("a restart is needed for some settings", extra={"error": ", ".join(fixed)})
        self._apply(settings, working)
        self._settings = settings
        _logger.info("the configuration was taken over")
        return True

    @staticmethod
    def _refuse(why: str) -> None:
        _logger.error("the configuration was not taken over", extra={"error": why})


def _needs_restart(old: Settings, new: Settings) -> list[str]:
    """Name the settings that changed and that a running process cannot take over."""
    pairs = {
        "server.host": (old.server.host, new.server.host),
        "server.port": (old.server.port, new.server.port),
        "server.workers": (old.server.workers, new.server.workers),
        "server.data_dir": (old.server.data_dir, new.server.data_dir),
        "api": (old.api, new.api),
        "timeouts.heartbeat_s": (old.timeouts.heartbeat_s, new.timeouts.heartbeat_s),
        "LLM_GATE_DATABASE_URL": (_revealed(old.database_url), _revealed(new.database_url)),
        "LLM_GATE_REDIS_URL": (_revealed(old.redis_url), _revealed(new.redis_url)),
        "LLM_GATE_PEPPER": (_revealed(old.pepper), _revealed(new.pepper)),
    }
    return [name for name, (before, after) in pairs.items() if before != after]


def _as_started(old: Settings, new: Settings) -> Settings:
    """Return the new settings with what the process goes on with: who may call hangs on where it really listens."""
    started = old.server
    server = structs.replace(
        new.server,
        host=started.host,
        port=started.port,
        workers=started.workers,
        data_dir=started.data_dir,
    )
    timeouts = structs.replace(new.timeouts, heartbeat_s=old.timeouts.heartbeat_s)
    return structs.replace(
        new,
        server=server,
        api=old.api,
        timeouts=timeouts,
        database_url=old.database_url,
        redis_url=old.redis_url,
        pepper=old.pepper,
    )


def _revealed(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


def _stamp(files: tuple[Path, ...]) -> _Stamp:
    """Return what tells one state of the files from another."""
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            status = file.stat()
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)
