"""The gateway for programs without an event loop, and for those that must not block theirs with a loop inside a loop.

Theory of operation: the first call starts a thread with an event loop of its own, and opens a gateway there. It serves
every later call, and is closed when the process ends. A process that was forked starts its own.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, TypeVar

from llm_gate.client.gate import LLMGate
from llm_gate.client.text import TextCall
from llm_gate.configuration import Source
from llm_gate.settings import ENV_FILE

T = TypeVar("T")
CLOSE_PATIENCE_S = 15.0
"""How long the end of the process waits for what is left to write."""


class Background:
    """A gateway in a thread of its own, which is started when it is first needed."""

    def __init__(self, source: Source | None = None) -> None:
        self.source = source or Source(env_file=ENV_FILE)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gate: LLMGate | None = None
        self._thread: threading.Thread | None = None
        self._process_id = 0

    def run(self, work: Callable[[LLMGate], Coroutine[Any, Any, T]]) -> T:
        """Do something with the gateway in its own event loop, and wait for what comes of it.

        Raises:
            GateError: the configuration is faulty, or the stores cannot be opened.
        """
        if self._thread is threading.current_thread():
            raise RuntimeError("a blocking call would wait for itself here: use LLMGate in asyncio code")
        loop, gate = self._open()
        return _wait(loop, work(gate))

    def _open(self) -> tuple[asyncio.AbstractEventLoop, LLMGate]:
        with self._lock:
            if self._loop is None or self._gate is None or self._process_id != os.getpid():
                # After a fork the thread is gone, and its connections belong to the parent.
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run, args=(loop,), name="llm-gate", daemon=True)
                thread.start()
                with ExitStack() as undo:
                    undo.callback(loop.call_soon_threadsafe, loop.stop)
                    gate = _wait(loop, LLMGate(self.source).__aenter__())
                    undo.pop_all()
                self._loop, self._gate, self._thread, self._process_id = loop, gate, thread, os.getpid()
                atexit.register(self.close)
            return self._loop, self._gate

    def close(self) -> None:
        """Write what is left to write, and close every connection; a later call opens it again."""
        with self._lock:
            loop, gate = self._loop, self._gate
            if loop is None or gate is None or self._process_id != os.getpid():
                return
            self._loop = self._gate = self._thread = None
        atexit.unregister(self.close)
        # At the end of a process its pools of threads take nothing any more: whoever needs one stops here unheard.
        loop.set_exception_handler(lambda _loop, _context: None)
        closing = asyncio.run_coroutine_threadsafe(gate.__aexit__(None, None, None), loop)
        try:
            closing.result(CLOSE_PATIENCE_S)
        except TimeoutError:
            return
        loop.call_soon_threadsafe(loop.stop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _wait(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    future: Future[T] = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    finally:
        # Whoever stops waiting, by Ctrl-C for instance, gives the call up.
        future.cancel()


SHARED = Background()
"""The one gateway of a process; a plain function has no object that could hold it."""


def llm_text_gen(
    prompt: str,
    system_prompt: str | None = None,
    json_struct: Mapping[str, Any] | None = None,
    user_id: str | None = None,
    *,
    model: str = "",
    temperature: float | None = None,
    max_tokens: int | None = None,
) -> Any:
    """Answer a prompt by a text, or with `json_struct` by an object; counted for a user, within the user's plan.

    The configuration, stores and limits are those that `llm-gate serve` would have in the working directory. It can be
    called from any thread, and where an event loop runs, which then waits: `LLMGate` is for asyncio.

    Args:
        prompt: what is asked.
        system_prompt: what the model is told before; nothing is added to it.
        json_struct: a JSON Schema, or an example of the object that is wanted (`{"title": "string", "tags": [str]}`).
        user_id: for whom the call is counted.
        model: `provider/model`, a model's name, or an alias; without it, the configured provider's default.
        temperature: 0.7 where the model takes one.
        max_tokens: how long the answer may be; 4,000 where neither plan nor model allow less.

    Returns:
        The text, or the parsed object, which fits the schema.

    Raises:
        RuntimeError: there is no `user_id`.
        QuotaExceeded: a limit leaves no room; its `status_code` is 429 and its `detail` has `usage_info`.
        GateError: nobody could answer, or the configuration is faulty.
    """
    wanted = TextCall(
        prompt=prompt,
        system_prompt=system_prompt,
        json_struct=json_struct,
        user_id=user_id,
        model=model,
        temperature=temperature,
        max_tokens=max_tokens,
    )
    return SHARED.run(lambda gate: gate.generate(wanted))
