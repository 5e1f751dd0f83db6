"""Questions that are nearly the same: when they are compared, by what, on whose account, and how near is near."""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from support.gateway import RunningGateway, running_gateway
from support.upstream import Answer, FakeUpstream, Seen, fake_upstream

TOML = """
[cache]
exact = true
semantic = true
threshold = 0.9
model = "openai/text-embedding-3-small"

[cache.aliases.near]
threshold = 0.5

[aliases.near]
targets = ["openai/gpt-4o-mini"]

[aliases.other]
targets = ["openai/gpt-4o-mini"]
"""


class Vendor:
    """Answers chats with their number, and gives a text the angle of so many degrees as it has x's as its vector."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self.chats: list[Any] = []
        self.embedded: list[str] = []
        self.fails = False
        upstream.next_answer = self.answer  # type: ignore[method-assign]

    def answer(self, seen: Seen) -> Answer:
        if not seen.path.endswith("/embeddings"):
            self.chats.append(seen.json)
            message = {"role": "assistant", "content": f"answer {len(self.chats)}"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
            return Answer.json({"id": "x", "model": "m", "choices": [choice], "usage": usage})
        if self.fails:
            return Answer.json({"error": {"message": "down"}}, 500)
        (text,) = seen.json["input"] if isinstance(seen.json["input"], list) else [seen.json["input"]]
        self.embedded.append(text)
        angle = math.radians(text.count("x"))
        # Not of length one: that is the gateway's to see to.
        vector = [3 * math.cos(angle), 3 * math.sin(angle)]
        document = {"data": [{"embedding": vector, "index": 0}], "model": "e", "usage": {"prompt_tokens": 7}}
        return Answer.json(document)


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[RunningGateway, Vendor]]:
    with fake_upstream() as upstream:
        environment = {
            "OPENAI_API_KEY": "sk-fake-openai-0123456789",
            "LLM_GATE_OPENAI_BASE_URL": f"{upstream.url}/v1",
        }
        with running_gateway(environment, toml=TOML) as gateway:
            yield gateway, Vendor(upstream)


@pytest.fixture
def gateway(place) -> RunningGateway:
    return place[0]


@pytest.fixture
def vendor(place) -> Vendor:
    place[1].chats.clear()
    place[1].embedded.clear()
    return place[1]


_numbers = iter(range(1_000_000))


@pytest.fixture
def system() -> str:
    """Instructions that nobody has given yet, so that each test has a group of its own."""
    return f"Instructions {next(_numbers)}"


def at(angle: int) -> str:
    """Return a question at an angle. No number stands in it, since numbers must agree anyway."""
    return "tell me of " + "x" * angle


def ask(
    gateway: RunningGateway, system: str, text: str, *, threshold: str | None = None, **more: Any
) -> httpx.Response:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    body = {"model": "openai/gpt-4o-mini", "messages": messages, "temperature": 0, **more}
    headers = {} if threshold is None else {"x-llm-gate-cache-threshold": threshold}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=20)


def word(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-llm-gate-cache"]


def test_a_like_question_gets_the_answer_and_an_unlike_one_does_not(gateway, vendor, system):
    """Within the threshold it is a hit by meaning; beyond it, the vendor is asked."""
    assert word(ask(gateway, system, at(0))) == "miss"
    near = ask(gateway, system, at(20))
    assert (word(near), near.json()["choices"][0]["message"]["content"]) == ("semantic", "answer 1")
    assert near.headers["x-llm-gate-cost-usd"] == "0"
    assert word(ask(gateway, system, at(40))) == "miss"
    assert word(ask(gateway, system, at(0))) == "hit"
    streamed = ask(gateway, system, at(19), stream=True)
    assert word(streamed) == "semantic"
    assert "answer 1" in streamed.text
    assert len(vendor.chats) == 2


def test_callers_tighten_the_threshold_and_never_loosen_it(gateway, vendor, system):
    """A higher value counts, a lower one does nothing, anything else is refused."""
    ask(gateway, system, at(0))
    assert word(ask(gateway, system, at(10), threshold="0.99")) == "miss"
    assert word(ask(gateway, system, at(60), threshold="0.1")) == "miss"
    assert word(ask(gateway, system, at(1), threshold="0.99")) == "semantic"
    for wrong in ("1.1", "-0.1", "near", "nan"):
        refused = ask(gateway, system, at(1), threshold=wrong)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "x-llm-gate-cache-threshold"


def test_an_alias_may_have_a_threshold_of_its_own(gateway, vendor, system):
    """What is near enough is the operator's to say, name by name; a name is a world of its own."""
    for name, expected in (("near", "semantic"), ("other", "miss")):
        assert word(ask(gateway, system, at(0), model=name)) == "miss"
        assert word(ask(gateway, system, at(50), model=name)) == expected


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0.6},
        {"temperature": None},
        {"n": 2},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
    ],
)
def test_what_wants_variety_or_acts_is_not_compared(gateway, vendor, system, more):
    """Nothing is embedded for it; by its exact words it is kept all the same."""
    assert word(ask(gateway, system, at(0), **more)) == "miss"
    assert word(ask(gateway, system, at(1), **more)) == "miss"
    assert vendor.embedded == []
    assert word(ask(gateway, system, at(0), **more)) == "hit"


