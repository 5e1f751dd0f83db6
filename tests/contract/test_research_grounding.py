"""Grounding with Google Search: requests as the vendor takes them, and numbers that point at its own sources."""

import asyncio
import json
import re
from copy import deepcopy
from datetime import date

import pytest

from llm_gate import LLMGate, Source
from llm_gate.dialects import gemini
from llm_gate.dialects.gemini_grounding import GeminiGrounding
from llm_gate.domain.errors import BadProviderResponse, ContentFiltered, InvalidRequest, ProviderError
from llm_gate.domain.provider import Facts, Send
from llm_gate.domain.search import SearchRequest
from llm_gate.domain.search_rules import fit_search
from support.recorded import parametrize, recordings
from support.search_codecs import product
from support.targets import make_reply, make_target
from support.upstream import Answer, fake_upstream

FACTS = Facts(now_s=1_795_219_200.0, token="0123456789abcdef" * 2)
TARGET = make_target(
    provider="gemini",
    codecs=gemini.provider,
    base_url="https://generativelanguage.googleapis.com/v1beta",
    model="gemini-3.5-flash",
)
GROUNDED = [each for each in recordings("gemini", "generate") if "search-grounding" in each.id]


def run(body, request=None, status=200):
    """Return what is made of an answer."""
    steps = GeminiGrounding().run(request or SearchRequest(query="q", kind="answer"), TARGET, FACTS)
    next(steps)
    with pytest.raises(StopIteration) as ended:
        steps.send(make_reply(body, status))
    return ended.value.value


def sent(request):
    wanted = next(GeminiGrounding().run(request, TARGET, FACTS))
    assert isinstance(wanted, Send)
    return wanted.request


def answer(text, grounding=None, finish="STOP", **more):
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": finish, **more}
    if grounding is not None:
        candidate["groundingMetadata"] = grounding
    return {
        "candidates": [candidate],
        "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13},
        "modelVersion": "gemini-2.5-flash-lite",
    }


def chunks(*uris):
    return [{"web": {"uri": uri, "title": uri.removeprefix("https://")}} for uri in uris]


def support(text, end, *indices, start=0, **more):
    segment = {"endIndex": end, "text": text, **({"startIndex": start} if start else {}), **more}
    return {"segment": segment, "groundingChunkIndices": list(indices)}


@parametrize("recording", GROUNDED)
def test_the_request_is_as_recorded(recording):
    """Address, question and tool are those of recorded traffic; ours bounds the answer besides."""
    recorded = recording.interactions[0].request
    question = recorded["body"]["contents"][0]["parts"][0]["text"]
    ours = sent(SearchRequest(query=question, kind="answer"))
    body = json.loads(ours.body)

    assert (ours.method, ours.url) == (recorded["method"], recorded["url"])
    assert (body["contents"], body["tools"]) == (recorded["body"]["contents"], recorded["body"]["tools"])
    assert body["generationConfig"] == {"maxOutputTokens": 4_096}
    assert set(body) == {"contents", "systemInstruction", "generationConfig", "tools"}


@parametrize("recording", GROUNDED)
def test_the_recorded_answer_cites_its_sources(recording):
    """The five chunks are results, and the numbers stand behind the very words that the vendor supports."""
    result = run(recording.interactions[0].json)

    assert [hit.title for hit in result.results] == [
        "github.com",
        "endoflife.date",
        "ruby-lang.org",
        "dev.to",
        "ruby-lang.org",
    ]
    assert all(
        hit.url.startswith("https://vertexaisearch.cloud.google.com/grounding-api-redirect/")
        for hit in result.results
    )
    assert result.answer.startswith(
        "The latest stable version of Ruby is **4.0.6**, which was released on July 13, 2026[1][2]. "
    )
    assert "under normal maintenance)[2]\n" in result.answer
    assert "no longer receiving security updates[2][4].)*" in result.answer
    assert {int(number) for number in re.findall(r"\[(\d+)\]", result.answer)} == {1, 2, 3, 4, 5}
    assert (result.usage.input_tokens, result.usage.output_tokens) == (568, 305 + 1_027)
    assert result.notes == ()
    assert set(result.extra) == {"groundingMetadata"}


@parametrize("recording", GROUNDED)
def test_nothing_but_numbers_is_added(recording):
    """Without the numbers, the answer is the vendor's text."""
    body = recording.interactions[0].json
    text = body["candidates"][0]["content"]["parts"][0]["text"]

    assert re.sub(r"\[\d+\]", "", run(body).answer) == text.strip()


