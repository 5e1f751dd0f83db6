"""What a whole research may come to, before anything of it is sent: one planned operation for each step, at its bound.

Each step is planned at the dearest of the targets that may be tried for it, with the largest request that can be made
of what the step before leaves: so that what is held for the whole is enough for every part.
"""

from collections.abc import Sequence
from datetime import date

from msgspec import Struct, structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.catalog import Model
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.plans import Standing
from llm_gate.domain.preflight import Asked
from llm_gate.domain.provider import Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.research import MOST_SOURCES, ResearchRequest
from llm_gate.domain.search import SearchRequest
from llm_gate.domain.search_rules import billed
from llm_gate.engine.drafts import estimate
from llm_gate.engine.estimate import bounded_targets, size_of_chat
from llm_gate.engine.gate import Gate
from llm_gate.engine.research_prompt import (
    ANSWER_TOKENS,
    MOST_QUERY_CHARS,
    PLANNING_TOKENS,
    grounding_query,
    largest_request,
    planning_request,
    query_of,
)
from llm_gate.engine.resolve import Directory

# Four bytes are the most that a character takes.
_WIDEST_QUERY = "\U0001f50d" * MOST_QUERY_CHARS


class ResearchPlan(Struct, frozen=True, kw_only=True):
    """The steps of a research as they are quoted, and how much the models may write in them.

    `search_model` is the name that searches go to: the chat vendor's own search where that was asked for.
    """

    asked: tuple[Asked, ...]
    search_model: str
    planning_tokens: int
    answer_tokens: int


async def planned(gate: Gate, request: ResearchRequest, word: str, context: CallContext) -> ResearchPlan:
    """Plan a research; raises what its calls would raise before anything is sent."""
    standing = await gate.access.standing(context.caller)
    directory = gate.directory_of(context.caller.tenant)
    on = context.received_at.date()
    room = _Room(standing=standing, directory=directory, on=on)
    probe = planning_request(request, 1)
    targets = await _chat_targets(gate, probe, standing, context)
    if request.is_grounded:
        name = _grounding(targets, directory)
        asked = await _search_asked(
            gate, search_request(request, grounding_query(request), name), room, context
        )
        return ResearchPlan(asked=(asked,), search_model=name, planning_tokens=0, answer_tokens=0)
    answer_tokens = _output_tokens(request.max_output_tokens, ANSWER_TOKENS, standing, targets)
    planning_tokens = _output_tokens(None, PLANNING_TOKENS, standing, targets)
    steps: list[Asked] = []
    query = query_of(request)
    if request.queries > 1:
        steps.append(_chat_asked(planning_request(request, planning_tokens), targets, room, "planning"))
        query = _WIDEST_QUERY
    search = search_request(request, query, request.search_model)
    steps += [await _search_asked(gate, search, room, context)] * request.queries
    sources = min(MOST_SOURCES, request.queries * request.results)
    largest = largest_request(request, sources, word, answer_tokens)
    steps.append(_chat_asked(largest, targets, room, "answering"))
    return ResearchPlan(
        asked=tuple(steps),
        search_model=request.search_model,
        planning_tokens=planning_tokens,
        answer_tokens=answer_tokens,
    )


def search_request(request: ResearchRequest, query: str, name: str) -> SearchRequest:
    """Return one search of a research."""
    return SearchRequest(
        model=name,
        query=query,
        kind="answer" if request.is_grounded else "web",
        wants_answer=request.is_grounded,
        fallbacks=request.search_fallbacks,
        max_results=None if request.is_grounded else request.results,
        include_domains=request.include_domains,
        exclude_domains=request.exclude_domains,
        start_date=request.start_date,
        end_date=request.end_date,
        time_range=request.time_range,
        country=request.country,
        language=request.search_language,
        depth=request.depth,
    )


