"""Both search routes as somebody meets them without any vendor's key: the sandbox's results obey every filter."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gateway import NATIVE_HEADERS, RunningGateway, running_gateway
from support.web import WebAnswer, call

GUARDS = '[guards]\ninput = ["support.guarding:no_secrets"]\n'


@pytest.fixture(scope="module")
def guarded() -> Iterator[RunningGateway]:
    with running_gateway({"PYTHONPATH": str(Path(__file__).parents[1])}, toml=GUARDS) as running:
        yield running


def native(gateway: RunningGateway, **body: object) -> WebAnswer:
    return call(gateway.url, "/llm-gate/v1/search", body, NATIVE_HEADERS)


def compatible(gateway: RunningGateway, path: str = "", **body: object) -> WebAnswer:
    return call(gateway.url, f"/v1/search{path}", body)


def test_the_native_answer(gateway):
    """The parts of an answer stand under the names that are documented, and say that all is made up."""
    answer = native(gateway, query="heat pumps", maxResults=2)
    body = answer.json

    assert answer.status == 200
    assert body["provider"] == {"name": "sandbox", "model": {"name": "search"}}
    assert (body["query"], len(body["results"]), body["synthetic"]) == ("heat pumps", 2, True)
    assert body["results"][0].keys() == {"title", "url", "snippet", "score", "published_at"}
    assert body["results"][0]["title"] == "Synthetic page 1: heat pumps"
    assert body["results"][0]["url"].startswith("https://sandbox.example/web/")
    assert body["usage"] == {"requests": 1}
    assert body["cost"] == {"total": 0, "currency": "USD"}
    assert body["notes"] == ["synthetic: made by the LLM Gate sandbox"]
    assert answer.headers["x-llm-gate-provider"] == "sandbox"
    assert answer.headers["x-llm-gate-synthetic"] == "true"
    assert answer.headers["x-llm-gate-cost-usd"] == "0"
    assert answer.headers["x-llm-gate-attempts"] == "1"


def test_the_same_question_has_the_same_results(gateway):
    """The sandbox is deterministic: the request alone decides what is found."""
    assert native(gateway, query="a").body == native(gateway, query="a").body
    assert native(gateway, query="a").body != native(gateway, query="b").body


def test_the_sandbox_obeys_domains(gateway):
    """Only wanted hosts occur, none that is not wanted, and nothing at all where none is left."""
    wanted = native(gateway, query="a", maxResults=4, includeDomains=["arxiv.org", "BBC.co.uk"]).json
    without = native(gateway, query="a", excludeDomains=["sandbox.example"]).json
    narrowed = native(
        gateway, query="a", includeDomains=["blog.arxiv.org", "bbc.co.uk"], excludeDomains=["arxiv.org"]
    ).json
    nothing = native(
        gateway, query="a", excludeDomains=["sandbox.example", "sandbox.test", "sandbox.invalid"]
    )

    assert {each["url"].split("/")[2] for each in wanted["results"]} == {"arxiv.org", "bbc.co.uk"}
    assert {each["url"].split("/")[2] for each in without["results"]} == {"sandbox.test"}
    assert {each["url"].split("/")[2] for each in narrowed["results"]} == {"bbc.co.uk"}
    assert (nothing.status, nothing.json["results"]) == (200, [])


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2025-03-01", "2025-03-02"),
        ("2020-01-01", "2020-01-01"),
        (None, "1999-12-31"),
        ("2025-01-01", None),
        ("9999-12-31", None),
    ],
)
def test_the_sandbox_obeys_dates(gateway, start, end):
    """Every date lies between the two, both included."""
    dates = {name: day for name, day in (("startDate", start), ("endDate", end)) if day is not None}
    results = native(gateway, query="a", maxResults=20, **dates).json["results"]

    assert len(results) == 20
    assert all((start or "0001") <= each["published_at"] <= (end or "9999-12-31") for each in results)


def test_kinds_answers_and_contents(gateway):
    """Pictures have an address of their own, answers and contents come where they are wanted, pages where named."""
    image = native(gateway, query="a", kind="images", maxResults=1).json["results"][0]
    answered = native(gateway, query="what?", includeAnswer=True, includeContent=True, maxResults=1).json
    asked = native(gateway, query="what?", kind="answer").json
    read = native(gateway, kind="contents", urls=["https://a.org/x", "https://b.org/"]).json

    assert image["extra"] == {"imageUrl": image["url"] + ".png"}
    assert "You asked: what?" in answered["answer"]
    assert "synthetic" in answered["results"][0]["content"]
    assert "You asked: what?" in asked["answer"]
    assert [each["url"] for each in read["results"]] == ["https://a.org/x", "https://b.org/"]
    assert all("synthetic" in each["content"] for each in read["results"])


def test_the_compatible_answer(gateway):
    """`/v1/search` answers in the form that clients of OpenAI-like gateways know, with the usual headers."""
    answer = compatible(gateway, query="heat pumps", max_results=2, country="US")

    assert answer.status == 200
    assert answer.json.keys() == {"object", "results"}
    assert answer.json["object"] == "search"
    assert [each.keys() for each in answer.json["results"]] == [{"title", "url", "snippet", "date"}] * 2
    assert answer.headers["x-llm-gate-provider"] == "sandbox"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sandbox", {}),
        ("/sandbox/search", {}),
        ("", {"search_tool_name": "sandbox"}),
        ("", {"search_provider": "sandbox"}),
        ("", {"model": "sandbox/search"}),
        ("/sandbox", {"search_provider": "sandbox"}),
        ("", {"query": ["heat pumps"]}),
    ],
)
def test_who_searches_is_named_in_several_ways(gateway, path, body):
    """The name may stand in the path, as tool, as provider or as model; one query may stand in a list."""
    assert compatible(gateway, path, **{"query": "heat pumps", **body}).status == 200


def test_the_compatible_filters(gateway):
    """Domains with a minus are excluded, dates are written month first, and snippets are cut to the tokens wanted."""
    body = {"search_domain_filter": ["arxiv.org", "-sandbox.example"], "max_tokens_per_page": 2}
    found = compatible(
        gateway, query="a", **body, search_after_date_filter="3/1/2025", search_before_date_filter="3/31/2025"
    ).json["results"]

    assert {each["url"].split("/")[2] for each in found} == {"arxiv.org"}
    assert all("2025-03-01" <= each["date"] <= "2025-03-31" for each in found)
    assert {each["snippet"] for each in found} == {"Made up "}


@pytest.mark.parametrize(
    ("body", "details"),
    [
        ({}, "query"),
        ({"query": "  "}, "query"),
        ({"query": "x" * 10_001}, "query"),
        ({"query": "a", "maxResults": 0}, "maxResults"),
        ({"query": "a", "maxResults": 101}, "maxResults"),
        ({"query": "a", "max_results": 1}, "max_results"),
        ({"query": "a", "kind": "maps"}, "kind"),
        ({"query": "a", "kind": "contents"}, "urls"),
        ({"query": "a", "urls": ["https://a.org/"]}, "urls"),
        ({"query": "a", "startDate": "yesterday"}, "startDate"),
        ({"query": "a", "startDate": "2026-02-01", "endDate": "2026-01-01"}, "start_date"),
        ({"query": "a", "includeDomains": ["a.org/x"]}, "include_domains"),
        ({"query": "a", "country": "Germany"}, "country"),
        ({"query": "a", "provider": {"name": "nobody"}}, "model_not_found"),
        ({"query": "a", "provider": {"name": "sandbox", "model": {"name": "chat"}}}, "model"),
    ],
)
def test_faults_are_told_natively(gateway, body, details):
    """What is wrong is a 4xx in the documented form that names the field."""
    answer = native(gateway, **body)

    assert answer.status in {400, 404}
    assert details in [each["details"] for each in answer.json["errorDetails"]]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("", {}, "query"),
        ("", {"query": ""}, "query"),
        ("", {"query": []}, "query"),
        ("", {"query": ["a", "b"]}, "query"),
        ("", {"query": "a", "max_results": "5"}, "max_results"),
        ("", {"query": "a", "search_domain_filter": ["not a host"]}, "search_domain_filter"),
        ("", {"query": "a", "search_domain_filter": ["-"]}, "search_domain_filter"),
        ("", {"query": "a", "search_after_date_filter": "31/12/2025"}, "search_after_date_filter"),
        ("", {"query": "a", "search_recency_filter": "hour"}, "search_recency_filter"),
        ("", {"query": "a", "search_tool_name": "x", "search_provider": "y"}, "search_tool_name"),
        ("/sandbox", {"query": "a", "search_provider": "other"}, "search_provider"),
        ("/nobody", {"query": "a"}, "model"),
        ("/tavily", {"query": "a"}, "model"),
    ],
)
def test_faults_are_told_in_openais_form(gateway, path, body, param):
    """What is wrong at `/v1/search` is a 4xx in OpenAI's shape that names the field."""
    answer = compatible(gateway, path, **body)

    assert answer.status in {400, 404}
    assert answer.json["error"]["param"] == param
    assert answer.json["error"]["type"] == "invalid_request_error"


