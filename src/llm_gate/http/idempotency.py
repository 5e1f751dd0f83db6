"""Idempotency keys: a request that is sent again gets the answer of the first, and costs nothing more.

Theory of operation: the first request with a key claims it in the store, runs, and shows its answer to a recording on
the way out. The next one with that key gets what was kept, or waits while the first is under way, in this process
(it is told the end) or in another (it looks again now and then). A request that runs is finished even when its caller
leaves, since the answer is there for whoever asks again. What cannot be kept is closed, so that nothing is charged
twice unnoticed. Ends are written in tasks of their own: they come about whatever becomes of the request.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from llm_gate.domain.answers import (
    MAX_KEPT_BYTES,
    Begun,
    Claim,
    Fresh,
    KeptAnswer,
    Lost,
    Mismatch,
    Stored,
    fingerprint_of,
)
from llm_gate.domain.errors import (
    AnswerLost,
    Conflict,
    GateError,
    InvalidRequest,
    KeyReused,
    StoreUnavailable,
    Unsettled,
)
from llm_gate.domain.stores import Answers
from llm_gate.engine.deadline import Deadline
from llm_gate.http.app import KEY_HEADER, watched
from llm_gate.http.exchange import Exchange, Message, Reply
from llm_gate.http.routes import Endpoint

MAX_KEY_CHARS = 255
REPLAYED_HEADER = "idempotency-replayed"

_VISIBLE = range(0x21, 0x7F)
_MULTIPLE_CHOICES = 300
_OF_ONE_EXCHANGE = frozenset(
    {"x-request-id", "x-correlation-id", "x-content-type-options", "content-length", "connection", "vary"}
    | {"server-timing"}
)
_SHARING = "access-control-"
_FIRST_LOOK_S, _LAST_LOOK_S = 0.05, 1.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 5.0
_PURGE_PAUSE_S, _PURGE_EVERY_S = 0.05, 600.0
_MAX_ENDS = 64
_CLOSE_S = 5.0
_PATIENCE_S = 600.0

_logger = logging.getLogger("llm_gate.idempotency")


class Repeats:
    """Serves requests that carry a key. `owner` is this process as the ledger knows it."""

    def __init__(self, answers: Answers, *, owner: str, now_ms: Callable[[], int]) -> None:
        self._answers = answers
        self._owner = owner
        self._now_ms = now_ms
        self._under_way: dict[tuple[str, str], asyncio.Event] = {}
        self._ends: set[asyncio.Task[None]] = set()
        self._purging: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to delete now and then what is to be forgotten."""
        self._purging = asyncio.get_running_loop().create_task(self._purge())

    async def close(self) -> None:
        """Write what has ended, if the store can be reached, and stop."""
        if self._purging is not None:
            self._purging.cancel()
        # Those that the server has cut just now have not come to their ends yet.
        ends = [asyncio.ensure_future(ended.wait()) for ended in self._under_way.values()]
        if ends:
            _, late = await asyncio.wait(ends, timeout=_CLOSE_S)
            for end in late:
                end.cancel()

    async def serve(self, exchange: Exchange, endpoint: Endpoint) -> None:
        """Answer a request that carries a key: by its endpoint, or with what that answered before.

        Raises:
            InvalidRequest: the key is not of the form.
            KeyReused: the key was used for another request.
            AnswerLost: the answer to the first request is not to be had.
            Conflict: the first request took too long to wait for.
            StoreUnavailable: the store cannot be reached, so that nothing was done.
        """
        context = exchange.context()
        caller = context.caller
        subject = msgspec.json.encode([caller.tenant, caller.application, caller.user])
        key = _checked(exchange.headers[KEY_HEADER])
        fingerprint = fingerprint_of(
            exchange.method.encode(), exchange.path.encode(), await exchange.peek_body(), subject
        )

        def claim() -> Claim:
            return Claim(
                subject=subject.decode(),
                key=key,
                fingerprint=fingerprint,
                owner=self._owner,
                made_ms=self._now_ms(),
            )

        held = await self._turn(exchange, claim, patience_s=context.timeout_s or _PATIENCE_S)
        if isinstance(held, Stored):
            await _replay(exchange, held.answer)
        else:
            await self._run(exchange, endpoint, held)

    async def _turn(
        self, exchange: Exchange, make_claim: Callable[[], Claim], *, patience_s: float
    ) -> Claim | Stored:
        """Wait until the key is this request's own, which returns its claim, or the answer is there."""
        held: Claim | Stored | None = None

        async def wait() -> None:
            nonlocal held
            held = await self._wait(make_claim)

        try:
            with Deadline(patience_s):
                await watched(exchange, wait())
        except TimeoutError:
            raise Conflict(
                "the first request with this idempotency key is still under way",
                code="idempotency_in_progress",
            ) from None
        assert held is not None  # noqa: S101 - `wait` has set it, or has raised
        return held

    async def _wait(self, make_claim: Callable[[], Claim]) -> Claim | Stored:
        pause_s = _FIRST_LOOK_S
        while True:
            claim = make_claim()
            begun = await self._begin(claim)
            if isinstance(begun, Fresh):
                return claim
            if isinstance(begun, Stored):
                return begun
            if isinstance(begun, Mismatch):
                raise KeyReused("this idempotency key was used for another request: take a new one")
            if isinstance(begun, Lost):
                raise _lost(begun)
            ended = self._under_way.get(claim.place)
            if ended is not None:
                await ended.wait()
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LAST_LOOK_S)

    async def _begin(self, claim: Claim) -> Begun:
        """Ask the store, which goes on when nobody waits any more: a claim that came about then is given up."""
        asked = asyncio.ensure_future(self._answers.begin(claim))
        try:
            begun = await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(lambda done: self._give_up(done, claim))
            raise
        if isinstance(begun, Fresh):
            self._under_way[claim.place] = asyncio.Event()
        return begun

    def _give_up(self, asked: "asyncio.Future[Begun]", claim: Claim) -> None:
        if not asked.cancelled() and asked.exception() is None and isinstance(asked.result(), Fresh):
            self._under_way[claim.place] = asyncio.Event()
            self._end(claim, lambda: self._answers.forget(claim))

    async def _run(self, exchange: Exchange, endpoint: Endpoint, claim: Claim) -> None:
        recording = _Recording(exchange.id_header)
        exchange.tap(recording.note)
        exchange.outlives_caller = True
        has_failed = False
        try:
            await endpoint(exchange)
        except Unsettled:
            # It was answered and will be charged: a repeat must not be charged again unnoticed.
            raise
        except GateError:
            has_failed = not exchange.is_answered
            raise
        finally:
            self._end(claim, self._end_of(claim, recording, has_failed=has_failed))

    def _end_of(
        self, claim: Claim, recording: "_Recording", *, has_failed: bool
    ) -> Callable[[], Awaitable[None]]:
        """Return what is to be written of a claim whose request is over."""
        if has_failed or (recording.is_complete and not recording.is_success):
            return lambda: self._answers.forget(claim)
        if not recording.is_complete:
            return lambda: self._answers.close(claim, "unknown")
        answer = recording.answer
        if answer is None:
            return lambda: self._answers.close(claim, "too_large")
        if len(self._ends) >= _MAX_ENDS:
            # The store is away, and memory is not without end.
            return lambda: self._answers.close(claim, "unknown")
        return lambda: self._answers.keep(claim, answer)

    def _end(self, claim: Claim, write: Callable[[], Awaitable[None]]) -> None:
        ended = self._under_way[claim.place]
        task = asyncio.get_running_loop().create_task(self._write(claim, write, ended))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def _write(self, claim: Claim, write: Callable[[], Awaitable[None]], ended: asyncio.Event) -> None:
        """Write how a claim ended, as often as it takes, and tell those who wait for it."""
        pause_s = _FIRST_RETRY_S
        try:
            while True:
                try:
                    await write()
                except StoreUnavailable as error:
                    _logger.warning("a kept answer waits for the store", extra={"error": error.message})
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, _LAST_RETRY_S)
                else:
                    return
        finally:
            # The next one with this key may have it already.
            if self._under_way.get(claim.place) is ended:
                del self._under_way[claim.place]
            ended.set()

    async def _purge(self) -> None:
        while True:
            deleted = 0
            try:
                deleted = await self._answers.purge(self._now_ms())
            except StoreUnavailable:
                _logger.warning("answers that are to be forgotten wait for the store")
            await asyncio.sleep(_PURGE_PAUSE_S if deleted else _PURGE_EVERY_S)


