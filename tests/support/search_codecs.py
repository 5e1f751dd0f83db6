"""Runs a search codec without a network: what it sends is kept, and it is answered what the test says."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from msgspec import structs

from llm_gate.catalog.loader import load_catalog, load_provider
from llm_gate.domain.catalog import Catalog, Model
from llm_gate.domain.provider import Facts, HttpReply, HttpRequest, Send, Target
from llm_gate.domain.search import SearchRequest, SearchResult
from llm_gate.domain.search_rules import fit_search
from support.targets import make_target

NOW_S = 1_795_219_200.0
"""2026-11-21, at midnight."""


@cache
def shipped() -> Catalog:
    """Return the catalog as it is shipped."""
    return load_catalog()


def product(name: str) -> Model:
    """Return a model by `provider/model`, as the catalog has it."""
    provider, _, model = name.partition("/")
    return shipped().providers[provider].models[model]


def search_target(name: str) -> Target:
    """Return a target by `provider/model`, as the catalog has it."""
    provider, _, model = name.partition("/")
    entry = shipped().providers[provider]
    target = make_target(
        provider=provider, codecs=load_provider(entry.spec, {}), base_url=entry.spec.base_url, spec=entry.spec
    )
    return structs.replace(target, model=entry.models[model])


@dataclass(frozen=True)
class Ran:
    """What a codec sent, and what it made of the answer."""

    sent: HttpRequest
    result: SearchResult

    @property
    def body(self) -> Any:
        """The body that was sent."""
        return json.loads(self.sent.body)


def asked(request: SearchRequest, name: str) -> HttpRequest:
    """Return what a codec sends for a search, fitted first."""
    target = search_target(name)
    wanted = next(_codec(target).run(fit_search(request, target.model), target, _FACTS))
    assert isinstance(wanted, Send)
    assert wanted.is_paid
    return wanted.request


def ran(request: SearchRequest, name: str, answer: object) -> Ran:
    """Run a codec over an answer, which is JSON unless it is bytes."""
    target = search_target(name)
    exchanges = _codec(target).run(fit_search(request, target.model), target, _FACTS)
    wanted = next(exchanges)
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    try:
        exchanges.send(HttpReply(status=200, headers={}, body=raw))
    except StopIteration as end:
        return Ran(sent=wanted.request, result=end.value)
    raise AssertionError("a search is one exchange")


def _codec(target: Target) -> Any:
    return target.deployment.codecs.media["search"]


_FACTS = Facts(now_s=NOW_S, token="0" * 32)
