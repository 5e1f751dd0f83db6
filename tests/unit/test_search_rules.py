"""Which wishes of a search which product carries out: each one is mapped, or refused before anybody is asked."""

import json
from datetime import date

import pytest

from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.search import SearchRequest
from llm_gate.domain.search_rules import billed, fit_search, sound_search
from support.search_codecs import asked, product

QUERY = "heat pumps"
TAVILY, SERPER, EXA = "tavily/tavily-search", "serper/serper-search", "exa/exa-search"
CONTENTS, ANSWER = "exa/exa-contents", "exa/exa-answer"
WISHES = {
    "max_results": {"max_results": 7},
    "include_domains": {"include_domains": ("arxiv.org", "nature.com")},
    "exclude_domains": {"exclude_domains": ("spam.example",)},
    "start_date": {"start_date": date(2026, 1, 31)},
    "end_date": {"end_date": date(2026, 2, 28)},
    "time_range": {"time_range": "week"},
    "country": {"country": "FR"},
    "language": {"language": "fr"},
    "depth": {"depth": "advanced"},
    "answer": {"wants_answer": True},
    "content": {"wants_content": True},
}
MAPPED = {
    (TAVILY, "max_results"): {"max_results": 7},
    (TAVILY, "include_domains"): {"include_domains": ["arxiv.org", "nature.com"]},
    (TAVILY, "exclude_domains"): {"exclude_domains": ["spam.example"]},
    (TAVILY, "start_date"): {"start_date": "2026-01-31"},
    (TAVILY, "end_date"): {"end_date": "2026-02-28"},
    (TAVILY, "time_range"): {"time_range": "week"},
    (TAVILY, "country"): {"country": "france"},
    (TAVILY, "depth"): {"search_depth": "advanced"},
    (TAVILY, "answer"): {"include_answer": True},
    (TAVILY, "content"): {"include_raw_content": True},
    (SERPER, "max_results"): {"num": 7},
    (SERPER, "include_domains"): {"q": f"{QUERY} (site:arxiv.org OR site:nature.com)"},
    (SERPER, "exclude_domains"): {"q": f"{QUERY} -site:spam.example"},
    (SERPER, "start_date"): {"tbs": "cdr:1,cd_min:1/31/2026"},
    (SERPER, "end_date"): {"tbs": "cdr:1,cd_max:2/28/2026"},
    (SERPER, "time_range"): {"tbs": "qdr:w"},
    (SERPER, "country"): {"gl": "fr"},
    (SERPER, "language"): {"hl": "fr"},
    (EXA, "max_results"): {"numResults": 7},
    (EXA, "include_domains"): {"includeDomains": ["arxiv.org", "nature.com"]},
    (EXA, "exclude_domains"): {"excludeDomains": ["spam.example"]},
    (EXA, "start_date"): {"startPublishedDate": "2026-01-31"},
    (EXA, "end_date"): {"endPublishedDate": "2026-02-28T23:59:59.999Z"},
    (EXA, "time_range"): {"startPublishedDate": "2026-11-14"},
    (EXA, "country"): {"userLocation": "FR"},
    (EXA, "depth"): {"type": "deep"},
    (EXA, "content"): {"contents": {"text": {"maxCharacters": 10_000}}},
}
"""What each wish becomes at each vendor; what is not here is refused."""
PLAIN = {
    TAVILY: {"query": QUERY, "topic": "general", "search_depth": "basic", "include_usage": True},
    SERPER: {"q": QUERY},
    EXA: {"query": QUERY, "type": "auto", "contents": {"highlights": True}},
}


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("name", [TAVILY, SERPER, EXA])
def test_a_wish_is_mapped_or_refused(name, wish):
    """Every wish changes just what it should of what is sent, or the vendor is left out; none is dropped."""
    request = SearchRequest(query=QUERY, **WISHES[wish])
    if (name, wish) in MAPPED:
        assert json.loads(asked(request, name).body) == PLAIN[name] | MAPPED[name, wish]
        return
    with pytest.raises(InvalidRequest) as refused:
        asked(request, name)
    assert (refused.value.param, refused.value.code) == (wish, "unsupported_input")


