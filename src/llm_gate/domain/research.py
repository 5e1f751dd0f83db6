"""Grounded research: a question answered from what a search found, with citations that point at it.

Everything a search found was written by strangers: it is data, and nothing in it is ever acted upon.
"""

from datetime import date
from typing import Literal

from msgspec import Struct

from llm_gate.domain.catalog import Operation
from llm_gate.domain.search import TimeRange
from llm_gate.domain.usage import Usage

MOST_QUERIES = 5
"""How many searches one research may make."""

MOST_RESULTS = 20
"""How many results one search may be asked for."""

USUAL_RESULTS = 8
"""How many it is asked for where nobody says."""

MOST_SOURCES = 20
"""How many sources are read at most, whatever the searches found."""

MOST_QUESTION_CHARS = 4_000
"""How long a question may be."""

MOST_INSTRUCTION_CHARS = 4_000
"""How long the caller's own instructions may be."""

MOST_LANGUAGE_CHARS = 100
"""How long the name of a language may be."""

GROUNDING = "grounding"
"""The name that stands for the chat vendor's own search, in the place of a search provider."""

ResearchStep = Literal["planning", "searching", "answering"]
"""The steps that cost something. "planning" writes the queries, where there are several."""


class ResearchRequest(Struct, frozen=True, kw_only=True):
    """A question to be answered from the web. None means that the caller did not say.

    `model` and `fallbacks` name who answers, `search_model` and `search_fallbacks` who searches; the word "grounding"
    lets the one who answers search by its own means. `queries` above 1 lets the model write as many of them first.
    The filters are those of a search. `language` is the answer's, as people or ISO 639 call it; `instructions` say how
    the answer is to be written.
    """

    question: str
    model: str = ""
    fallbacks: tuple[str, ...] = ()
    search_model: str = ""
    search_fallbacks: tuple[str, ...] = ()
    queries: int = 1
    max_results: int | None = None
    include_domains: tuple[str, ...] = ()
    exclude_domains: tuple[str, ...] = ()
    start_date: date | None = None
    end_date: date | None = None
    time_range: TimeRange | None = None
    country: str | None = None
    search_language: str | None = None
    depth: Literal["basic", "advanced"] | None = None
    max_output_tokens: int | None = None
    language: str | None = None
    instructions: str | None = None
    stream: bool = False

    @property
    def results(self) -> int:
        """How many results each search is asked for."""
        return USUAL_RESULTS if self.max_results is None else self.max_results

    @property
    def is_grounded(self) -> bool:
        """Whether the one who answers is to search by its own means."""
        return self.search_model == GROUNDING


class Source(Struct, frozen=True, kw_only=True):
    """Something that was found, as the answer cites it: `index` counts from 1, `query` is what found it first."""

    index: int
    url: str
    title: str
    text: str = ""
    published_at: str | None = None
    query: str = ""


class Citation(Struct, frozen=True, kw_only=True):
    """A number that stands in the answer, and the source it points at."""

    index: int
    url: str
    title: str


class StepReport(Struct, frozen=True, kw_only=True):
    """What one step took and cost, failed attempts included, as the ledger has it.

    `cost_nanos` is None where a price or a count is unknown. `error` is the code of what made the step fail; then
    nobody answered it, and `provider` and `model` are None.
    """

    step: ResearchStep
    operation: Operation
    provider: str | None
    model: str | None
    usage: Usage | None
    cost_nanos: int | None
    duration_ms: int
    query: str | None = None
    error: str | None = None
    synthetic: bool = False


class ResearchResult(Struct, frozen=True, kw_only=True):
    """An answer with what it stands on. `citations` are the numbers that stand in it, in their order.

    `sources` are all that was read; `notes` say what was done otherwise than asked, or is missing. `usage` and
    `cost_nanos` are those of all steps together, None where one is unknown.
    """

    answer: str
    citations: tuple[Citation, ...]
    sources: tuple[Source, ...]
    notes: tuple[str, ...]
    steps: tuple[StepReport, ...]
    usage: Usage | None
    cost_nanos: int | None

    @property
    def answerer(self) -> StepReport | None:
        """The step that gave the answer; None where there was nothing to answer from."""
        return next(
            (step for step in reversed(self.steps) if step.error is None and step.query is None), None
        )


class Planning(Struct, frozen=True, kw_only=True):
    """The queries are being written."""


class Searching(Struct, frozen=True, kw_only=True):
    """A search begins."""

    query: str


class Reading(Struct, frozen=True, kw_only=True):
    """The searches are over; these are the sources."""

    sources: tuple[Source, ...]


class Answering(Struct, frozen=True, kw_only=True):
    """The answer is being written from so many sources."""

    sources: int


class AnswerDelta(Struct, frozen=True, kw_only=True):
    """A piece of the answer, in which every citation points at a source."""

    text: str


ResearchEvent = Planning | Searching | Reading | Answering | AnswerDelta | ResearchResult
"""What happens in a research, in this order; the result is the last, and only of one that is complete."""