def test_stretches_are_counted_in_bytes_or_characters():
    """The vendor counts bytes; where that does not fit, the words are looked for; what is nowhere is left out."""
    text = "\u00dcber Br\u00fccken. Und mehr."
    first = "\u00dcber Br\u00fccken."
    grounding = {
        "groundingChunks": chunks("https://a.example", "https://b.example"),
        "groundingSupports": [
            support(first, len(first.encode()), 0),
            support("Und mehr.", len(text), 1, start=len(first) + 1),
            support("Not there.", 5, 0),
            support("", 9_999, 0),
            support("negative", -5, 0, start=-9),
        ],
    }

    assert run(answer(text, grounding)).answer == f"{first}[1] Und mehr.[2]"


def test_one_address_is_one_source():
    """Chunks of the same page share a number; what is no page has none, and numbers go on without a gap."""
    grounding = {
        "groundingChunks": [
            *chunks("https://a.example", "https://b.example", "https://a.example"),
            {"retrievedContext": {"uri": "gs://x"}},
            {"web": {"uri": "javascript:alert(1)", "title": "x"}},
            *chunks("https://c.example"),
        ],
        "groundingSupports": [support("One", 3, 2, 3, 4, 5, 77, -1)],
    }
    result = run(answer("One two.", grounding))

    assert [hit.url for hit in result.results] == [
        "https://a.example",
        "https://b.example",
        "https://c.example",
    ]
    assert result.answer == "One[1][3] two."


def test_numbers_of_the_models_own_are_no_citations():
    """They would seem to point at sources that the vendor does not name for them."""
    grounding = {"groundingChunks": chunks("https://a.example"), "groundingSupports": [support("Yes", 3, 0)]}

    assert run(answer("Yes [1] and [2, 3] no [x].", grounding)).answer == "Yes[1]  and  no [x]."


def test_thoughts_are_not_shown():
    """Parts count on, so that the vendor's part numbers still fit."""
    body = answer("x")
    body["candidates"][0]["content"]["parts"] = [
        {"text": "Let me think.", "thought": True},
        {"text": "Yes."},
    ]
    body["candidates"][0]["groundingMetadata"] = {
        "groundingChunks": chunks("https://a.example"),
        "groundingSupports": [support("Yes", 3, 0, partIndex=1)],
    }

    assert run(body).answer == "Yes[1]."


@pytest.mark.parametrize(
    "grounding",
    [
        {},
        {"groundingChunks": None, "groundingSupports": None},
        {"groundingChunks": "junk"},
        {"groundingChunks": [1, None, {"web": 7}, {"web": {"uri": 3}}], "groundingSupports": [4, {}]},
        [],
        "junk",
    ],
)
def test_junk_beside_the_answer_costs_only_itself(grounding):
    """Of whatever form: the answer stands, without sources."""
    result = run(answer("Yes.", grounding))

    assert (result.answer, result.results) == ("Yes.", ())


def test_an_answer_without_a_search_says_so():
    """A model may think that it knows."""
    assert run(answer("Yes.")).notes == ("the model answered without a search",)
    assert run(answer("Yes", {"webSearchQueries": ["q"]}, finish="MAX_TOKENS")).notes == (
        "the answer was cut off at its longest",
    )


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"promptFeedback": {"blockReason": "SAFETY"}}, ContentFiltered),
        ({"candidates": [{"finishReason": "SAFETY"}]}, ContentFiltered),
        ({}, BadProviderResponse),
        ({"candidates": []}, BadProviderResponse),
        (b"<html>", BadProviderResponse),
        (b"", BadProviderResponse),
        ([answer("a"), answer("b")], BadProviderResponse),
        ({"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}}, ProviderError),
    ],
)
def test_what_is_no_answer_is_a_typed_error(body, error):
    """Blocked questions, pages, nothing, and errors with a 200."""
    steps = GeminiGrounding().run(SearchRequest(query="q", kind="answer"), TARGET, FACTS)
    next(steps)
    with pytest.raises(error):
        steps.send(make_reply(body))


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, {}),
        (
            {"start_date": date(2026, 1, 2), "end_date": date(2026, 1, 3)},
            {"start_time": "2026-01-02T00:00:00Z", "end_time": "2026-01-04T00:00:00Z"},
        ),
        (
            {"start_date": date(2026, 1, 2)},
            {"start_time": "2026-01-02T00:00:00Z", "end_time": "2026-11-21T00:00:00Z"},
        ),
        (
            {"end_date": date(2026, 1, 3)},
            {"start_time": "1970-01-01T00:00:00Z", "end_time": "2026-01-04T00:00:00Z"},
        ),
        ({"time_range": "week"}, {"start_time": "2026-11-14T00:00:00Z", "end_time": "2026-11-21T00:00:00Z"}),
    ],
)
def test_days_become_an_interval(said, wanted):
    """The vendor wants both ends; the last day is included."""
    body = json.loads(sent(SearchRequest(query="q", kind="answer", **said)).body)

    assert body["tools"] == [{"google_search": {"time_range_filter": wanted} if wanted else {}}]


