"""How the gateway ends: no new calls, time for those under way, an honest end for the rest, and only then the server.

Theory of operation: the server's own reaction to SIGTERM and SIGINT is to stop listening, so its handlers are taken
over once it has started, and called when there is nothing left to wait for. Until then it goes on listening: probes see
at once that the gateway is about to end, and new calls are told so instead of being refused a connection.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from llm_gate.http.overload import Traffic

END_S = 0.7
"""How long calls that were ended may take to say so and to hand in what they cost."""

SERVER_GRACE_S = 1
"""How long the server waits for connections after that, before it cuts them."""

# The ledger may have to be waited for; a process that has not ended by then hangs.
_SLACK_S = 20.0
_PING_S = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_logger = logging.getLogger("llm_gate.http")


class Draining:
    """Watches for the signals that end a process. `drain_s` says how long calls under way may go on, in seconds."""

    def __init__(self, traffic: Traffic, drain_s: Callable[[], float]) -> None:
        self._traffic = traffic
        self._drain_s = drain_s
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def watch(self, *, is_worker: bool) -> None:
        """Take the signals over from the server, in its event loop; where none reacts to one, it is left alone.

        A terminal interrupts a supervisor and its workers alike, so that a worker hears of it from the supervisor.
        """
        if sys.platform == "win32":
            # No event loop takes signals there: the server stops as it does by itself.
            return
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if not callable(before):
                continue
            if is_worker and number == signal.SIGINT:
                loop.add_signal_handler(number, _ignore)
            else:
                loop.add_signal_handler(number, self._ask, number, before)

    def _ask(self, number: int, before: Callable[[int, FrameType | None], Any]) -> None:
        if self._task is not None:
            self._hurry.set()
            return
        self._traffic.shut()
        self._task = asyncio.get_running_loop().create_task(self._drain(lambda: before(number, None)))

    async def _drain(self, leave: Callable[[], Any]) -> None:
        traffic, drain_s = self._traffic, self._drain_s()
        if traffic.in_flight:
            _logger.info("draining", extra={"in_flight": traffic.in_flight, "drain_s": drain_s})
            await self._wait(drain_s)
        if traffic.in_flight:
            _logger.warning("calls are ended", extra={"in_flight": traffic.in_flight})
            traffic.end_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await traffic.until_quiet()
        leave()

    async def _wait(self, at_most_s: float) -> None:
        """Wait until the last call has left, somebody is in a hurry, or the time is up."""
        waits = [asyncio.ensure_future(each) for each in (self._traffic.until_quiet(), self._hurry.wait())]
        await asyncio.wait(waits, timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


def _ignore() -> None:
    """Do nothing: somebody else passes it on."""


class Workers(Multiprocess):
    """Several processes. Signals are passed on to them: SIGHUP restarts nobody, SIGTERM and SIGINT drain each one.

    `drain_s` says how long a worker may take for its calls, in seconds.
    """

    def __init__(self, config: Config, *, sockets: list[Any], drain_s: Callable[[], float]) -> None:
        super().__init__(config, sockets=sockets)
        self._drain_s = drain_s
        self._is_ending = False
        for number in _SIGNALS:
            signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        # At once, not with the next look at the queue: probes are to know.
        self._is_ending = True
        self._tell(signal.SIGTERM)
        self.signal_queue.append(number)

    def _tell(self, number: int) -> None:
        for process in self.processes:
            if process.pid is not None and process.exitcode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    def handle_hup(self) -> None:
        """Let every worker read its configuration again; one that is still starting reads it anyway."""
        for process in self.processes:
            if process.pid is not None and process.is_ready(_PING_S):
                os.kill(process.pid, signal.SIGHUP)

    def keep_subprocess_alive(self) -> None:
        """Put a new worker in the place of one that has died, unless all are to end."""
        if not self._is_ending:
            super().keep_subprocess_alive()

    def terminate_all(self) -> None:
        """Tell every worker to end, unless it was told: a second time would mean that there is a hurry."""
        if not self._is_ending:
            self._tell(signal.SIGTERM)

    def join_all(self) -> None:
        """Wait for the workers as long as they may take, and end those that hang."""
        ends_s = time.monotonic() + self._drain_s() + _SLACK_S
        for process in self.processes:
            process.process.join(max(0.0, ends_s - time.monotonic()))
            if process.process.is_alive():
                _logger.error("a worker does not end: it is killed", extra={"pid": process.pid})
                process.process.kill()
                process.process.join()
