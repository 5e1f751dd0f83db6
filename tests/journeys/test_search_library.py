"""Searches from a program and on the command line, without any vendor's key and with one."""

import asyncio
import json
from datetime import date
from decimal import Decimal

import pytest

from llm_gate import BlockingLLMGate, GateError, LLMGate, QuotaExceeded, Source
from llm_gate.domain.errors import InvalidRequest
from support.forking import clean_environment, run_command
from support.search_fakes import KEYS, search_vendors

CAPPED = '[plans.custom.few]\nlimits = { search_calls = 1 }\n\n[plans]\ndefault = "few"\n'


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """Open a gate in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with BlockingLLMGate(Source()) as opened:
        yield opened


@pytest.fixture
def run(tmp_path):
    """Return what runs a command and gives its standard output and standard error."""

    def command(*words, code=0, stdin="", **environment):
        done = run_command(*words, folder=tmp_path, environment=clean_environment(environment), text=stdin)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout, done.stderr

    return command


def test_a_program_searches(gate):
    """Results, who found them and what it cost come as plain values, and filters are obeyed."""
    found = gate.search(
        "heat pumps",
        user_id="me",
        max_results=2,
        include_domains=["arxiv.org"],
        start_date=date(2025, 1, 1),
        end_date=date(2025, 1, 31),
        include_answer=True,
        include_content=True,
    )

    assert (found.provider, found.model, found.query) == ("sandbox", "search", "heat pumps")
    assert (found.requests, found.pages, found.cost_usd, found.attempts) == (1, 0, Decimal(0), 1)
    assert [each.url.split("/")[2] for each in found.results] == ["arxiv.org"] * 2
    assert all("2025-01-01" <= each.published_at <= "2025-01-31" for each in found.results)
    assert "synthetic" in found.results[0].content
    assert "heat pumps" in found.answer
    assert found.notes == ("synthetic: made by the LLM Gate sandbox",)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_results": 0}, InvalidRequest),
        ({"kind": "maps"}, InvalidRequest),
        ({"include_domains": "arxiv.org"}, InvalidRequest),
        ({"include_domains": ["not a host"]}, InvalidRequest),
        ({"kind": "contents"}, InvalidRequest),
        ({"model": "nobody"}, GateError),
        ({"results": 3}, TypeError),
        ({"user_id": ""}, RuntimeError),
    ],
)
def test_faults_of_a_program_are_told(gate, options, error):
    """What is wrong is raised as what it is, before anything is sent."""
    with pytest.raises(error):
        gate.search("a", **{"user_id": "me", **options})


def test_a_limit_is_told_to_a_program(tmp_path, monkeypatch):
    """A user whose plan has no search left gets the refusal that programs know."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llm-gate.toml").write_text(CAPPED, encoding="utf-8")

    async def twice():
        async with LLMGate(Source(config_file=tmp_path / "llm-gate.toml")) as opened:
            await opened.search("a", user_id="me")
            with pytest.raises(QuotaExceeded):
                await opened.search("a", user_id="me")

    asyncio.run(twice())


def test_the_command_searches(run):
    """Titles and addresses stand on standard output, who searched on standard error; JSON holds everything."""
    shown, told = run(
        "search", "heat pumps", "--max-results", "1", "--answer", "--include-domain", "arxiv.org"
    )
    document = json.loads(run("search", "-", "--json", "--provider", "sandbox", stdin="heat pumps")[0])
    read = json.loads(run("search", "--kind", "contents", "--url", "https://a.org/x", "--json")[0])

    assert "1. Synthetic page 1: heat pumps" in shown
    assert "   https://arxiv.org/web/" in shown
    assert "You asked: heat pumps" in shown
    assert "sandbox/search | $0 | synthetic" in told
    assert (document["query"], document["provider"], len(document["results"])) == ("heat pumps", "sandbox", 5)
    assert document["results"][0].keys() == {
        "title", "url", "snippet", "content", "score", "published_at", "extra",
    }  # fmt: skip
    assert (document["cost_usd"], document["synthetic"]) == (0, True)
    assert read["results"][0]["url"] == "https://a.org/x"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("search",), 2, "the query is empty"),
        (("search", "a", "--start-date", "soon"), 2, "--start-date"),
        (("search", "a", "--provider", "x", "--model", "y"), 2, "not both"),
        (("search", "a", "--provider", "tavily"), 1, "set TAVILY_API_KEY"),
    ],
)
def test_faults_of_the_command_are_told(run, words, code, told):
    """What is wrong is said in one line, with the exit code that says whose fault it is."""
    assert told in run(*words, code=code)[1]


def test_the_command_finds_what_a_vendor_finds(run, tmp_path):
    """With a key in the environment, the vendor is asked, and what it cost is said."""
    with search_vendors() as vendors:
        (tmp_path / "llm-gate.toml").write_text(vendors.toml, encoding="utf-8")
        shown, told = run("search", "heat pumps", "--max-results", "2", **KEYS)

    assert "1. Page 1\n   https://found.example/1\n   Snippet 1" in shown
    assert "tavily/tavily-search | $0.001" in told
    assert vendors.violations == []
