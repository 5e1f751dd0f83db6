"""What the documents say of hits by meaning follows from the figures that were measured."""

import json
import re
import runpy
from pathlib import Path

import pytest

from llm_gate.domain.cache import CacheRule
from llm_gate.settings.records import CacheSettings
from support.cached_gateway import vector_of
from support.upstream import Answer, fake_upstream

PROJECT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(PROJECT / "scripts" / "measure_similarity.py"))
PAIRS = json.loads((PROJECT / "tests" / "support" / "question_pairs.json").read_text(encoding="utf-8"))[
    "pairs"
]
DOCUMENT = PROJECT / "docs" / "caching.md"
DEFAULT = CacheSettings().threshold


def tables():
    return {
        "by threshold": SCRIPT["by_threshold"](PAIRS),
        "by kind": SCRIPT["by_kind"](PAIRS, DEFAULT),
        "with facts": SCRIPT["by_threshold"](PAIRS, SCRIPT["facts_agree"]),
    }


@pytest.mark.parametrize("name", tables())
def test_the_tables_of_the_document_follow_from_the_figures(name):
    """Each table in docs/caching.md is what the script makes of the pairs and their cosines."""
    assert "\n".join(tables()[name]) in DOCUMENT.read_text(encoding="utf-8")


def test_the_document_speaks_of_the_default_threshold():
    """The figures that the document begins with are those at the threshold of the settings."""
    row = next(line for line in tables()["by threshold"] if line.startswith(f"| {DEFAULT:.2f} "))
    right, same, wrong, other, precision, recall = re.fullmatch(
        r"\| \S+ \| (\d+) of (\d+) \| (\d+) of (\d+) \(\d+%\) \| (\S+) \| (\S+) \|", row
    ).groups()
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    assert f"the default threshold of {DEFAULT}, of {same} questions put in other words {right} hit" in text
    assert f"of {other} questions that look alike and mean something else {wrong} hit" in text
    assert f"Precision is {precision} there, recall {recall}" in text
    assert CacheRule().threshold == DEFAULT


def test_there_are_enough_pairs_of_every_kind():
    """Over 200 pairs, no question paired with itself, no pair twice, each kind with more than a few."""
    kinds = [pair["kind"] for pair in PAIRS]
    assert len({(pair["one"], pair["other"]) for pair in PAIRS}) == len(PAIRS) == 252
    assert all(pair["one"] != pair["other"] for pair in PAIRS)
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "same": 120,
        "number": 22,
        "name": 22,
        "negation": 22,
        "year": 22,
        "reversed": 22,
        "scope": 22,
    }


def test_the_script_measures_another_model():
    """Over the endpoint of any embedding model the script finds the cosines of all pairs."""

    def embed(seen):
        vectors = [vector_of(text) for text in seen.json["input"]]
        data = [{"index": at, "embedding": vector} for at, vector in enumerate(vectors)]
        return Answer.json({"data": data[::-1]})

    pairs = [
        {"kind": "same", "one": "Question 1", "other": "Question 1", "cosine": 0},
        {"kind": "number", "one": "Question 1", "other": "Question 2", "cosine": 0},
    ]
    with fake_upstream() as upstream:
        upstream.next_answer = embed
        found = SCRIPT["measured"](pairs, f"{upstream.url}/v1", "e")
    assert [pair["cosine"] for pair in found] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("How tall is Everest?", "What is the height of Everest?", True),
        ("Who won in 2014?", "Who won in 2018?", False),
        ("From London to Paris?", "From Paris to London?", False),
        ("Is it safe?", "Isn\u2019t it safe?", False),
        ("I'd like to know it.", "Can I know it?", True),
        ("Translate 'yes'.", "Translate 'no'.", False),
    ],
)
def test_facts_are_numbers_names_denials_and_what_is_quoted(one, other, agree):
    """Two questions agree where these are the same, in the same order."""
    assert SCRIPT["facts_agree"]({"one": one, "other": other}) is agree
