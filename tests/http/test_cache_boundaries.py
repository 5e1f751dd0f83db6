"""Whose answers the cache gives to whom, and that limits, plans and guards hold for what it gives."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.gateway import RunningGateway, running_gateway
from support.office import Desk
from support.upstream import Answer, FakeUpstream, fake_upstream

TOML = """
[cache]
exact = true
{scope}

[cache.plans.own]
namespace = "own"

[cache.plans.without]
exact = false

[guards]
output = ["cache_guards:no_marked"]

[plans.custom.few]
limits = {{ text_calls = 2 }}

[plans.custom.short]
max_output_tokens = 10

[plans.custom.own]
limits = {{ text_calls = 1000 }}

[plans.custom.without]
limits = {{ text_calls = 1000 }}
"""
# What is forbidden is read anew for every answer, so that it can change after one was kept.
GUARDS = """
from pathlib import Path
from llm_gate.domain.errors import GuardRefused

def no_marked(guarded):
    word = Path(__file__).with_name("word.txt").read_text()
    if word and any(word in text for text in guarded.texts):
        raise GuardRefused("a marked word")
"""


class Place:
    """A gateway with keys of several tenants."""

    def __init__(self, gateway: RunningGateway, vendor: FakeUpstream, folder: Path) -> None:
        self.gateway = gateway
        self.vendor = vendor
        self.folder = folder
        self.desk = Desk(gateway)
        self._keys: dict[str, str] = {}

    def forbid(self, word: str) -> None:
        (self.folder / "word.txt").write_text(word)

    def key(self, tenant: str = "default", **fields: Any) -> str:
        name = f"{tenant}/{fields}"
        if name not in self._keys:
            self._keys[name] = self.desk.key_for(tenant, **fields)
        return self._keys[name]

    def subscribe(self, user: str, plan: str) -> None:
        self.desk.do(f"/subscriptions/{user}", {"plan": plan})

    def ask(self, key: str, text: str, *, user: str | None = None, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        if user is not None:
            headers["x-user-id"] = user
        body = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}
        return httpx.post(f"{self.gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=20)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.gateway.folder / "data" / "llm-gate.db")) as connection:
            return connection.execute(sql).fetchall()


def completion(text: str) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Answer.json(
        {
            "id": "chatcmpl-1",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
        }
    )


def placed(tmp: Path, scope: str) -> Iterator[Place]:
    (tmp / "cache_guards.py").write_text(GUARDS)
    (tmp / "word.txt").write_text("")
    with fake_upstream() as vendor:
        environment = {
            "OPENAI_API_KEY": "sk-fake-openai-0123456789",
            "LLM_GATE_OPENAI_BASE_URL": f"{vendor.url}/v1",
            "PYTHONPATH": str(tmp),
        }
        with running_gateway(environment, toml=TOML.format(scope=scope)) as gateway:
            yield Place(gateway, vendor, tmp)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    yield from placed(tmp_path_factory.mktemp("guards"), "")


@pytest.fixture(scope="module")
def private(tmp_path_factory) -> Iterator[Place]:
    yield from placed(tmp_path_factory.mktemp("guards"), 'scope = "user"')


_numbers = iter(range(1_000_000))


@pytest.fixture
def question() -> str:
    """A question that nobody has asked yet."""
    return f"Question {next(_numbers)}"


def words(*answers: httpx.Response) -> list[str]:
    assert [answer.status_code for answer in answers] == [200] * len(answers), [a.text for a in answers]
    return [answer.headers["x-llm-gate-cache"] for answer in answers]


def said(answer: httpx.Response) -> str:
    return answer.json()["choices"][0]["message"]["content"]


def test_twin_tenants_never_meet(place, question):
    """Two tenants with the same question get answers of their own, and keep getting those."""
    place.vendor.will(completion("for the first"), completion("for the second"))
    first, second = place.key(), place.key("two")
    answers = [place.ask(key, question) for key in (first, second, first, second)]
    assert words(*answers) == ["miss", "miss", "hit", "hit"]
    assert [said(each) for each in answers] == [
        "for the first",
        "for the second",
        "for the first",
        "for the second",
    ]


def test_keys_and_users_of_one_tenant_share(place, question):
    """By default, what one of a tenant has paid is there for all of it."""
    place.vendor.will(completion("shared"))
    answers = [
        place.ask(place.key(), question, user="ann"),
        place.ask(place.key(), question, user="ben"),
        place.ask(place.key(client="other"), question),
    ]
    assert words(*answers) == ["miss", "hit", "hit"]


def test_users_alone_share_with_nobody(private, question):
    """With the scope of the user, the same id at another application is somebody else."""
    private.vendor.will(completion("1"), completion("2"), completion("3"))
    key, other = private.key(), private.key(client="other")
    answers = [
        private.ask(key, question, user="ann"),
        private.ask(key, question, user="ben"),
        private.ask(other, question, user="ann"),
        private.ask(key, question, user="ann"),
    ]
    assert words(*answers) == ["miss", "miss", "miss", "hit"]
    assert said(answers[3]) == "1"


def test_limits_bind_on_hits(place, question):
    """A kept answer counts as a call; beyond the limit it is the usual refusal."""
    place.vendor.will(completion("counted"))
    key = place.key()
    place.subscribe("few", "few")
    first, second, third = (place.ask(key, question, user="few") for _ in range(3))
    assert words(first, second) == ["miss", "hit"]
    assert third.status_code == 429
    assert third.json()["error"]["code"] == "quota_exceeded"
    assert "x-llm-gate-cache" not in third.headers
    streamed = place.ask(key, question, user="few", stream=True)
    assert streamed.status_code == 429
    counted = "select count(*), sum(cost_nanos), sum(tokens) from usage_record where user_id = 'few'"
    assert place.rows(counted) == [(2, 45_000, 150)]


def test_a_plans_rule_goes_before_the_usual_one(place, question):
    """A plan may have a namespace of its own, or no cache at all."""
    place.vendor.will(*(completion(str(number)) for number in range(9)))
    key = place.key()
    place.subscribe("apart", "own")
    place.subscribe("bare", "without")
    assert words(place.ask(key, question, user="ann")) == ["miss"]
    assert words(*(place.ask(key, question, user="apart") for _ in range(2))) == ["miss", "hit"]
    bare = [place.ask(key, question, user="bare") for _ in range(2)]
    assert [each.headers.get("x-llm-gate-cache") for each in bare] == [None, None]
    assert said(bare[0]) != said(bare[1])


def test_a_plans_output_limit_makes_another_question(place, question):
    """Who may have but a short answer does not get a long one that somebody else paid."""
    place.vendor.will(completion("long"), completion("short"))
    key = place.key()
    place.subscribe("brief", "short")
    assert said(place.ask(key, question, user="ann")) == "long"
    answer = place.ask(key, question, user="brief")
    assert (words(answer), said(answer)) == (["miss"], "short")
    assert json.loads(place.vendor.seen[-1].body)["max_completion_tokens"] == 10


def test_a_key_that_may_not_call_a_model_gets_no_kept_answer_of_it(place, question):
    """Being allowed comes before being answered."""
    place.vendor.will(completion("for those who may"))
    place.ask(place.key(), question)
    refused = place.ask(place.key(allowed_models=["sandbox/*"]), question)
    assert refused.status_code == 403


@pytest.mark.parametrize("stream", [False, True])
def test_a_guard_that_came_later_sees_kept_answers_too(place, question, stream):
    """What is forbidden now is not given, though it was fine when it was kept."""
    place.vendor.will(completion("a purple word"))
    key = place.key()
    assert words(place.ask(key, question)) == ["miss"]
    place.forbid("purple")
    try:
        refused = place.ask(key, question, stream=stream)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "guard_refused"
    finally:
        place.forbid("")
    assert words(place.ask(key, question)) == ["hit"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_guard_refused_is_never_kept(place, question, stream):
    """A refused answer is paid, and asked for again once the guard has nothing against it."""
    pieces = [
        b'data: {"choices": [{"index": 0, "delta": {"content": "a purple word"}, "finish_reason": null}]}\n\n',
        b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n',
        b"data: [DONE]\n\n",
    ]
    refused = Answer.events(*pieces) if stream else completion("a purple word")
    place.vendor.will(refused, completion("a purple word"))
    place.forbid("purple")
    try:
        assert "guard_refused" in place.ask(place.key(), question, stream=stream).text
    finally:
        place.forbid("")
    assert words(place.ask(place.key(), question)) == ["miss"]
    assert len(place.vendor.seen) == 2