class _Room(Struct, frozen=True, kw_only=True):
    """What a step is planned by: the caller's standing, and what can be had on a day."""

    standing: Standing
    directory: Directory
    on: date

    def dearest(self, choices: Sequence[Asked], name: str, fallbacks: Sequence[str]) -> Asked:
        """Return the choice that holds the most; those without a price only where there is none with one.

        By an alias it is asked for as such: a plan may allow the alias, and not its targets by their own names.
        """
        found = self._dearest(choices)
        is_alias = name in self.directory.catalog.aliases and not fallbacks
        return structs.replace(found, provider=None, model=name) if is_alias else found

    def _dearest(self, choices: Sequence[Asked]) -> Asked:
        strict = self.standing.is_strict
        plan = self.standing.plan
        found = [estimate(each, self.directory, plan, self.on).cost_nanos(strict=strict) for each in choices]
        priced = [(nanos, each) for nanos, each in zip(found, choices, strict=True) if nanos is not None]
        return max(priced, key=lambda each: each[0])[1] if priced else choices[0]


async def _chat_targets(
    gate: Gate, request: ChatRequest, standing: Standing, context: CallContext
) -> list[Target]:
    _, route = await gate.pipeline.routed(gate.working, "chat", request, context)
    targets = [each.target for each in route.candidates]
    return bounded_targets(request, targets) if standing.is_strict and standing.is_capped else targets


def _chat_asked(request: ChatRequest, targets: Sequence[Target], room: _Room, label: str) -> Asked:
    choices = []
    for target in targets:
        size = size_of_chat(request, target)
        choices.append(
            Asked(
                operation="chat",
                provider=target.provider,
                model=target.model.name,
                label=label,
                input_tokens=size.most_input if room.standing.is_strict else size.likely_input,
                max_tokens=request.max_output_tokens,
            )
        )
    return room.dearest(choices, request.model, request.fallbacks)


async def _search_asked(gate: Gate, request: SearchRequest, room: _Room, context: CallContext) -> Asked:
    offered = await gate.media.offered(gate.working, request, context)
    choices = []
    for bound in offered.bounds:
        fitted = offered.fittings[id(bound.target)].request
        choices.append(
            structs.replace(
                _search_asked_of(fitted, bound.target.model),
                provider=bound.target.provider,
                model=bound.target.model.name,
                label="searching",
            )
        )
    return room.dearest(choices, request.model, request.fallbacks)


def _search_asked_of(request: SearchRequest, model: Model) -> Asked:
    """Plan a fitted search at a product: what it bills at most, in searches of that depth."""
    most = billed(request, model)
    deep = model.search.advanced_credits if model.search is not None and request.depth == "advanced" else 1
    return Asked(
        operation="search",
        quality=request.depth or "basic",
        count=-(-most.requests // deep),
        pages=most.pages,
    )


def _output_tokens(wanted: int | None, usual: int, standing: Standing, targets: Sequence[Target]) -> int:
    """Return how much may come out: as the caller says, else as is usual and can be had."""
    allowed = standing.plan.max_output_tokens
    if wanted is not None:
        if allowed is not None and wanted > allowed:
            raise InvalidRequest(
                f"max_tokens: {wanted} is more than the plan {standing.plan.label!r} allows ({allowed})",
                param="max_tokens",
            )
        return wanted
    can_give = [target.model.max_output_tokens for target in targets if target.model.max_output_tokens]
    return min([usual, *can_give, *([] if allowed is None else [allowed])])


def _grounding(targets: Sequence[Target], directory: Directory) -> str:
    """Return the search of the first who may answer and has one."""
    for target in targets:
        if not target.deployment.codecs.does("search"):
            continue
        for model in directory.catalog.providers[target.provider].models.values():
            if model.search is not None and "answer" in model.search.kinds:
                return f"{target.provider}/{model.name}"
    raise InvalidRequest(
        f"search.provider.name: {targets[0].provider!r} has no search of its own, so that it cannot ground an answer",
        param="search.provider.name",
        code="grounding_not_available",
    )