class _Recording:
    """An answer as it goes out, kept up to a size. `id_header` is the surface's own for the request id."""

    def __init__(self, id_header: str | None) -> None:
        self.is_complete = False
        self._dropped = _OF_ONE_EXCHANGE | {id_header}
        self._status = 0
        self._content_type = ""
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._bytes = 0

    @property
    def is_success(self) -> bool:
        """Whether it is an answer and no error."""
        return self._status < _MULTIPLE_CHOICES

    @property
    def answer(self) -> KeptAnswer | None:
        """All of it; None where it is too large to keep."""
        if self._bytes > MAX_KEPT_BYTES:
            return None
        return KeptAnswer(
            status=self._status,
            content_type=self._content_type,
            headers=self._headers,
            body=b"".join(self._pieces),
        )

    def note(self, message: Message) -> None:
        """Take in one message of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._note_headers(message["headers"])
            return
        piece: bytes = message.get("body", b"")
        self._bytes += len(piece)
        if self._bytes <= MAX_KEPT_BYTES:
            self._pieces.append(piece)
        else:
            self._pieces.clear()
        self.is_complete = not message.get("more_body", False)

    def _note_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        for raw_name, raw_value in headers:
            name, value = raw_name.decode().lower(), raw_value.decode()
            if name == "content-type":
                self._content_type = value
            elif name not in self._dropped and not name.startswith(_SHARING):
                self._headers[name] = value


def _checked(key: str) -> str:
    if not 1 <= len(key) <= MAX_KEY_CHARS or any(ord(char) not in _VISIBLE for char in key):
        raise InvalidRequest(
            f"Idempotency-Key: must be 1 to {MAX_KEY_CHARS} visible ASCII characters",
            param="Idempotency-Key",
            code="idempotency_key_invalid",
        )
    return key


def _lost(begun: Lost) -> AnswerLost:
    if begun.why == "too_large":
        return AnswerLost(
            "this request was answered, but the answer was too large to keep: take a new idempotency key to "
            "run it again",
            code="idempotency_answer_too_large",
        )
    return AnswerLost(
        "this request was made before, and how it ended is not known; it may have been charged: take a new "
        "idempotency key to run it again"
    )


async def _replay(exchange: Exchange, answer: KeptAnswer) -> None:
    exchange.log["replayed"] = True
    headers = {**answer.headers, REPLAYED_HEADER: "true"}
    await exchange.reply(
        Reply(status=answer.status, content_type=answer.content_type, headers=headers, body=answer.body)
    )
