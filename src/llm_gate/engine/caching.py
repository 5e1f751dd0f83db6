"""Looks for kept answers, and sees to it that the same question asked at once is put to a vendor once.

Theory of operation: a call comes here when it is known who asks, what for, and which targets may answer, and before
anything is held. `turn` gives it a kept answer (`Hit`) or lets it go on (`Lead`). Who goes on tells here how it ended,
whatever happens: others may wait for that. By its exact words a question is looked for first, then by its meaning.
A store that is away has nothing; nothing here ever fails because of it.
"""

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from msgspec import Struct

from llm_gate.domain.access import CallContext
from llm_gate.domain.cache import CacheEntry, CacheRule, CacheRules, CacheStore, CacheWord, Shelf
from llm_gate.domain.conditions import Meters, NoMeters
from llm_gate.domain.errors import GateError, NotKept, ProviderTimeout
from llm_gate.domain.plans import Standing
from llm_gate.domain.provider import Target
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.engine.cache_keys import CacheKeys, has_media
from llm_gate.engine.cache_wishes import NO_WISHES, Wishes, read_wishes
from llm_gate.engine.flights import AGAIN, Flight, Flights, Landing, shared_failure, twin

K = TypeVar("K")
Reader = Callable[[bytes], K | None]
"""Reads an answer as it is kept; None where it is of another version."""

Vector = Callable[[str], Awaitable[Sequence[float] | None]]
"""Turns a text into a vector on the caller's account; None where that fails."""

_USUAL_TEMPERATURE = 1.0
"""What a request counts as that names none, since most vendors sample at it then."""


class Question(Struct, frozen=True, kw_only=True):
    """One call as the cache sees it. Without a `key`, its answer may not be kept.

    `group` and `text` are there where it may be compared by its meaning. `provider` is who would be asked first.
    """

    shelf: Shelf
    rule: CacheRule
    wishes: Wishes
    key: bytes | None
    group: bytes | None = None
    text: str = ""
    provider: str
    within_s: float
    is_shared: bool = True

    @property
    def max_age_ms(self) -> int:
        """How old an answer may be."""
        wished = self.wishes.max_age_ms
        return self.rule.ttl_ms if wished is None else min(wished, self.rule.ttl_ms)

    @property
    def threshold(self) -> float:
        """How near a question must be: callers may ask for more than the operator does, never for less."""
        wished = self.wishes.threshold
        return self.rule.threshold if wished is None else max(wished, self.rule.threshold)


class Hit(Struct, Generic[K], frozen=True, kw_only=True):
    """A kept answer, and how old it is, in ms."""

    kept: K
    word: CacheWord
    age_ms: int


