"""Grounded research: searches, then an answer from what they found, in one frame of money and time.

Theory of operation: `Research.open` plans every step at its bound, and holds all of it as one quote, or nothing: what
it raises came before anything was sent. Each step is a call of the gate like any other, with limits, fallback and
ledger of its own, which spends from that quote. `Investigation.close` gives back what is left of it, however the
research ended.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from math import ceil
from time import monotonic

from msgspec import structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.errors import Fault, GateError, InvalidRequest
from llm_gate.domain.events import TextDelta
from llm_gate.domain.ledger import Release, Result, total
from llm_gate.domain.media import MediaResult
from llm_gate.domain.messages import TextPart
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.research import (
    MOST_INSTRUCTION_CHARS,
    MOST_LANGUAGE_CHARS,
    MOST_QUERIES,
    MOST_QUESTION_CHARS,
    MOST_RESULTS,
    MOST_SOURCES,
    AnswerDelta,
    Answering,
    Citation,
    Planning,
    Reading,
    ResearchEvent,
    ResearchRequest,
    ResearchResult,
    Searching,
    Source,
    StepReport,
)
from llm_gate.domain.results import ChatResult, FinishReason
from llm_gate.domain.search import SearchHit, SearchResult
from llm_gate.domain.usage import total_usage
from llm_gate.engine.answer import Answer
from llm_gate.engine.gate import Gate
from llm_gate.engine.quotes import MAX_EXPIRY_S, Quoting
from llm_gate.engine.research_citations import CitationFilter
from llm_gate.engine.research_prompt import (
    MOST_QUERY_CHARS,
    answering_request,
    grounding_query,
    listed,
    merged,
    plain,
    planning_request,
    queries_in,
    query_of,
    written,
)
from llm_gate.engine.research_quote import ResearchPlan, planned, search_request
from llm_gate.engine.research_steps import Step

NOTHING_FOUND = "The search found nothing that this question could be answered from."
"""The answer where there are no sources: nobody is asked to make one up."""

_MARGIN_S = 60
_LEAST_S = 0.001
_WORD_BYTES = 16
_ENDINGS: dict[FinishReason, str] = {
    "length": "the answer was cut off at its longest",
    "content_filter": "the answer was cut off by the provider's content filter",
}


class Research:
    """The use-case. `new_word` gives a word that nobody can guess."""

    def __init__(
        self,
        *,
        gate: Gate,
        quoting: Quoting,
        new_word: Callable[[], str] = lambda: secrets.token_hex(_WORD_BYTES),
    ) -> None:
        self._gate = gate
        self._quoting = quoting
        self._new_word = new_word

    async def open(self, request: ResearchRequest, context: CallContext) -> "Investigation":
        """Hold what a research may use, and return it ready to begin; it must be closed in any case.

        With a quote of the caller's own, that is spent from, and nothing else is held.

        Raises:
            InvalidRequest: the request is faulty, or nobody can search as it asks.
            QuotaExceeded: a limit leaves no room for all of its steps; nothing is held, and nothing was sent.
            GateError: what else can be in the way of a call.
        """
        request = _checked(request)
        if context.fallbacks and not request.fallbacks:
            request = structs.replace(request, fallbacks=context.fallbacks)
        context = structs.replace(context, fallbacks=())
        word = self._new_word()
        plan = await planned(self._gate, request, word, context)
        own_quote = context.quote_id
        if own_quote is not None:
            await self._quoting.show(own_quote, context.caller)
        else:
            context = structs.replace(context, quote_id=await self._held(plan, context))
        return Investigation(
            gate=self._gate,
            request=request,
            context=context,
            plan=plan,
            word=word,
            is_quote_ours=own_quote is None,
        )

    async def events(
        self, request: ResearchRequest, context: CallContext
    ) -> AsyncGenerator[ResearchEvent, None]:
        """Carry a research out from its beginning to its end; raises what `open` and its events raise."""
        investigation = await self.open(request, context)
        try:
            async with aclosing(investigation.events()) as events:
                async for event in events:
                    yield event
        finally:
            investigation.close()

    async def _held(self, plan: ResearchPlan, context: CallContext) -> str | None:
        """Hold what all steps may use as one quote; None where nothing is limited."""
        directory = self._gate.directory_of(context.caller.tenant)
        found = await self._quoting.look(plan.asked, context.caller, directory, context.received_at)
        if found.failed_index is not None:
            refusal = found.lines[found.failed_index].refusal
            assert refusal is not None  # noqa: S101 - that is what failed
            raise refusal
        if not any(line.rooms for line in found.lines):
            return None
        holding = asyncio.ensure_future(
            self._quoting.hold(found, context, expires_in_s=self._longest_s(plan))
        )
        try:
            held = await asyncio.shield(holding)
        except asyncio.CancelledError:
            holding.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() else self._release(done.result().id)
            )
            raise
        return held.id

    def _longest_s(self, plan: ResearchPlan) -> int:
        """Return how long the steps may take until the last of them has begun."""
        return min(MAX_EXPIRY_S, ceil(self._gate.working.deadlines.total_s * len(plan.asked)) + _MARGIN_S)

    def _release(self, quote_id: str) -> None:
        release(self._gate, quote_id)


def release(gate: Gate, quote_id: str) -> None:
    """Give back what is left of a quote, without waiting for it: the ledger keeps the step until it is written."""

    def look(done: "asyncio.Future[Result]") -> None:
        # A store that is away lets the quote end by itself.
        if not done.cancelled():
            done.exception()

    asyncio.ensure_future(gate.admission.ledger.submit(Release(id=quote_id))).add_done_callback(look)


class Investigation:
    """One research under way. Iterate `events` once, and `close` it in any case."""

    def __init__(
        self,
        *,
        gate: Gate,
        request: ResearchRequest,
        context: CallContext,
        plan: ResearchPlan,
        word: str,
        is_quote_ours: bool,
    ) -> None:
        self._gate = gate
        self._request = request
        self._context = context
        self._plan = plan
        self._word = word
        self._own_quote = context.quote_id if is_quote_ours else None
        self._ends_s = None if context.timeout_s is None else monotonic() + context.timeout_s
        self._steps: list[StepReport] = []
        self._notes: list[str] = []
        self._filter = CitationFilter(0)
        self._pieces: list[str] = []

    def close(self) -> None:
        """Give back what is still held for steps that did not come to be."""
        quote_id, self._own_quote = self._own_quote, None
        if quote_id is not None:
            release(self._gate, quote_id)

    async def events(self) -> AsyncGenerator[ResearchEvent, None]:
        """Carry the research out, and tell what happens; its result is the last event.

        Raises:
            GateError: a step failed in a way that leaves nothing to answer from.
        """
        if self._request.is_grounded:
            async with aclosing(self._grounded()) as events:
                async for event in events:
                    yield event
            return
        queries: tuple[str, ...] = (query_of(self._request),)
        if self._request.queries > 1:
            yield Planning()
            queries = await self._queries()
        for query in queries:
            yield Searching(query=query)
        most = min(MOST_SOURCES, self._request.queries * self._request.results)
        sources = self._sources(await self._searched(queries), most)
        yield Reading(sources=sources)
        self._filter = CitationFilter(len(sources))
        if not sources:
            self._notes.append("no sources were found, so that no model was asked for an answer")
            self._pieces.append(NOTHING_FOUND)
            yield AnswerDelta(text=NOTHING_FOUND)
            yield self._result(sources)
            return
        yield Answering(sources=len(sources))
        blocks = [written(source, self._word) for source in sources]
        asked = answering_request(self._request, blocks, self._word, self._plan.answer_tokens)
        async with aclosing(self._streamed(asked) if self._request.stream else self._whole(asked)) as texts:
            async for text in texts:
                yield AnswerDelta(text=text)
        yield self._result(sources)

    async def _grounded(self) -> AsyncGenerator[ResearchEvent, None]:
        """Let the one who answers search by itself: one call does both."""
        query = plain(self._request.question)
        yield Searching(query=query)
        step = Step(self._frame(), "answering")
        answer, result = await self._made(grounding_query(self._request), step)
        self._steps.append(await step.answered(answer, "search"))
        if self._request.model not in {"", f"{answer.target.provider}/", answer.target.provider}:
            self._notes.append(
                f"{self._plan.search_model} answered: the model that was named does not search"
            )
        sources = listed(query, result.results)
        self._notes += result.notes
        yield Reading(sources=sources)
        self._filter = CitationFilter(len(sources))
        for text in self._passed([result.answer or NOTHING_FOUND]):
            yield AnswerDelta(text=text)
        yield self._result(sources)

    async def _queries(self) -> tuple[str, ...]:
        asked = planning_request(self._request, self._plan.planning_tokens)
        step = Step(self._frame(), "planning")
        answer = await self._gate.chat(asked, step.context)
        self._steps.append(await step.answered(answer, "chat"))
        found = queries_in(_text(answer.result), self._request)
        if not found:
            self._notes.append("the model wrote no queries, so that the question itself was searched for")
        return found or (query_of(self._request),)

    async def _searched(self, queries: Sequence[str]) -> list[tuple[str, Sequence[SearchHit]]]:
        """Search for all queries at once. One that fails is told; where all of them do, that is the research's end."""
        tasks = [asyncio.ensure_future(self._search(query)) for query in queries]
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        found: list[tuple[str, Sequence[SearchHit]]] = []
        failures: list[GateError] = []
        for query, task in zip(queries, tasks, strict=True):
            outcome = task.result()
            if isinstance(outcome, GateError):
                failures.append(outcome)
                self._notes.append(f"the search for {query!r} failed: {outcome.message}")
            else:
                found.append((query, outcome))
        if not found:
            raise failures[0]
        return found

    async def _search(self, query: str) -> Sequence[SearchHit] | GateError:
        step = Step(self._frame(), "searching", query)
        try:
            answer, result = await self._made(query, step)
        except GateError as error:
            self._steps.append(await step.failed(error, "search"))
            return error
        self._steps.append(await step.answered(answer, "search"))
        self._notes += [note for note in result.notes if note not in self._notes]
        return result.results[: self._request.results]

    async def _made(self, query: str, step: Step) -> tuple[Answer[MediaResult], SearchResult]:
        asked = search_request(self._request, query, self._plan.search_model)
        answer = await self._gate.make(asked, step.context)
        result = answer.result
        assert isinstance(result, SearchResult)  # noqa: S101 - the operation's own result
        return answer, result

    def _sources(self, found: Sequence[tuple[str, Sequence[SearchHit]]], most: int) -> tuple[Source, ...]:
        question = plain(self._request.question)
        if self._request.queries == 1 and len(question) > MOST_QUERY_CHARS:
            self._notes.append(f"the search was for the first {MOST_QUERY_CHARS} characters of the question")
        return merged(found, most)

    async def _whole(self, asked: ChatRequest) -> AsyncGenerator[str, None]:
        step = Step(self._unkept(), "answering")
        answer = await self._gate.chat(asked, step.context)
        self._steps.append(await step.answered(answer, "chat"))
        self._note_ending(answer.result.choices[0].finish_reason if answer.result.choices else None)
        for text in self._passed([_text(answer.result)]):
            yield text

    async def _streamed(self, asked: ChatRequest) -> AsyncGenerator[str, None]:
        step = Step(self._unkept(), "answering")
        stream = await self._gate.chat_stream(asked, step.context)
        try:
            async for batch in stream.batches():
                new = [event.text for event in batch if isinstance(event, TextDelta) and event.index == 0]
                if text := "".join(self._filter.feed(piece) for piece in new):
                    self._pieces.append(text)
                    yield text
        finally:
            await stream.close()
        self._steps.append(await step.streamed(stream))
        self._note_ending(stream.finish_reason)
        if text := self._filter.close():
            self._pieces.append(text)
            yield text

    def _passed(self, texts: Sequence[str]) -> list[str]:
        """Return a whole answer as it may be shown."""
        shown = "".join([*(self._filter.feed(text) for text in texts), self._filter.close()])
        self._pieces.append(shown)
        return [shown] if shown else []

    def _note_ending(self, reason: FinishReason | None) -> None:
        if reason in _ENDINGS:
            self._notes.append(_ENDINGS[reason])

    def _result(self, sources: tuple[Source, ...]) -> ResearchResult:
        answer, found = "".join(self._pieces), self._filter
        if found.removed:
            numbers = ", ".join(f"[{number}]" for number in found.removed)
            self._notes.append(f"citations that point at no source were removed: {numbers}")
        if found.links:
            self._notes.append(f"links that the model had put behind citations were removed: {found.links}")
        if not answer.strip():
            self._notes.append("the model gave no answer")
        elif not found.cited:
            self._notes.append("the answer stands on no source that it names")
        cited = [sources[number - 1] for number in sorted(found.cited)]
        # Searches that count no tokens have no usage; what a model did not count is unknown.
        counted = [
            step for step in self._steps if step.error is None and (step.usage or step.operation == "chat")
        ]
        return ResearchResult(
            answer=answer,
            citations=tuple(Citation(index=each.index, url=each.url, title=each.title) for each in cited),
            sources=sources,
            notes=tuple(self._notes),
            steps=tuple(self._steps),
            usage=total_usage(step.usage for step in counted) if counted else None,
            cost_nanos=total(step.cost_nanos for step in self._steps),
        )

    def _frame(self) -> CallContext:
        """Return the frame of the next step: the quote of the whole, and what is left of the time."""
        left_s = None if self._ends_s is None else max(_LEAST_S, self._ends_s - monotonic())
        return structs.replace(self._context, timeout_s=left_s)

    def _unkept(self) -> CallContext:
        """Return the frame of the step that answers: a kept answer would cite other sources by the same numbers."""
        frame = self._frame()
        return structs.replace(frame, headers={**frame.headers, "cache-control": "no-store"})