def test_the_examples_of_the_document_work(gateway):
    """What the published document shows can be sent as it stands."""
    paths = call(gateway.url, "/llm-gate/openapi.json").json["paths"]
    for path in ("/llm-gate/v1/search", "/v1/search", "/v1/search/{name}"):
        example = paths[path]["post"]["requestBody"]["content"]["application/json"]["example"]
        answer = call(gateway.url, path.replace("{name}", "sandbox"), example, NATIVE_HEADERS)
        assert (answer.status, len(answer.json["results"])) == (200, 3)


@pytest.mark.parametrize(
    "body",
    [
        {"query": "something forbidden"},
        {"kind": "contents", "urls": ["https://a.org/forbidden"]},
        {"query": "a", "extra": {"more": [{"questions": ["forbidden"]}]}},
    ],
)
def test_questions_are_shown_to_the_guards(guarded, body):
    """Query, addresses and the texts of vendors' own fields are looked at before anybody is asked."""
    answer = native(guarded, **body)

    assert answer.status == 400
    assert "forbidden words in the input" in answer.json["errorDetails"][0]["message"]
    assert native(guarded, query="something allowed").status == 200


def test_the_control_header_works_for_searches(gateway):
    """The sandbox fails, and breaks off, on demand."""
    body = {"query": "a"}
    failed = call(
        gateway.url, "/llm-gate/v1/search", body, {**NATIVE_HEADERS, "x-llm-gate-sandbox": "fail=402"}
    )
    broken = call(
        gateway.url, "/llm-gate/v1/search", body, {**NATIVE_HEADERS, "x-llm-gate-sandbox": "cut_after=1"}
    )

    assert failed.status == 429
    assert broken.status == 503


def test_a_repeat_with_a_key_is_not_made_again(gateway):
    """With an Idempotency-Key, a second request gets the first answer."""
    headers = {**NATIVE_HEADERS, "Idempotency-Key": "search-once"}
    first = call(gateway.url, "/llm-gate/v1/search", {"query": "once"}, headers)
    second = call(gateway.url, "/llm-gate/v1/search", {"query": "once"}, headers)

    assert first.body == second.body
    assert second.headers["idempotency-replayed"] == "true"