def test_without_wishes_no_more_is_sent_than_what_is_usual():
    """A bare question says what costs what it should, and nothing else."""
    for name, body in PLAIN.items():
        assert json.loads(asked(SearchRequest(query=QUERY), name).body) == body


@pytest.mark.parametrize(
    ("name", "kind", "url", "body"),
    [
        (TAVILY, "news", "https://api.tavily.com/search", {"query": QUERY, "topic": "news"}),
        (TAVILY, "answer", "https://api.tavily.com/search", {"include_answer": True, "topic": "general"}),
        (SERPER, "web", "https://google.serper.dev/search", {"q": QUERY}),
        (SERPER, "news", "https://google.serper.dev/news", {"q": QUERY}),
        (SERPER, "images", "https://google.serper.dev/images", {"q": QUERY}),
        (SERPER, "scholar", "https://google.serper.dev/scholar", {"q": QUERY}),
        (EXA, "news", "https://api.exa.ai/search", {"category": "news"}),
        (EXA, "scholar", "https://api.exa.ai/search", {"category": "research paper"}),
        (ANSWER, "answer", "https://api.exa.ai/answer", {"query": QUERY}),
    ],
)
def test_each_kind_goes_to_its_own_place(name, kind, url, body):
    """A kind decides the address, or the word, that a vendor has for it."""
    sent = asked(SearchRequest(query=QUERY, kind=kind), name)

    assert (sent.method, sent.url) == ("POST", url)
    assert json.loads(sent.body).items() >= body.items()


def test_pages_are_read_at_their_addresses():
    """Kind "contents" sends the addresses, and no query."""
    urls = ("https://a.example/x?y=1", "http://b.example")
    sent = asked(SearchRequest(kind="contents", urls=urls), CONTENTS)

    assert sent.url == "https://api.exa.ai/contents"
    assert json.loads(sent.body) == {"urls": list(urls), "text": {"maxCharacters": 10_000}}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (TAVILY, "images"),
        (TAVILY, "scholar"),
        (SERPER, "answer"),
        (EXA, "images"),
        (EXA, "answer"),
        (ANSWER, "web"),
        (CONTENTS, "web"),
        ("gemini/gemini-grounding-search", "web"),
    ],
)
def test_a_kind_that_a_product_does_not_have_is_refused(name, kind):
    """Nobody looks for what they cannot find."""
    with pytest.raises(InvalidRequest):
        fit_search(SearchRequest(query=QUERY, kind=kind), product(name))


@pytest.mark.parametrize(
    ("name", "fields", "param"),
    [
        (TAVILY, {"max_results": 21}, "max_results"),
        (TAVILY, {"query": "x" * 401}, "query"),
        (TAVILY, {"include_domains": tuple(f"h{n}.example" for n in range(301))}, "include_domains"),
        (TAVILY, {"exclude_domains": tuple(f"h{n}.example" for n in range(151))}, "exclude_domains"),
        (TAVILY, {"country": "zz"}, "country"),
        (TAVILY, {"kind": "news", "country": "fr"}, "country"),
        (SERPER, {"max_results": 101}, "max_results"),
        (SERPER, {"include_domains": tuple(f"h{n}.example" for n in range(11))}, "include_domains"),
        (SERPER, {"kind": "scholar", "time_range": "year"}, "time_range"),
        (SERPER, {"kind": "scholar", "include_domains": ("a.org",)}, "include_domains"),
        (EXA, {"max_results": 101}, "max_results"),
        (ANSWER, {"kind": "answer", "max_results": 3}, "max_results"),
        (CONTENTS, {"kind": "contents", "query": "", "urls": ("https://a.org/",) * 101}, "urls"),
    ],
)
def test_bounds_of_a_vendor_are_kept(name, fields, param):
    """What is more than a vendor takes is refused here, so that the next vendor can be asked."""
    with pytest.raises(InvalidRequest) as refused:
        fit_search(SearchRequest(**{"query": QUERY, **fields}), product(name))
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": " \n"}, "query"),
        ({"kind": "contents"}, "urls"),
        ({"urls": ("https://a.org/",)}, "urls"),
        ({"kind": "contents", "urls": ("ftp://a.org/",)}, "urls"),
        ({"kind": "contents", "urls": ("https://a.org/ b",)}, "urls"),
        ({"kind": "contents", "urls": ("https://user@a.org/",)}, "urls"),
        ({"kind": "contents", "urls": (f"https://a.org/{'x' * 2000}",)}, "urls"),
        ({"start_date": date(2026, 2, 1), "end_date": date(2026, 1, 31)}, "start_date"),
        ({"start_date": date(2026, 2, 1), "time_range": "day"}, "time_range"),
        ({"include_domains": ("a.org", "b")}, "include_domains"),
        ({"include_domains": ("a.org/path",)}, "include_domains"),
        ({"include_domains": ("a.org OR site:evil.example",)}, "include_domains"),
        ({"exclude_domains": ("https://a.org",)}, "exclude_domains"),
        ({"include_domains": ("a.org",), "exclude_domains": ("A.ORG",)}, "exclude_domains"),
        ({"country": "fra"}, "country"),
        ({"language": "f"}, "language"),
        ({"max_results": 0}, "max_results"),
        ({"n": 2}, "n"),
    ],
)
def test_what_contradicts_itself_is_refused(fields, param):
    """A search that nobody could carry out is the caller's to mend, whoever would be asked."""
    with pytest.raises(InvalidRequest) as refused:
        sound_search(SearchRequest(**{"query": QUERY, **fields}))
    assert refused.value.param == param


