"""What searches cost: what is told before, what is told after, and what stands in the books are the same."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from llm_gate.storage.database import open_sqlite
from llm_gate.storage.schema import attempt, usage_record
from support.gateway import NATIVE_HEADERS, running_gateway
from support.office import Desk, bearer
from support.search_fakes import KEYS, SearchVendors, search_vendors
from support.upstream import Answer
from support.web import call

ROOT = "/llm-gate/v1"
URLS = [f"https://a.org/{number}" for number in range(4)]


@dataclass(frozen=True)
class Case:
    """A search, how a quote is asked about it, and its price in nano-dollars by hand."""

    name: str
    provider: str
    model: str
    nanos: int
    said: dict[str, Any] = field(default_factory=dict)
    quoted: dict[str, Any] = field(default_factory=dict)

    @property
    def who(self) -> dict[str, Any]:
        """The product that is named."""
        return {"provider": {"name": self.provider, "model": {"name": self.model}}}

    @property
    def body(self) -> dict[str, Any]:
        """The search as it is called."""
        query = {} if "urls" in self.said else {"query": "heat pumps"}
        return {**self.who, **query, **self.said}

    @property
    def asked(self) -> dict[str, Any]:
        """The search as a quote is asked about it."""
        return {"operation": "search", **self.who, **self.quoted}


BASIC, ADVANCED = {"quality": "basic"}, {"quality": "advanced"}
CASES = (
    Case("tavily", "tavily", "tavily-search", 1_000_000),
    Case("tavily-news", "tavily", "tavily-search", 1_000_000, {"kind": "news", "maxResults": 20}),
    Case(
        "tavily-answer", "tavily", "tavily-search", 1_000_000, {"includeAnswer": True, "includeContent": True}
    ),
    Case("tavily-advanced", "tavily", "tavily-search", 2_000_000, {"depth": "advanced"}, ADVANCED),
    Case("exa", "exa", "exa-search", 5_000_000, {"includeContent": True}, BASIC),
    Case("exa-25", "exa", "exa-search", 5_000_000, {"maxResults": 25}, BASIC),
    Case("exa-40", "exa", "exa-search", 20_000_000, {"maxResults": 40}, {**BASIC, "pages": 15}),
    Case("exa-deep", "exa", "exa-search", 12_000_000, {"depth": "advanced"}, ADVANCED),
    Case("exa-contents", "exa", "exa-contents", 4_000_000, {"kind": "contents", "urls": URLS}, {"pages": 4}),
    Case("exa-answer", "exa", "exa-answer", 5_000_000, {"kind": "answer"}),
    Case("serper", "serper", "serper-search", 1_000_000),
    Case("serper-images", "serper", "serper-search", 1_000_000, {"kind": "images", "maxResults": 10}),
    Case("serper-wide", "serper", "serper-search", 2_000_000, {"maxResults": 30}, {"count": 2}),
)


@dataclass
class Market:
    """A gateway, its vendors, and users with just enough money or just too little."""

    gateway: Any
    vendors: SearchVendors
    desk: Desk
    key: str

    def ask(self, user: str, path: str, body: Any) -> Any:
        """Make a call as a user."""
        headers = {**NATIVE_HEADERS, "X-User-Id": user, **bearer(self.key)}
        return call(self.gateway.url, f"{ROOT}{path}", body, headers)

    def recorded(self, user: str) -> tuple[list[Any], list[Any]]:
        """Return the records of a user, and their attempts."""
        database = open_sqlite(self.gateway.folder / "data")
        try:
            found = select(usage_record).where(usage_record.c.user_id == user)
            records = database.ask(lambda c: c.execute(found).all())
            tried = select(attempt).where(attempt.c.record_id.in_([each.id for each in records]))
            return records, database.ask(lambda c: c.execute(tried).all())
        finally:
            database.close()


def nanos_of(usd: object) -> int:
    """Return dollars as they are written in nano-dollars, of which there must be a whole number."""
    nanos = Decimal(str(usd)) * 10**9
    assert nanos == int(nanos), usd
    return int(nanos)


def usd_of(nanos: int) -> str:
    """Return nano-dollars in dollars."""
    return f"{nanos // 10**9}.{nanos % 10**9:09}"


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    """Give each case a strict user with exactly its price, and one with a nano-dollar less."""
    with search_vendors() as vendors, running_gateway(KEYS, toml=vendors.toml) as gateway:
        desk = Desk(gateway)
        for nanos in {each.nanos - less for each in CASES for less in (0, 1)}:
            desk.do(
                f"/plans/strict-{nanos}", {"limits": {"monthly_cost_usd": usd_of(nanos)}, "mode": "strict"}
            )
        for case in CASES:
            desk.do(f"/subscriptions/exact-{case.name}", {"plan": f"strict-{case.nanos}"})
            desk.do(f"/subscriptions/under-{case.name}", {"plan": f"strict-{case.nanos - 1}"})
        key = desk.key_for(client=NATIVE_HEADERS["client_id"])
        made = Market(gateway, vendors, desk, key)
        desk.until(lambda: made.ask("planner", "/quotes", {"operations": [CASES[0].asked]}).status == 200)
        yield made
    assert vendors.violations == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_price_is_the_one_that_was_told(market, case):
    """Quote, header, body, record and attempt agree to the nano-dollar; a nano-dollar less is refused, unasked."""
    quote = market.ask("planner", "/quotes", {"operations": [case.asked]})
    (line,) = json.loads(quote.body, parse_float=str)["operations"]
    before = len(market.vendors.heard)
    refused = market.ask(f"under-{case.name}", "/search", case.body)
    unasked = len(market.vendors.heard) == before
    answer = market.ask(f"exact-{case.name}", "/search", case.body)
    assert answer.status == 200, answer.body

    assert [nanos_of(line["cost"][each]) for each in ("min", "expected", "max")] == [case.nanos] * 3
    assert (refused.status, unasked) == (429, True)
    assert nanos_of(answer.headers["x-llm-gate-cost-usd"]) == case.nanos
    assert nanos_of(json.loads(answer.body, parse_float=str)["cost"]["total"]) == case.nanos
    (record,), (only,) = market.recorded(f"exact-{case.name}")
    assert (record.status, record.operation) == ("ok", "search")
    assert (record.cost_nanos, only.cost_nanos) == (case.nanos, case.nanos)
    assert market.ask(f"exact-{case.name}", "/search", case.body).status == 429


def test_what_the_quote_leaves_open_is_bounded(market):
    """A quote that does not say how thorough a search is to be holds for either way."""
    body = {"operations": [{"operation": "search", "provider": {"name": "exa"}}]}
    (line,) = json.loads(market.ask("planner", "/quotes", body).body, parse_float=str)["operations"]

    assert [nanos_of(line["cost"][each]) for each in ("min", "expected", "max")] == [
        5_000_000,
        5_000_000,
        12_000_000,
    ]


def test_less_than_the_bound_is_billed_as_it_came(market):
    """Fewer credits, results or pages than could have been cost less, and the rest of what was held is given back."""
    market.vendors.plan("serper", Answer.json({"organic": [], "credits": 1}))
    market.vendors.plan(
        "exa", Answer.json({"results": [{"url": "https://a.org/"}], "costDollars": {"total": 0.3}})
    )
    serper = market.ask("free", "/search", CASES[-1].body)
    exa = market.ask("free", "/search", CASES[6].body)

    assert nanos_of(serper.headers["x-llm-gate-cost-usd"]) == 1_000_000
    assert nanos_of(exa.headers["x-llm-gate-cost-usd"]) == 5_000_000
    records, tried = market.recorded("free")
    assert sorted(each.cost_nanos for each in records) == [1_000_000, 5_000_000]
    assert sorted(each.vendor_cost_nanos or 0 for each in tried) == [0, 300_000_000]


def test_vendors_own_fields_are_not_for_strict_plans(market):
    """Fields that may change the price are refused where every call must be bounded, and nobody is asked."""
    before = len(market.vendors.heard)
    answer = market.ask("exact-tavily", "/search", {**CASES[0].body, "extra": {"include_images": True}})

    assert answer.status == 400
    assert answer.json["errorDetails"][0]["details"] == "include_images"
    assert len(market.vendors.heard) == before
