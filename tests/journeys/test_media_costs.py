"""What media cost: what is told before, what is told after, and what stands in the books are the same."""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

import llm_gate.catalog
from llm_gate.storage.database import open_sqlite
from llm_gate.storage.schema import attempt, usage_record
from support.gateway import NATIVE_HEADERS, running_gateway
from support.media_vendors import KEYS, media_vendors, settings_at
from support.office import Desk, bearer
from support.pictures import in_base64, picture
from support.wavespeed_fake import WaveSpeedFake, mp3, mp4
from support.web import call

ROOT = "/llm-gate/v1"
PROVIDERS = ("openai", "gemini", "wavespeed", "stability", "huggingface", "xai")
DATA = Path(next(iter(llm_gate.catalog.__path__))) / "data"
ROUTES = {
    "image": "/images/generations",
    "image_edit": "/images/edits",
    "face_swap": "/images/face-swaps",
    "video": "/videos",
    "speech": "/audio/speech",
}
TEXT = "Grüße aus dem Süden, und viele davon."
WIDTH, HEIGHT = 1100, 1000
EXTRA: dict[str, dict[str, Any]] = {
    "stable-image-outpaint": {"left": 8},
    "stable-image-search-and-replace": {"search_prompt": "a hat"},
    "stable-image-search-and-recolor": {"select_prompt": "a hat"},
}
"""What some edits cannot do without; it is refused for strict plans, so that these models are asked for otherwise."""

UNPRICED = """
[[providers.stability.models]]
name = "stable-image-mystery"
deployment = "core"
operations = ["image"]
"""


@dataclass(frozen=True)
class Case:
    """An operation of a fixed price, what it depends on, and that price in nano-dollars by hand (None: not by hand)."""

    provider: str
    model: str
    operation: str
    resolution: str | None = None
    duration: int | None = None
    size: str | None = None
    nanos: int | None = None

    @property
    def name(self) -> str:
        """A name of its own, of plain letters."""
        parts = (self.provider, self.model.replace("/", "-"), self.operation, self.resolution, self.duration)
        return "-".join(str(part) for part in parts if part).lower().replace(".", "-").replace("_", "-")

    @property
    def quoted(self) -> dict[str, Any]:
        """The operation as a quote is asked about it."""
        said = {"size": self.size, "resolution": self.resolution, "duration": self.duration}
        said["characters"] = len(TEXT) if self.operation == "speech" else None
        who = {"name": self.provider, "model": {"name": self.model}}
        given = {name: value for name, value in said.items() if value is not None}
        return {"operation": self.operation, "provider": who, **given}

    @property
    def body(self) -> dict[str, Any]:
        """The operation as it is called."""
        given = in_base64(picture(128, 96))
        said = {"size": self.size, "resolution": self.resolution, "duration": self.duration}
        parameter = {name: value for name, value in said.items() if value is not None}
        if self.model in EXTRA:
            parameter["extra"] = EXTRA[self.model]
        who = {"provider": {"name": self.provider, "model": {"name": self.model}}}
        if self.operation == "face_swap":
            return {**who, "baseImage": given, "faceImage": given}
        prompt = {"message": TEXT, "parameter": parameter}
        return {**who, "prompt": prompt, **({"images": [given]} if self.operation == "image_edit" else {})}


def _cases() -> Iterator[Case]:
    """Yield every media operation of the vendors at hand whose price depends on nothing that only the vendor counts."""
    for provider in PROVIDERS:
        with (DATA / f"{provider}.toml").open("rb") as file:
            models = tomllib.load(file)["models"]
        for model in models:
            prices = [*model.get("prices", ()), *model.get("media_prices", ())]
            counted = any("instead_of" in price or "tokens" in price["unit"] for price in prices)
            if "retired_on" in model or not prices or counted:
                continue
            for operation in set(model.get("operations", ["chat"])) & ROUTES.keys():
                for price in prices:
                    yield _case(provider, model, operation, price, prices)


def _case(provider: str, model: Any, operation: str, price: Any, prices: list[Any]) -> Case:
    media = model.get("media", {})
    resolution = price.get("condition", {}).get("resolution")
    duration = media["durations_s"][-1] if "durations_s" in media else None
    units = {
        "images": 1,
        "requests": 1,
        "seconds": duration,
        "characters": len(TEXT),
        "megapixels": ceil(Decimal(WIDTH * HEIGHT) / 10**6),
    }
    nanos = None
    if len(prices) == 1 or resolution is not None:
        usd = Decimal(price["usd"]) * units[price["unit"]] / price.get("per", 1)
        nanos = int(max(usd, Decimal(price.get("minimum_usd", 0))) * 10**9)
    size = f"{WIDTH}x{HEIGHT}" if price["unit"] == "megapixels" else None
    return Case(provider, model["name"], operation, resolution, duration, size, nanos)


