"""Tells how well an embedding model keeps questions apart: what docs/caching.md says under "How good is it".

Without arguments it prints the tables of the figures in tests/support/question_pairs.json. With `--url` and `--model`
it asks an OpenAI-like endpoint, a running gateway for instance, for the vectors of all questions, and prints the
tables for that model; `--write` puts its figures into the file. The key is read from LLM_GATE_API_KEY.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.request import Request, urlopen

from llm_gate.engine.cache_facts import facts_of

PAIRS = Path(__file__).parents[1] / "tests" / "support" / "question_pairs.json"
THRESHOLDS = tuple(hundredths / 100 for hundredths in range(80, 100))
SAME = "same"

_AT_ONCE = 64
_TIMEOUT_S = 60
_DIGITS = 3

Pair = dict[str, str | float]


def facts_agree(pair: Pair) -> bool:
    """Tell whether the facts of both questions are the same."""
    return facts_of(str(pair["one"])) == facts_of(str(pair["other"]))


def by_threshold(pairs: Sequence[Pair], counts: Callable[[Pair], bool] = lambda _: True) -> Iterator[str]:
    """Yield the rows of a table: of each threshold, what hits, what does so wrongly, precision and recall."""
    same = sum(pair["kind"] == SAME for pair in pairs)
    other = len(pairs) - same
    yield "| Threshold | Same, and hit | Different, yet hit | Precision | Recall |"
    yield "|---|---|---|---|---|"
    for threshold in THRESHOLDS:
        hits = [pair["kind"] == SAME for pair in pairs if pair["cosine"] >= threshold and counts(pair)]
        right, wrong = sum(hits), len(hits) - sum(hits)
        precision = f"{right / len(hits):.2f}" if hits else "none hit"
        yield (
            f"| {threshold:.2f} | {right} of {same} | {wrong} of {other} ({wrong / other:.0%}) "
            f"| {precision} | {right / same:.2f} |"
        )


def by_kind(pairs: Sequence[Pair], threshold: float) -> Iterator[str]:
    """Yield the rows of a table: how near the questions of each kind are, and how many hit at a threshold."""
    yield f"| Pairs | How many | Least | Median | Greatest | Hit at {threshold:.2f} |"
    yield "|---|---|---|---|---|---|"
    for kind in dict.fromkeys(str(pair["kind"]) for pair in pairs):
        found = sorted(float(pair["cosine"]) for pair in pairs if pair["kind"] == kind)
        hits = sum(each >= threshold for each in found)
        middle = found[len(found) // 2]
        yield f"| {kind} | {len(found)} | {found[0]:.2f} | {middle:.2f} | {found[-1]:.2f} | {hits} |"


def measured(pairs: Sequence[Pair], url: str, model: str) -> list[Pair]:
    """Return the pairs with the cosines of a model behind an address."""
    texts = [str(pair[side]) for pair in pairs for side in ("one", "other")]
    vectors = [vector for some in batched_texts(texts) for vector in vectors_of(some, url, model)]
    return [
        {**pair, "cosine": round(cosine(one, other), _DIGITS)}
        for pair, one, other in zip(pairs, vectors[::2], vectors[1::2], strict=True)
    ]


def batched_texts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the texts, some at a time."""
    for start in range(0, len(texts), _AT_ONCE):
        yield texts[start : start + _AT_ONCE]


def vectors_of(texts: Sequence[str], url: str, model: str) -> list[list[float]]:
    """Ask for the vectors of some texts."""
    key = os.environ.get("LLM_GATE_API_KEY", "")
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    body = json.dumps({"model": model, "input": list(texts), "encoding_format": "float"}).encode()
    request = Request(f"{url.rstrip('/')}/embeddings", body, headers)  # noqa: S310 - the operator's own address
    with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
        found = json.load(answer)["data"]
    return [each["embedding"] for each in sorted(found, key=lambda each: each["index"])]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of two vectors."""
    lengths = sum(each * each for each in one) * sum(each * each for each in other)
    return sum(left * right for left, right in zip(one, other, strict=True)) / lengths**0.5


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--url", help="an OpenAI-like address, such as http://127.0.0.1:8080/v1")
    parser.add_argument("--model", help="the embedding model to ask for there")
    parser.add_argument("--threshold", type=float, default=0.95, help="the threshold to look at by kind")
    parser.add_argument("--write", action="store_true", help="put the figures into the file")
    said = parser.parse_args()
    known = json.loads(PAIRS.read_text(encoding="utf-8"))
    model, pairs = known["model"], known["pairs"]
    if said.url:
        model, pairs = said.model, measured(pairs, said.url, said.model)
    print(f"{model}\n")
    print("\n".join(by_threshold(pairs)), "\n")
    print("\n".join(by_kind(pairs, said.threshold)), "\n")
    print("Where numbers, names and denials must agree as well:\n")
    print("\n".join(by_threshold(pairs, facts_agree)))
    if said.write:
        lines = ",\n".join(f"    {json.dumps(pair, ensure_ascii=False)}" for pair in pairs)
        text = f'{{\n  "model": {json.dumps(model)},\n  "pairs": [\n{lines}\n  ]\n}}\n'
        PAIRS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