class Caching:
    """The cache of one gateway; without a `store`, it is off. `now_ms` tells the time in ms since 1970."""

    def __init__(
        self,
        *,
        store: CacheStore | None,
        rules: CacheRules,
        now_ms: Callable[[], int],
        meters: Meters | None = None,
    ) -> None:
        self.store = store
        self.rules = rules
        self.now_ms = now_ms
        self.meters: Meters = meters or NoMeters()
        self.keys = CacheKeys()
        self.flights = Flights()

    def ask_chat(
        self,
        request: ChatRequest,
        targets: Sequence[Target],
        standing: Standing,
        context: CallContext,
        *,
        within_s: float,
    ) -> Question | None:
        """Return a chat call as a question; None where the cache is off for it.

        Raises:
            NotKept: it is off, and the caller wants a kept answer or none.
            InvalidRequest: the caller's threshold is no number from 0 to 1.
        """
        question = self._question(request.model, targets, standing, context, within_s)
        if question is None:
            return None
        on, shelf = context.received_at.date(), question.shelf
        key = self.keys.of_chat(request, targets, shelf, on) if _is_wanted(question.wishes) else None
        if key is None or not question.rule.semantic or not self._is_comparable(request):
            return _with_key(question, key)
        group = self.keys.of_group(request, targets, shelf, on)
        if group is None:
            return _with_key(question, key)
        return _with_key(question, key, *group)

    def ask_embedding(
        self,
        request: EmbeddingRequest,
        targets: Sequence[Target],
        standing: Standing,
        context: CallContext,
        *,
        within_s: float,
    ) -> Question | None:
        """Return an embedding call as a question; None where the cache is off; raises what `ask_chat` raises."""
        question = self._question(request.model, targets, standing, context, within_s)
        if question is None:
            return None
        if not question.rule.exact or not _is_wanted(question.wishes):
            return question
        on = context.received_at.date()
        return _with_key(question, self.keys.of_embedding(request, targets, question.shelf, on))

    def _question(
        self,
        name: str,
        targets: Sequence[Target],
        standing: Standing,
        context: CallContext,
        within_s: float,
    ) -> Question | None:
        rule = self.rules.of(standing.plan.name, name)
        if self.store is None or not rule.is_on:
            if "cache-control" in context.headers and read_wishes(context.headers).only_kept:
                raise _not_kept()
            return None
        caller = context.caller
        # Lengths stand before the names, so that no two pairs of them read the same.
        part = rule.namespace
        if self.rules.per_user:
            part = f"{len(part)}:{part}|{len(caller.application)}:{caller.application}|{caller.user}"
        return Question(
            shelf=Shelf(tenant=caller.tenant, part=part),
            rule=rule,
            wishes=read_wishes(context.headers) if context.headers else NO_WISHES,
            key=None,
            provider=targets[0].provider,
            within_s=within_s,
            # Whoever brings a deadline or a policy of its own may fail where others would not.
            is_shared=context.timeout_s is None and context.policy is None,
        )

    def _is_comparable(self, request: ChatRequest) -> bool:
        """Tell whether a question may be answered by the answer to a like one."""
        temperature = _USUAL_TEMPERATURE if request.temperature is None else request.temperature
        return not (
            request.tools
            or (request.n or 1) > 1
            or temperature > self.rules.max_temperature
            or has_media(request)
        )

    async def turn(
        self, question: Question, read: Reader[K], vector: Vector | None = None
    ) -> "Hit[K] | Lead":
        """Return a kept answer, or let the call go on.

        Raises:
            NotKept: there is none, and the caller wants no other.
            ProviderError: the same request, under way already, has failed.
            AllAttemptsFailed: so it has, at several vendors.
        """
        if question.key is None or not question.wishes.reads:
            if question.wishes.only_kept:
                raise _not_kept()
            return Lead(self, question, word="bypass")
        if not question.rule.exact:
            return await self._look(Lead(self, question, word="miss"), read, vector)
        ends_ms = self.now_ms() + round(question.within_s * 1000)
        while (flight := self.flights.of(question.key)) is not None:
            landing = await flight.wait((ends_ms - self.now_ms()) / 1000, question.provider)
            if landing.error is not None:
                raise twin(landing.error)
            if landing.entry is not None and (hit := self._landed(question, landing, read)) is not None:
                return hit
            if landing.is_over:
                if question.wishes.only_kept:
                    raise _not_kept()
                return Lead(self, question, word="miss")
        return await self._look(
            Lead(self, question, word="miss", flight=self.flights.begin(question.key)), read, vector
        )

    def _landed(self, question: Question, landing: Landing, read: Reader[K]) -> Hit[K] | None:
        """Return what another call has found or got, where it will do for this one."""
        entry = landing.entry
        assert entry is not None  # noqa: S101 - asked for only where there is one
        if landing.similarity is not None and landing.similarity < question.threshold:
            return None
        word: CacheWord = "hit" if landing.similarity is None else "semantic"
        return self._hit(question, entry, read, word, is_fresh=landing.is_fresh)

    async def _look(self, lead: "Lead", read: Reader[K], vector: Vector | None) -> "Hit[K] | Lead":
        """Look for an answer, by the exact words and then by the meaning."""
        question = lead.question
        with lead:
            hit = await self._find(lead, read)
            # To compare costs something, which who wants a kept answer or none would not pay.
            if hit is None and not question.wishes.only_kept and question.group and vector is not None:
                hit = await self._nearest(lead, read, vector)
        if hit is None and question.wishes.only_kept:
            lead.left()
            raise _not_kept()
        return hit or lead

    async def _find(self, lead: "Lead", read: Reader[K]) -> Hit[K] | None:
        question, store = lead.question, self.store
        if store is None or question.key is None or not question.rule.exact:
            return None
        entry = await store.find(question.shelf, question.key, at_ms=self.now_ms())
        hit = None if entry is None else self._hit(question, entry, read, "hit")
        if entry is not None and hit is not None:
            lead.land(Landing(entry=entry))
        return hit

    async def _nearest(self, lead: "Lead", read: Reader[K], vector: Vector) -> Hit[K] | None:
        question, store = lead.question, self.store
        found = await vector(question.text)
        if found is None or store is None or question.group is None:
            return None
        lead.vector = tuple(found)
        neighbour = await store.nearest(question.shelf, question.group, lead.vector, at_ms=self.now_ms())
        if neighbour is None or neighbour.similarity < question.threshold:
            return None
        hit = self._hit(question, neighbour.entry, read, "semantic")
        if hit is not None:
            lead.land(Landing(entry=neighbour.entry, similarity=neighbour.similarity))
        return hit

    def _hit(
        self,
        question: Question,
        entry: CacheEntry,
        read: Reader[K],
        word: CacheWord,
        *,
        is_fresh: bool = False,
    ) -> Hit[K] | None:
        now_ms = self.now_ms()
        age_ms = max(0, now_ms - entry.made_ms)
        if not is_fresh and (age_ms > question.max_age_ms or entry.expires_ms <= now_ms):
            return None
        kept = read(entry.body)
        return None if kept is None else Hit(kept=kept, word=word, age_ms=age_ms)

    async def sweep(self, at_ms: int) -> None:
        """Remove some of what is too old, or too much."""
        if self.store is not None:
            await self.store.sweep(at_ms)

    async def close(self) -> None:
        """Close the store."""
        if self.store is not None:
            await self.store.close()