CASES = sorted({case.name: case for case in _cases()}.values(), key=lambda case: case.name)
BOUNDED = [case for case in CASES if case.model not in EXTRA]


class Studio(WaveSpeedFake):
    """A WaveSpeed that gives every model what it is there for."""

    def submit(self, model: str, payload: dict[str, Any], headers: Any) -> tuple[int, bytes]:
        """Take a task in, whose results are those of the operation, and answer."""
        self.plan(model, states=("completed",))
        answer = super().submit(model, payload, headers)
        task = self.tasks[json.loads(answer[1])["data"]["id"]]
        does = next((each.operation for each in CASES if each.model in {model, model.rpartition("/")[2]}), "")
        made = {"video": ("video/mp4", mp4()), "speech": ("audio/mpeg", mp3())}.get(does)
        for output in task.outputs if made else ():
            self.files[output.rpartition("/")[2]] = made
        return answer


@dataclass
class Market:
    """A gateway, its vendors, and users with just enough money or just too little."""

    gateway: Any
    vendors: Any
    wavespeed: Any
    desk: Desk
    key: str
    quotes: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)

    def ask(self, user: str, path: str, body: Any) -> Any:
        """Make a call as a user."""
        headers = {**NATIVE_HEADERS, "X-User-Id": user, **bearer(self.key)}
        return call(self.gateway.url, f"{ROOT}{path}", body, headers)

    def orders(self) -> int:
        """Return how often any vendor was asked for work, or where to have it done."""
        heard = sum(1 for each in self.vendors.heard if each.method == "POST" or each.vendor == "api")
        return heard + len(self.wavespeed.submissions)

    def recorded(self, user: str) -> tuple[list[Any], list[Any]]:
        """Return the records of a user, and their attempts."""
        database = open_sqlite(self.gateway.folder / "data")
        try:
            found = select(usage_record).where(usage_record.c.user_id == user)
            records = database.ask(lambda c: c.execute(found).all())
            ids = [each.id for each in records]
            tried = select(attempt).where(attempt.c.record_id.in_(ids))
            return records, database.ask(lambda c: c.execute(tried).all())
        finally:
            database.close()

    def end_of(self, user: str, job: str) -> Any:
        """Return how a job ended, once it has."""
        headers = {**NATIVE_HEADERS, "X-User-Id": user, **bearer(self.key)}
        return call(self.gateway.url, f"{ROOT}/jobs/{job}/events", headers=headers).events[-1]


def nanos_of(usd: object) -> int:
    """Return dollars as they are written in nano-dollars, of which there must be a whole number."""
    nanos = Decimal(str(usd)) * 10**9
    assert nanos == int(nanos), usd
    return int(nanos)


def usd_of(nanos: int) -> str:
    """Return nano-dollars in dollars."""
    return f"{nanos // 10**9}.{nanos % 10**9:09}"


@pytest.fixture(scope="module")
def market():
    """Quote everything, give each operation a user with exactly that much and one with a nano-dollar less."""
    with (
        media_vendors() as vendors,
        Studio() as wavespeed,
        running_gateway(KEYS, toml=settings_at(vendors, wavespeed) + UNPRICED) as gateway,
    ):
        desk = Desk(gateway)
        made = Market(gateway, vendors, wavespeed, desk, desk.key_for(client=NATIVE_HEADERS["client_id"]))
        desk.until(lambda: made.ask("planner", "/jobs", None).status == 200)
        for start in range(0, len(CASES), 50):
            some = CASES[start : start + 50]
            answer = made.ask("planner", "/quotes", {"operations": [case.quoted for case in some]})
            assert answer.status == 200, answer.body
            for case, line in zip(some, json.loads(answer.body, parse_float=str)["operations"], strict=True):
                assert line["cost"]["min"] == line["cost"]["expected"] == line["cost"]["max"], line
                made.quotes[case.name] = nanos_of(line["cost"]["max"])
        plans: set[str] = set()
        for case in CASES:
            for user, nanos in (("exact", made.quotes[case.name]), ("under", made.quotes[case.name] - 1)):
                mode = "strict" if case in BOUNDED else "balanced"
                plan = f"{mode}-{nanos}"
                if plan not in plans:
                    limits = {"monthly_cost_usd": usd_of(nanos)}
                    desk.do(f"/plans/{plan}", {"limits": limits, "mode": mode})
                    plans.add(plan)
                desk.do(f"/subscriptions/{user}-{case.name}", {"plan": plan})
        yield made
    assert vendors.violations == []