def test_words_come_out_in_their_plain_form():
    """Hosts and codes are written in lower case, each once."""
    request = SearchRequest(
        query=QUERY, include_domains=("Arxiv.ORG.", "arxiv.org"), country=" DE", language="pt-BR"
    )
    sound = sound_search(request)

    assert (sound.include_domains, sound.country, sound.language) == (("arxiv.org",), "de", "pt-br")


@pytest.mark.parametrize(
    ("name", "fields", "requests", "pages"),
    [
        (TAVILY, {}, 1, 0),
        (TAVILY, {"depth": "advanced"}, 2, 0),
        (TAVILY, {"max_results": 20}, 1, 0),
        (SERPER, {"max_results": 10}, 1, 0),
        (SERPER, {"max_results": 11}, 2, 1),
        (EXA, {}, 1, 0),
        (EXA, {"max_results": 25}, 1, 0),
        (EXA, {"max_results": 40, "depth": "advanced"}, 1, 15),
        (CONTENTS, {"kind": "contents", "urls": ("https://a.org/", "https://b.org/")}, 1, 2),
        (ANSWER, {"kind": "answer"}, 1, 0),
    ],
)
def test_what_a_search_comes_to_at_most(name, fields, requests, pages):
    """Requests, credits and pages are known before anybody is asked."""
    found = billed(SearchRequest(query=QUERY, **fields), product(name))

    assert (found.requests, found.pages) == (requests, pages)


@pytest.mark.parametrize(
    ("name", "extra", "param"),
    [
        (TAVILY, {"query": "something else"}, "extra.query"),
        (TAVILY, {"api_key": "another's"}, "extra.api_key"),
        (TAVILY, {"max_results": 20}, "extra.max_results"),
        (SERPER, {"q": "something else"}, "extra.q"),
        (EXA, {"query": "something else"}, "extra.query"),
        (EXA, {"category": "company"}, "extra.category"),
    ],
)
def test_a_vendors_own_field_does_not_say_otherwise_than_the_request(name, extra, param):
    """What guards and prices went by cannot be replaced behind their backs."""
    with pytest.raises(InvalidRequest) as refused:
        asked(SearchRequest(query=QUERY, extra=extra), name)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        (TAVILY, {"search_depth": "fast", "include_images": True}),
        (SERPER, {"location": "Paris"}),
        (EXA, {"type": "fast", "contents": {"summary": True}}),
    ],
)
def test_a_vendors_own_fields_go_out_as_they_are(name, extra):
    """What the request has no field for is handed on, and goes before what is usual."""
    sent = json.loads(asked(SearchRequest(query=QUERY, extra=extra), name).body)

    assert sent == PLAIN[name] | extra