def _checked(request: ResearchRequest) -> ResearchRequest:
    """Return a request that can be carried out.

    Raises:
        InvalidRequest: it cannot; with every fault there is.
    """
    faults = []
    question = request.question.strip()
    if not plain(question):
        faults.append(Fault("question", "is empty"))
    for name, text, most in (
        ("question", question, MOST_QUESTION_CHARS),
        ("instructions", request.instructions or "", MOST_INSTRUCTION_CHARS),
        ("language", request.language or "", MOST_LANGUAGE_CHARS),
    ):
        if len(text) > most:
            faults.append(Fault(name, f"is longer than {most} characters"))
    for name, number, most in (
        ("queries", request.queries, MOST_QUERIES),
        ("max_results", request.results, MOST_RESULTS),
    ):
        if not 1 <= number <= most:
            faults.append(Fault(name, f"must be a number from 1 to {most}"))
    if request.max_output_tokens is not None and request.max_output_tokens < 1:
        faults.append(Fault("max_tokens", "must be at least 1"))
    if request.is_grounded:
        faults += _not_grounded(request)
    if faults:
        message = "; ".join(f"{fault.path}: {fault.message}" for fault in faults)
        raise InvalidRequest(message, param=faults[0].path, faults=faults)
    return structs.replace(request, question=question)


def _not_grounded(request: ResearchRequest) -> list[Fault]:
    """Name what cannot be said where the one who answers searches by itself."""
    said = {
        "queries": request.queries > 1,
        "max_results": request.max_results is not None,
        "max_tokens": request.max_output_tokens is not None,
        "fallbacks": bool(request.fallbacks),
        "search_fallbacks": bool(request.search_fallbacks),
    }
    return [
        Fault(name, "cannot be said together with grounding") for name, is_said in said.items() if is_said
    ]


def _text(result: ChatResult) -> str:
    """Return the text of an answer."""
    parts = result.choices[0].parts if result.choices else ()
    return "".join(part.text for part in parts if isinstance(part, TextPart))
