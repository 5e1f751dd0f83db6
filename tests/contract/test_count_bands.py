"""How far counts made here are off: against what vendors reported of every recorded request. See docs/counting.md."""

import asyncio
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import msgspec
import pytest

import llm_gate
from llm_gate.domain.catalog import ProviderSpec
from llm_gate.domain.counting import BANDS, CountingSpec
from llm_gate.engine.counting import tokenized
from llm_gate.engine.estimate import size_of_chat
from llm_gate.engine.likely import counting, likely_input_tokens
from llm_gate.measures.tokens import ShippedTokenizers
from support.counted import Counted, counted
from support.recorded import REASON, recorded_root
from support.targets import make_target

DATA = Path(llm_gate.__file__).parent / "catalog" / "data"
VENDORS = 11
"""Whose usage is recorded."""

pytestmark = pytest.mark.skipif(recorded_root() is None, reason=REASON)


@cache
def recorded():
    """Return every recorded chat of text and tools."""
    return tuple(counted())


@cache
def spec_of(vendor: str):
    document = tomllib.loads((DATA / f"{vendor}.toml").read_text(encoding="utf-8"))
    rules = msgspec.convert(document.get("counting", ()), tuple[CountingSpec, ...])
    return ProviderSpec(dialect="openai", counting=rules)


def target_of(call: Counted):
    """Return a target as the shipped catalog describes its vendor."""
    return make_target(provider=call.vendor, model=call.model, spec=spec_of(call.vendor))


def share_within(ratios, band):
    low, high = band
    return sum(low <= 100 * ratio <= high for ratio in ratios) / len(ratios)


def at(ratios, percent):
    return sorted(ratios)[round((len(ratios) - 1) * percent / 100)]


def test_the_estimates_band_holds_for_all_recordings():
    """Of all vendors' counts, eight in ten lie in the stated band, half within a seventh; the ends are known."""
    ratios = [call.tokens / likely_input_tokens(call.request, target_of(call)) for call in recorded()]

    assert len(ratios) > 190
    assert len({call.vendor for call in recorded()}) == VENDORS
    assert share_within(ratios, BANDS["estimate"]) >= 0.78
    assert share_within(ratios, (86, 114)) >= 0.5
    assert (at(ratios, 5) > 0.55, at(ratios, 50) == pytest.approx(1, abs=0.05), at(ratios, 95) < 2.6) == (
        True,
    ) * 3
    # One model leaves out what it was told it had thought; one vendor adds instructions of which nobody knows.
    assert (min(ratios) > 0.02, max(ratios) < 40) == (True, True)


def test_the_estimate_is_better_than_bytes_by_four():
    """What was taken before, four bytes for a token, was further off for most requests and most vendors."""
    nearer = Counter[str]()
    for call in recorded():
        plain = (
            sum(len(bytes(raw)) for raw in (call.request.wire.fields if call.request.wire else {}).values())
            / 4
        )
        ours = likely_input_tokens(call.request, target_of(call))
        if plain:
            nearer["ours" if abs(ours - call.tokens) <= abs(plain - call.tokens) else "bytes"] += 1

    assert nearer["ours"] > 7 * nearer["bytes"], nearer


def test_the_tokenizers_band_holds_for_all_recordings():
    """Where the tokenizer is public, nine tenths of the vendors' counts lie in its band."""
    tokenizers = ShippedTokenizers()

    async def ratios():
        found = []
        for call in recorded():
            target = target_of(call)
            if counting(target).encoding is not None:
                tokens = await tokenized(tokenizers, call.request, target)
                found.append(call.tokens / tokens)
        return found

    found = asyncio.run(ratios())

    assert len(found) > 70
    assert share_within(found, BANDS["tokenizer"]) >= 0.8
    assert at(found, 50) == pytest.approx(1, abs=0.02)


def test_the_strict_bound_holds_for_all_recordings():
    """No vendor counted more than a strict plan would have held, but one that adds what nobody knows of."""
    above = {
        call.id for call in recorded() if call.tokens > size_of_chat(call.request, target_of(call)).most_input
    }

    # A free model of a reseller, which reported sixty times what it was sent.
    assert above == {"openrouter/chat-stream/comments-raw-http.json"}
