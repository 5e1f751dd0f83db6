"""Research from the command line and from Python, on the sandbox, as somebody without any key has it."""

import asyncio
import json

import pytest

from llm_gate import BlockingLLMGate, LLMGate, Source
from llm_gate.domain.errors import InvalidRequest, NotFound
from support.forking import clean_environment, run_command

QUESTION = "Which licence does CPython have?"


def run(folder, *arguments, said=None):
    return run_command(
        "research",
        *arguments,
        "--data-dir",
        str(folder / "data"),
        "--no-env-file",
        folder=folder,
        environment=clean_environment(),
        text=said or "",
    )


def test_the_command_prints_answer_and_sources(tmp_path):
    """The answer and what it cites on standard output, the progress, the notes and the cost beside it."""
    done = run(tmp_path, QUESTION, "--max-results", "2")
    progress = done.stderr.splitlines()

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("This is a synthetic answer from the LLM Gate sandbox")
    assert "\n\n[1] Synthetic page 1: Which licence does CPython have?\n    https://sandbox.example/web/" in (
        done.stdout
    )
    assert progress[:3] == [
        f"searching: {QUESTION}",
        "reading 2 sources",
        "note: synthetic: made by the LLM Gate sandbox",
    ]
    assert progress[3].startswith("sandbox/chat | $0 | ")


def test_the_command_gives_all_of_it_as_json(tmp_path):
    """With --json, and the question from standard input."""
    done = run(tmp_path, "-", "--json", "--max-results", "1", said=QUESTION)
    document = json.loads(done.stdout)

    assert (done.returncode, done.stderr) == (0, "")
    assert [each["index"] for each in document["citations"]] == [1]
    assert [step["step"] for step in document["steps"]] == ["searching", "answering"]
    assert document["cost_usd"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((" ",), 2, "the question is empty"),
        (("x", "--queries", "9"), 2, "--queries"),
        (("x", "--search", "nobody/"), 1, "nobody"),
        (("x", "--search", "grounding", "--queries", "2"), 1, "cannot be said together with grounding"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, arguments, code, said):
    """On standard error, with an exit code that tells the work from the command line."""
    done = run(tmp_path, *arguments)

    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_the_library_tells_what_happens(tmp_path):
    """Events in their order, and an answer whose citations are its sources."""
    seen = []
    with BlockingLLMGate(Source(overrides={"data_dir": tmp_path})) as gate:
        found = gate.research(
            QUESTION,
            user_id="ann",
            queries=2,
            max_results=3,
            include_domains=["python.org"],
            on_event=lambda event: seen.append(type(event).__name__),
        )

    assert seen == ["Planning", "Searching", "Reading", "Answering", "AnswerDelta", "ResearchResult"]
    assert all(each.url.startswith("https://python.org/") for each in found.sources)
    assert [each.url for each in found.citations] == [
        found.sources[each.index - 1].url for each in found.citations
    ]
    assert (found.cost_usd, found.usage.total_tokens > 0) == (0, True)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"queries": 9}, InvalidRequest),
        ({"max_results": 0}, InvalidRequest),
        ({"max_tokens": 0}, InvalidRequest),
        ({"search": "nobody/"}, NotFound),
        ({"model": "nobody/m"}, NotFound),
        ({"instructions": "x" * 4_001}, InvalidRequest),
        ({"unknown": 1}, TypeError),
        ({"timeout_s": 0}, ValueError),
    ],
)
def test_the_library_refuses_what_cannot_be(tmp_path, options, error):
    """With an error that says what is wrong, before anything is sent."""

    async def work():
        async with LLMGate(Source(overrides={"data_dir": tmp_path})) as gate:
            await gate.research(QUESTION, user_id="ann", **options)

    with pytest.raises(error):
        asyncio.run(work())


def test_an_observer_that_fails_leaves_nothing_held(tmp_path):
    """What `on_event` raises ends the research, and the quote of the whole with it."""
    file = tmp_path / "llm-gate.toml"
    file.write_text('[plans]\ndefault = "free"\n')

    def breaks(_event):
        raise ZeroDivisionError

    async def work():
        async with LLMGate(Source(config_file=file, overrides={"data_dir": tmp_path})) as gate:
            with pytest.raises(ZeroDivisionError):
                await gate.research(QUESTION, user_id="ann", on_event=breaks)
            return await gate.research(QUESTION, user_id="ann")

    answer = asyncio.run(work())
    checked = run_command(
        "ledger",
        "check",
        "--json",
        "--data-dir",
        str(tmp_path),
        "--no-env-file",
        folder=tmp_path,
        environment=clean_environment(),
    )

    assert answer.text
    assert json.loads(checked.stdout)["open_reservations"] == 0
