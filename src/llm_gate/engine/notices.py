"""Tells the operator what needs looking after: in the log at once, and by the webhook through the store.

Theory of operation: of one cause and subject, a process tells once an hour; over all processes, the store lets one
notice an hour in. Telling never waits: a task beside the calls writes what is queued, and keeps it while the store is
away. What stands in the store is delivered as alerts about limits are.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from llm_gate.domain.conditions import NOTICE_EVERY_MS, Notice, NoticeLine
from llm_gate.domain.errors import StoreUnavailable
from llm_gate.domain.windows import instant

MAX_QUEUED = 1_000
MAX_SUBJECTS = 10_000
SUBJECT_CHARS, MESSAGE_CHARS = 200, 1_000

_AGAIN_S = 2.0
_logger = logging.getLogger("llm_gate.operator")


class NoticeBook(Protocol):
    """Keeps notices for delivery. Every method may raise StoreUnavailable."""

    async def add(self, notice: Notice, at_ms: int) -> bool:
        """Keep a notice, unless one of its cause and subject was kept within the hour."""


class OperatorNotices:
    """The port `Notices`. Without a book, notices are logged and go no further."""

    def __init__(self, *, book: NoticeBook | None, now_ms: Callable[[], int]) -> None:
        self._book = book
        self._now_ms = now_ms
        self._told: dict[tuple[str, str], int] = {}
        self._queued: deque[tuple[Notice, int]] = deque(maxlen=MAX_QUEUED)
        self._is_waited_for = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        """How many notices wait to be written."""
        return len(self._queued)

    @property
    def subjects(self) -> int:
        """How many causes and subjects are remembered."""
        return len(self._told)

    def tell(self, notice: Notice) -> None:
        """Tell, unless it was told within the hour."""
        notice = _storable(notice)
        now_ms, name = self._now_ms(), (notice.cause, notice.subject)
        if now_ms - self._told.get(name, -NOTICE_EVERY_MS) < NOTICE_EVERY_MS:
            return
        if len(self._told) >= MAX_SUBJECTS:
            self._told = {key: at_ms for key, at_ms in self._told.items() if now_ms - at_ms < NOTICE_EVERY_MS}
            if len(self._told) >= MAX_SUBJECTS:
                self._told.clear()
        self._told[name] = now_ms
        _logger.warning(
            "the operator should look at this",
            extra={"cause": notice.cause, "subject": notice.subject, "error": notice.message},
        )
        if self._book is not None:
            self._queued.append((notice, now_ms))
            self._is_waited_for.set()

    def start(self) -> None:
        """Begin to write what is queued, in the running event loop."""
        if self._book is not None:
            self._task = asyncio.get_running_loop().create_task(self._run(self._book))

    async def close(self) -> None:
        """Write what is queued, if the store is there, and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._book is not None:
            await self._write(self._book)

    async def _run(self, book: NoticeBook) -> None:
        while True:
            await self._is_waited_for.wait()
            self._is_waited_for.clear()
            if not await self._write(book):
                # The store is away: look again in a moment, though nothing new comes.
                await asyncio.sleep(_AGAIN_S)
                self._is_waited_for.set()

    async def _write(self, book: NoticeBook) -> bool:
        """Write what is queued; False where the store is away."""
        while self._queued:
            first = self._queued[0]
            try:
                await book.add(*first)
            except StoreUnavailable:
                return False
            # A full queue may have dropped it meanwhile.
            if self._queued and self._queued[0] is first:
                self._queued.popleft()
        return True


def _storable(notice: Notice) -> Notice:
    """Return a notice as every store takes it: callers name subjects, and vendors write messages."""
    return Notice(
        cause=notice.cause,
        subject=_plain(notice.subject, SUBJECT_CHARS),
        message=_plain(notice.message, MESSAGE_CHARS),
    )


def _plain(text: str, most_chars: int) -> str:
    clipped = text if len(text) <= most_chars else text[: most_chars - 1] + "…"
    return "".join(char if char.isprintable() else " " for char in clipped)


class _Message(Struct, frozen=True, kw_only=True):
    """A notice as it is sent."""

    id: str
    type: str = "operator"
    cause: str
    subject: str
    message: str
    created_at: str


def notice_message(line: NoticeLine) -> bytes:
    """Write a notice as it is sent."""
    return msgspec.json.encode(
        _Message(
            id=line.id,
            cause=line.cause,
            subject=line.subject,
            message=line.message,
            created_at=instant(line.created_ms).isoformat(),
        )
    )