@pytest.fixture(scope="module")
def films(market):
    """Order all films at once, so that they are made side by side."""
    for case in CASES:
        if case.operation == "video":
            answer = market.ask(f"exact-{case.name}", ROUTES["video"], case.body)
            market.jobs[case.name] = answer.json["id"] if answer.status == 202 else answer.body
    return market.jobs


def test_no_operation_is_left_out():
    """The list holds all five operations and each vendor that has fixed prices."""
    assert {case.operation for case in CASES} == set(ROUTES)
    assert {case.provider for case in CASES} == {"gemini", "wavespeed", "stability", "huggingface", "xai"}
    assert len(CASES) > 50


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_too_little_money_is_refused_before_the_vendor_hears_of_it(market, films, case):
    """A nano-dollar less than the price is a 429, and nobody is asked for anything."""
    del films
    before = market.orders()
    answer = market.ask(f"under-{case.name}", ROUTES[case.operation], case.body)

    assert answer.status == 429, answer.body
    assert "monthly_cost_usd" in answer.body.decode()
    assert market.orders() == before
    assert [each.cost_nanos for each in market.recorded(f"under-{case.name}")[0]] in ([], [0])


@pytest.mark.parametrize(
    "case", [each for each in CASES if each.operation != "video"], ids=lambda case: case.name
)
def test_the_price_is_the_one_that_was_told(market, case):
    """Quote, header, body, record and attempt agree to the nano-dollar, and that much money is enough."""
    quoted, user = market.quotes[case.name], f"exact-{case.name}"
    answer = market.ask(user, ROUTES[case.operation], case.body)
    assert answer.status == 200, answer.body

    assert quoted == case.nanos or case.nanos is None
    assert nanos_of(answer.headers["x-llm-gate-cost-usd"]) == quoted
    assert nanos_of(json.loads(answer.body, parse_float=str)["cost"]["total"]) == quoted
    (record,), (only,) = market.recorded(user)
    assert (record.status, record.operation) == ("ok", case.operation)
    assert (record.cost_nanos, only.cost_nanos) == (quoted, quoted)
    assert market.ask(user, ROUTES[case.operation], case.body).status == 429


@pytest.mark.parametrize(
    "case", [each for each in CASES if each.operation == "video"], ids=lambda case: case.name
)
def test_the_price_of_a_film_is_the_one_that_was_told(market, films, case):
    """Quote, job, record and attempt agree to the nano-dollar, and that much money is enough."""
    quoted, user = market.quotes[case.name], f"exact-{case.name}"
    assert isinstance(films[case.name], str), films[case.name]
    end = market.end_of(user, films[case.name])

    assert end["status"] == "succeeded", end
    assert quoted == case.nanos or case.nanos is None
    assert nanos_of(end["cost"]["total"]) == quoted
    (record,), (only,) = market.recorded(user)
    assert (record.status, record.operation) == ("ok", "video")
    assert (record.cost_nanos, only.cost_nanos) == (quoted, quoted)


@pytest.mark.parametrize("model", ["stable-image-mystery", "unheard-of"])
def test_what_has_no_price_is_not_for_those_with_a_limit(market, model):
    """Where money is limited, an unknown price is refused unasked; where it is not, the cost is unknown."""
    body = {
        "provider": {"name": "stability", "model": {"name": model}},
        "prompt": {"message": "A cat", "parameter": {}},
    }
    before = market.orders()
    refused = market.ask(f"exact-{CASES[0].name}", ROUTES["image"], body)
    assert 400 <= refused.status < 500, refused.body
    assert "price" in refused.body.decode()
    assert market.orders() == before

    if model != "unheard-of":
        answer = market.ask("free", ROUTES["image"], body)
        assert answer.status == 200, answer.body
        (record,), _ = market.recorded("free")
        assert record.cost_nanos is None
        assert "x-llm-gate-cost-usd" not in answer.headers