def test_a_picture_is_not_compared(gateway, vendor, system):
    """Two pictures may differ where their questions do not."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    text = [{"type": "text", "text": at(0)}, picture]
    assert word(ask(gateway, system, text)) == "miss"
    assert vendor.embedded == []


@pytest.mark.parametrize(
    "more",
    [{"temperature": 0.1}, {"max_tokens": 7}, {"seed": 3}, {"response_format": {"type": "json_object"}}],
)
def test_anything_but_the_last_words_parts_questions(gateway, vendor, system, more):
    """A like question with another parameter is another question."""
    assert word(ask(gateway, system, at(0))) == "miss"
    assert word(ask(gateway, system, at(1), **more)) == "miss"
    assert word(ask(gateway, f"{system}!", at(1))) == "miss"


def test_the_vector_is_paid_by_the_caller_and_recorded_as_what_it_is(gateway, vendor, system):
    """One record of an embedding for each comparison, with its tokens and its cost."""

    def embeddings() -> list[tuple[int, int]]:
        with closing(sqlite3.connect(gateway.folder / "data" / "llm-gate.db")) as connection:
            sql = "select input_tokens, cost_nanos from usage_record where operation = 'embedding'"
            return connection.execute(sql).fetchall()

    before = len(embeddings())
    number = next(_numbers)
    ask(gateway, system, f"{at(0)} {number}")
    assert embeddings()[before:] == [(7, 140)]
    ask(gateway, system, f"{at(0)} {number}")
    assert len(embeddings()) == before + 1


def test_without_vectors_the_call_goes_on(gateway, vendor, system):
    """A failing embedding model costs the comparison and nothing else."""
    ask(gateway, system, at(0))
    vendor.fails = True
    try:
        assert word(ask(gateway, system, at(60))) == "miss"
        assert word(ask(gateway, system, at(0))) == "hit"
    finally:
        vendor.fails = False


def test_only_if_cached_compares_nothing(gateway, vendor, system):
    """To compare costs something, which such a call would not pay."""
    ask(gateway, system, at(0))
    count = len(vendor.embedded)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": at(1)}]
    body = {"model": "openai/gpt-4o-mini", "messages": messages, "temperature": 0}
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions", json=body, headers={"cache-control": "only-if-cached"}
    )
    assert answer.status_code == 504
    assert len(vendor.embedded) == count


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("how many people lived there in 1990", "how many people lived there in 1991"),
        ("may I feed the dog grapes", "may I not feed the dog grapes"),
        ("how far is it from Oslo to Bergen", "how far is it from Bergen to Oslo"),
    ],
)
def test_questions_with_other_facts_are_never_compared(gateway, vendor, system, first, second):
    """A number, a denial or the order of names parts what vectors cannot tell apart."""
    assert word(ask(gateway, system, first)) == "miss"
    assert word(ask(gateway, system, f"please tell: {first}")) == "semantic"
    assert word(ask(gateway, system, second)) == "miss"
    assert len(vendor.chats) == 2
