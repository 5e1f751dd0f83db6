"""What search vendors answer, read into one normalised result: recorded answers, faulty ones, and their errors."""

import json
from datetime import date
from typing import Any

import pytest

from llm_gate.dialects._findings import plain_date
from llm_gate.domain.errors import (
    BadProviderResponse,
    ProviderAuthFailed,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from llm_gate.domain.provider import HttpReply
from llm_gate.domain.search import SearchHit, SearchRequest
from support.recorded import parametrize, recordings
from support.search_codecs import ran, search_target
from support.targets import make_reply

TAVILY, SERPER, EXA = "tavily/tavily-search", "serper/serper-search", "exa/exa-search"
CONTENTS, ANSWER = "exa/exa-contents", "exa/exa-answer"
QUESTION = SearchRequest(query="q")
PAGES = SearchRequest(kind="contents", urls=("https://a.org/1", "https://a.org/2"))
EMPTY: dict[str, Any] = {TAVILY: {"results": []}, SERPER: {"organic": []}, EXA: {"results": []}}
LISTS = {TAVILY: "results", SERPER: "organic", EXA: "results"}
PARTS = [
    "title",
    "content",
    "snippet",
    "score",
    "published_date",
    "date",
    "publishedDate",
    "text",
    "highlights",
]
LINKS = {TAVILY: "url", SERPER: "link", EXA: "url"}


def decoded(raw: Any) -> Any:
    return {name: json.loads(bytes(value)) for name, value in raw.items()}


@parametrize("recording", recordings("tavily", "search"))
def test_tavily_as_recorded(recording):
    """What was sent is what we would send, and every result comes out with its parts in their places."""
    (only,) = recording.interactions
    sent, body = only.request["body"], only.json
    request = SearchRequest(
        query=sent["query"],
        max_results=sent.get("max_results"),
        include_domains=tuple(sent.get("include_domains", ())),
        depth=sent["search_depth"],
    )
    done = ran(request, TAVILY, only.body)

    said = {name: value for name, value in sent.items() if value not in ([], False) and name != "api_key"}
    assert done.body == {"topic": "general", **said, "include_usage": True}
    assert done.sent.url == only.request["url"]
    assert [(hit.title, hit.url, hit.snippet, hit.score) for hit in done.result.results] == [
        (each["title"], each["url"], each["content"].strip(), each["score"]) for each in body["results"]
    ]
    assert all(hit.content is None and hit.extra == {} for hit in done.result.results)
    assert (done.result.answer, done.result.pages, done.result.notes) == (None, 0, ())
    assert done.result.requests == (2 if sent["search_depth"] == "advanced" else 1)
    assert decoded(done.result.extra)["response_time"] == body["response_time"]


@parametrize("recording", recordings("exa", "search"))
def test_exa_as_recorded(recording):
    """What was sent is what we would send, but that the last day is meant to its end; the vendor's cost is kept."""
    (only,) = recording.interactions
    sent, body = only.request["body"], only.json
    request = SearchRequest(
        query=sent["query"],
        include_domains=tuple(sent.get("includeDomains", ())),
        start_date=date.fromisoformat(sent["startPublishedDate"]),
        end_date=date.fromisoformat(sent["endPublishedDate"]),
        wants_content=True,
    )
    done = ran(request, EXA, only.body)

    assert done.body == sent | {"endPublishedDate": f"{sent['endPublishedDate']}T23:59:59.999Z"}
    assert done.sent.url == only.request["url"]
    assert [(hit.title, hit.url, hit.content, hit.published_at) for hit in done.result.results] == [
        (each["title"], each["url"], each["text"].strip(), each["publishedDate"]) for each in body["results"]
    ]
    assert all(0 < len(hit.snippet) <= 300 for hit in done.result.results)
    assert done.result.usage.vendor_cost_nanos == 15_000_000
    assert decoded(done.result.extra)["resolvedSearchType"] == "neural"
    assert "author" in decoded(done.result.results[1].extra) or body["results"][1]["author"] is None


@parametrize("recording", recordings("serper", "search"))
def test_serper_as_recorded(recording):
    """What was sent is what we would send; dates come out plainly, and the box's answer as the answer."""
    (only,) = recording.interactions
    sent, body = only.request["body"], only.json
    request = SearchRequest(query=sent["q"], country=sent["gl"], language=sent["hl"])
    done = ran(request, SERPER, only.body)

    assert done.body | {"autocorrect": True} == sent
    assert done.sent.url == only.request["url"]
    assert [(hit.title, hit.url, hit.snippet) for hit in done.result.results] == [
        (each["title"], each["link"], each.get("snippet", "")) for each in body["organic"]
    ]
    assert done.result.results[1].published_at == "2024-05-23"
    assert done.result.answer == "Argentina national football team"
    assert {"knowledgeGraph", "peopleAlsoAsk", "relatedSearches"} <= decoded(done.result.extra).keys()


def test_the_parts_of_a_tavily_result():
    """Text, score, date and what has no place of its own all come out; the vendor's credits are what is billed."""
    found = {
        "title": " A ",
        "url": "https://a.org/",
        "content": "snippet",
        "raw_content": "all of it",
        "score": 0.5,
        "published_date": "Tue, 11 Nov 2025 09:30:00 GMT",
        "favicon": "https://a.org/i.ico",
    }
    body = {"answer": "Yes.", "results": [found], "usage": {"credits": 2}, "request_id": "r"}
    result = ran(QUESTION, TAVILY, body).result

    (hit,) = result.results
    assert (hit.title, hit.snippet, hit.content, hit.score) == ("A", "snippet", "all of it", 0.5)
    assert hit.published_at == "2025-11-11T09:30:00+00:00"
    assert decoded(hit.extra) == {"favicon": "https://a.org/i.ico"}
    assert (result.answer, result.requests, decoded(result.extra)) == ("Yes.", 2, {"request_id": "r"})


@pytest.mark.parametrize(
    ("kind", "body", "hit"),
    [
        (
            "news",
            {
                "news": [
                    {
                        "title": "T",
                        "link": "https://n.org/",
                        "snippet": "S",
                        "date": "3 days ago",
                        "source": "N",
                    }
                ]
            },
            ("T", "https://n.org/", "S", "3 days ago", {"source": "N"}),
        ),
        (
            "images",
            {"images": [{"title": "T", "link": "https://i.org/", "imageUrl": "https://i.org/1.jpg"}]},
            ("T", "https://i.org/", "", None, {"imageUrl": "https://i.org/1.jpg"}),
        ),
        (
            "scholar",
            {
                "organic": [
                    {"title": "T", "link": "https://s.org/", "snippet": "S", "year": 2017, "citedBy": 9}
                ]
            },
            ("T", "https://s.org/", "S", "2017", {"citedBy": 9}),
        ),
    ],
)
def test_the_kinds_of_serper(kind, body, hit):
    """News, pictures and papers come out in the same form as pages."""
    result = ran(SearchRequest(query="q", kind=kind), SERPER, body).result

    (found,) = result.results
    assert (found.title, found.url, found.snippet, found.published_at, decoded(found.extra)) == hit


def test_pages_that_could_not_be_read_are_told_of():
    """What was read is there, and the addresses that were not stand in the notes; only what was read is billed."""
    body = {
        "results": [{"url": "https://a.org/1", "title": "One", "text": "Its text"}],
        "statuses": [
            {"id": "https://a.org/1", "status": "success"},
            {
                "id": "https://a.org/2",
                "status": "error",
                "error": {"tag": "CRAWL_NOT_FOUND", "httpStatusCode": 404},
            },
        ],
        "costDollars": {"total": 0.001},
    }
    result = ran(PAGES, CONTENTS, body).result

    assert [(hit.url, hit.content, hit.snippet) for hit in result.results] == [
        ("https://a.org/1", "Its text", "Its text")
    ]
    assert result.notes == ("not read: https://a.org/2 (CRAWL_NOT_FOUND)",)
    assert (result.pages, result.usage.vendor_cost_nanos) == (1, 1_000_000)


@pytest.mark.parametrize(
    ("tag", "kind"), [("CRAWL_NOT_FOUND", ProviderRejected), ("CRAWL_TIMEOUT", ProviderUnavailable)]
)
def test_no_page_at_all_is_an_error(tag, kind):
    """Where nothing could be read, it is said as an error that costs nothing, and whether another try may help."""
    statuses = [{"id": url, "status": "error", "error": {"tag": tag}} for url in PAGES.urls]
    with pytest.raises(kind) as failed:
        ran(PAGES, CONTENTS, {"results": [], "statuses": statuses})

    assert failed.value.is_unbilled
    assert "https://a.org/1" in failed.value.message
    with pytest.raises(BadProviderResponse):
        ran(PAGES, CONTENTS, {"results": []})


def test_an_answer_with_its_sources():
    """Exa's own answer comes with its citations as results."""
    body = {
        "answer": "Yes.",
        "citations": [{"url": "https://a.org/", "title": "A", "publishedDate": "2025-01-02"}],
        "costDollars": {"total": 0.005},
    }
    result = ran(SearchRequest(query="q", kind="answer"), ANSWER, body).result

    assert result.answer == "Yes."
    assert result.results == (SearchHit(title="A", url="https://a.org/", published_at="2025-01-02"),)
    assert result.usage.vendor_cost_nanos == 5_000_000
    with pytest.raises(BadProviderResponse):
        ran(SearchRequest(query="q", kind="answer"), ANSWER, {"citations": []})


@pytest.mark.parametrize("name", [TAVILY, SERPER, EXA])
def test_nothing_found_is_a_result(name):
    """An empty list is an answer without results, and is billed as one."""
    result = ran(QUESTION, name, EMPTY[name]).result

    assert (result.results, result.requests, result.notes) == ((), 1, ())


@pytest.mark.parametrize("name", [TAVILY, SERPER, EXA])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><title>Blocked</title>",
        b"null",
        b"[]",
        b'{"results": "none", "organic": "none"}',
        b'{"results": {}, "organic": {}}',
        b'{"message": "ok"}',
        b'{"results": [',
        b'{"results": ["\xff"]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_answer_is_said_so(name, body):
    """A page, nothing, and other shapes with status 200 are the vendor's failure, and never a crash."""
    with pytest.raises(BadProviderResponse):
        ran(QUESTION, name, body)


@pytest.mark.parametrize("name", [TAVILY, SERPER, EXA])
def test_results_without_an_address_are_left_out_and_told(name):
    """Only what can be opened over http(s) is a result; the rest is counted in a note."""
    link = LINKS[name]
    found = [
        {"title": "Good", link: "https://a.org/"},
        {"title": "None"},
        {"title": "Script", link: "javascript:alert(1)"},
        {"title": "File", link: "file:///etc/passwd"},
        {"title": "Number", link: 7},
        "text",
        None,
    ]
    result = ran(QUESTION, name, {LISTS[name]: found}).result

    assert [hit.title for hit in result.results] == ["Good"]
    assert result.notes == ("left out: 6 of 7 results, which have no http(s) address",)


@pytest.mark.parametrize("name", [TAVILY, SERPER, EXA])
def test_wrong_types_count_as_absent(name):
    """A field of another type than it should have is left out, and the others are read all the same."""
    odd: dict[str, Any] = {LINKS[name]: "https://a.org/"}
    odd |= {field: {"odd": [True]} for field in PARTS}
    body = {
        LISTS[name]: [odd],
        "answer": 7.5,
        "usage": "x",
        "credits": "x",
        "costDollars": [],
        "answerBox": "x",
    }
    result = ran(QUESTION, name, body).result

    (hit,) = result.results
    assert (hit.title, hit.url, hit.snippet, hit.content, hit.score) == ("", "https://a.org/", "", None, None)
    assert (hit.published_at, result.answer, result.requests, result.usage) == (None, None, 1, None)


@pytest.mark.parametrize("said", [0, -1, 11, 10**30, 1.5, True, "2", None])
def test_credits_beyond_belief_are_not_billed(said):
    """A number of credits that cannot be is taken for unsaid: what the documents say is billed."""
    assert ran(QUESTION, TAVILY, {"results": [], "usage": {"credits": said}}).result.requests == 1
    assert ran(QUESTION, SERPER, {"organic": [], "credits": said}).result.requests == 1


@pytest.mark.parametrize("said", [-0.1, 10**40, "0.01", None, True, [1]])
def test_a_cost_beyond_belief_is_not_shown(said):
    """What the vendor says that it cost is kept only where it can be."""
    assert ran(QUESTION, EXA, {"results": [], "costDollars": {"total": said}}).result.usage is None or (
        ran(QUESTION, EXA, {"results": [], "costDollars": {"total": said}}).result.usage.vendor_cost_nanos
        is None
    )


@pytest.mark.parametrize("name", [TAVILY, SERPER, EXA])
def test_no_more_results_than_were_asked_for(name):
    """A vendor that gives more is cut to what was wanted."""
    found = [{LINKS[name]: f"https://a.org/{n}"} for n in range(50)]
    result = ran(SearchRequest(query="q", max_results=3), name, {LISTS[name]: found}).result

    assert [hit.url for hit in result.results] == ["https://a.org/0", "https://a.org/1", "https://a.org/2"]


@pytest.mark.parametrize(
    ("name", "status", "body", "kind"),
    [
        (TAVILY, 400, {"detail": {"error": "Query is too long."}}, ProviderRejected),
        (TAVILY, 401, {"detail": {"error": "Unauthorized: missing or invalid API key."}}, ProviderAuthFailed),
        (TAVILY, 403, {"detail": {"error": "This URL is not supported"}}, ProviderAuthFailed),
        (TAVILY, 422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, ProviderRejected),
        (TAVILY, 429, {"detail": {"error": "too many requests"}}, ProviderRateLimited),
        (TAVILY, 432, {"detail": {"error": "exceeds your plan's set usage limit"}}, ProviderQuotaExhausted),
        (TAVILY, 433, {"detail": {"error": "pay-as-you-go limit"}}, ProviderQuotaExhausted),
        (TAVILY, 500, {"detail": {"error": "Internal Server Error"}}, ProviderUnavailable),
        (TAVILY, 502, b"<html>Bad gateway</html>", ProviderUnavailable),
        (SERPER, 400, {"message": "Missing query parameter", "statusCode": 400}, ProviderRejected),
        (SERPER, 400, {"message": "Not enough credits", "statusCode": 400}, ProviderQuotaExhausted),
        (SERPER, 403, {"message": "Unauthorized.", "statusCode": 403}, ProviderAuthFailed),
        (SERPER, 429, {"message": "Rate limit exceeded", "statusCode": 429}, ProviderRateLimited),
        (SERPER, 503, b"", ProviderUnavailable),
        (
            EXA,
            400,
            {"requestId": "r", "error": "numResults", "tag": "INVALID_REQUEST_BODY"},
            ProviderRejected,
        ),
        (
            EXA,
            401,
            {"requestId": "r", "error": "Invalid API key", "tag": "INVALID_API_KEY"},
            ProviderAuthFailed,
        ),
        (
            EXA,
            402,
            {"requestId": "r", "error": "No credits", "tag": "NO_MORE_CREDITS"},
            ProviderQuotaExhausted,
        ),
        (EXA, 402, {"error": "Budget", "tag": "API_KEY_BUDGET_EXCEEDED"}, ProviderQuotaExhausted),
        (EXA, 404, {"error": "Not found", "tag": "NOT_FOUND"}, ProviderModelGone),
        (EXA, 422, {"error": "Cannot be processed", "tag": "UNABLE"}, ProviderRejected),
        (EXA, 429, {"error": "Slow down", "tag": "RATE_LIMIT"}, ProviderRateLimited),
        (EXA, 500, {"error": "Oops", "tag": "INTERNAL_ERROR"}, ProviderUnavailable),
        (EXA, 504, {"error": "Late", "tag": "TIMEOUT"}, ProviderTimeout),
        (EXA, 500, b"[[[[", ProviderUnavailable),
    ],
)
def test_errors_say_what_can_be_done(name, status, body, kind):
    """Each vendor's error becomes the one that says whether waiting, another vendor, or the caller can help."""
    target = search_target(name)
    reply = (
        HttpReply(status=status, headers={}, body=body)
        if isinstance(body, bytes)
        else make_reply(body, status)
    )
    error = target.deployment.codecs.decode_error(reply, target)

    assert type(error) is kind
    assert (error.provider, error.status) == (target.provider, status)
    if kind is ProviderRejected:
        assert error.detail


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("2025-12-29T00:00:00.000Z", "2025-12-29T00:00:00.000Z"),
        ("2025-12-29", "2025-12-29"),
        ("2017", "2017"),
        ("May 23, 2024", "2024-05-23"),
        ("Sept. 3, 2024", "2024-09-03"),
        ("23 May 2024", "2024-05-23"),
        ("Tue, 11 Nov 2025 09:30:00 GMT", "2025-11-11T09:30:00+00:00"),
        ("3 days ago", "3 days ago"),
        ("Feb 30, 2024", "Feb 30, 2024"),
        ("Foo 1, 2024", "Foo 1, 2024"),
        ("99999999999999", "99999999999999"),
        ("Tue, 11 Nov 99999 09:30:00 GMT", "Tue, 11 Nov 99999 09:30:00 GMT"),
    ],
)
def test_dates_are_read_where_they_can_be(written, plain):
    """A date comes out as ISO 8601, and what is none as it was written."""
    assert plain_date(written) == plain