class Lead:
    """A call that goes on to the vendors. Whatever happens, one of `keep`, `failed` and `left` ends it.

    As a context manager it ends the call with whatever is raised inside, and leaves it open where nothing is.
    `word` is what its answer says of the cache.
    """

    def __init__(
        self, caching: Caching, question: Question, *, word: CacheWord, flight: Flight | None = None
    ) -> None:
        self.question = question
        self.word: CacheWord = word
        self.vector: tuple[float, ...] | None = None
        self._caching = caching
        self._flight = flight

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.failed(error)

    @property
    def keeps(self) -> bool:
        """Whether the answer is to be kept, if it may be."""
        return self.question.key is not None and self.question.wishes.keeps

    async def keep(self, body: bytes | None, cost_nanos: int | None) -> None:
        """End the call with its answer; one that may not be kept is None."""
        question, caching = self.question, self._caching
        store = caching.store
        if body is None or question.key is None or store is None or not question.wishes.keeps:
            self.land(Landing(is_over=True))
            return
        now_ms = caching.now_ms()
        entry = CacheEntry(
            key=question.key,
            body=body,
            made_ms=now_ms,
            expires_ms=now_ms + question.rule.ttl_ms,
            saved_nanos=cost_nanos,
            group=None if self.vector is None else question.group,
            vector=self.vector,
        )
        try:
            await store.keep(question.shelf, entry)
        finally:
            self.land(Landing(entry=entry, is_fresh=True))

    def failed(self, error: BaseException) -> None:
        """End the call with how it failed."""
        is_own = not self.question.is_shared and isinstance(error, ProviderTimeout)
        found = None if is_own else shared_failure(error)
        self.land(AGAIN if found is None else Landing(error=found))

    def left(self) -> None:
        """End the call without an answer; after any other end, this does nothing."""
        self.land(AGAIN)

    def land(self, landing: Landing) -> None:
        """Tell those who wait."""
        flight, self._flight = self._flight, None
        if flight is not None and self.question.key is not None:
            self._caching.flights.end(self.question.key, flight, landing)


def _is_wanted(wishes: Wishes) -> bool:
    return wishes.reads or wishes.keeps


def _with_key(question: Question, key: bytes | None, group: bytes | None = None, text: str = "") -> Question:
    if key is None:
        return question
    return Question(
        shelf=question.shelf,
        rule=question.rule,
        wishes=question.wishes,
        key=key,
        group=group,
        text=text,
        provider=question.provider,
        within_s=question.within_s,
        is_shared=question.is_shared,
    )


def _not_kept() -> GateError:
    return NotKept("no kept answer is there, and the request wants no other (Cache-Control: only-if-cached)")