@pytest.mark.parametrize(
    "said",
    [
        {"include_domains": ("a.example",)},
        {"exclude_domains": ("a.example",)},
        {"country": "fr"},
        {"language": "fr"},
        {"max_results": 3},
        {"depth": "advanced"},
        {"kind": "news"},
    ],
)
def test_what_the_vendor_has_no_way_for_is_refused(said):
    """Never dropped."""
    with pytest.raises(InvalidRequest):
        fit_search(SearchRequest(query="q", **{"kind": "answer", **said}), product("gemini/gemini-search"))


def test_fields_of_the_vendors_own_travel_along():
    """Beside those that are set here, which win."""
    extra = {
        "safetySettings": [{"category": "x"}],
        "generationConfig": {"temperature": 1, "maxOutputTokens": 9},
    }
    body = json.loads(sent(SearchRequest(query="q", kind="answer", extra=extra)).body)

    assert body["safetySettings"] == [{"category": "x"}]
    assert body["generationConfig"] == {"temperature": 1, "maxOutputTokens": 4_096}


@parametrize("recording", GROUNDED)
def test_a_research_is_grounded_by_the_vendor(recording, tmp_path, monkeypatch):
    """Over a socket: the answer, citations that point at its sources, and a cost that is the record's."""
    monkeypatch.setenv("GEMINI_API_KEY", "AQ.fake-gemini-0123456789")
    with fake_upstream() as upstream:
        upstream.will(Answer.json(deepcopy(recording.interactions[0].json)))
        file = tmp_path / "llm-gate.toml"
        file.write_text(
            f"""
            [providers.gemini]
            base_url = "{upstream.url}/v1beta"
            [plans]
            default = "mine"
            [plans.custom.mine]
            mode = "strict"
            [plans.custom.mine.limits]
            monthly_cost_usd = "0.05"
            """
        )

        async def work():
            async with LLMGate(Source(config_file=file, overrides={"data_dir": tmp_path})) as gate:
                options = {"model": "gemini/gemini-3.5-flash", "search": "grounding", "language": "English"}
                return await gate.research("Which Ruby is the latest?", user_id="ann", **options)

        found = asyncio.run(work())
        seen = upstream.only

    assert seen.path == "/v1beta/models/gemini-2.5-flash-lite:generateContent"
    assert seen.headers["x-goog-api-key"] == "AQ.fake-gemini-0123456789"
    assert seen.json["contents"][0]["parts"][0]["text"] == (
        "Which Ruby is the latest?\n\nAnswer in this language: English."
    )
    assert [each.index for each in found.citations] == [1, 2, 3, 4, 5]
    assert all(each.url == found.sources[each.index - 1].url for each in found.citations)
    # 0.035 $ for the question; 351 tokens at 0.1, 217 cached at 0.01 and 1,332 at 0.4 dollars a million.
    assert found.cost_nanos == 35_000_000 + 35_100 + 2_170 + 532_800
    assert "gemini/gemini-search answered: the model that was named does not search" in found.notes


def test_nobody_who_answers_searches(tmp_path, monkeypatch):
    """A vendor without a search of its own cannot ground an answer, and is not replaced by another."""
    monkeypatch.setenv("MISTRAL_API_KEY", "mistral-0123456789abcdef")
    file = tmp_path / "llm-gate.toml"
    file.write_text("")

    async def work():
        async with LLMGate(Source(config_file=file, overrides={"data_dir": tmp_path})) as gate:
            await gate.research("Why?", user_id="ann", model="mistral/", search="grounding")

    with pytest.raises(InvalidRequest) as caught:
        asyncio.run(work())
    assert caught.value.code == "grounding_not_available"
