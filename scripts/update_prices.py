"""Writes the prices of the catalog's models from the genai-prices data; `--check` only compares.

Every model of a vendor's file that the data may know and that carries no `prices` key gets its rows in
prices/<vendor>.toml. What the data does not know of media is written by hand, as the model's `media_prices`.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices.data import providers
from genai_prices.types import ModelInfo, ModelPrice, Provider, StartDateConstraint, TieredPrices

# The data carries no date of its own, so a new release is named here together with the day it appeared.
RELEASE = "0.2.3"
RELEASED_ON = date(2026, 11, 10)

DATA = Path(__file__).parents[1] / "src" / "llm_gate" / "catalog" / "data"

# Our provider -> theirs, in order; the second is asked where the first does not know a model.
SOURCES = {
    "openai": ("openai",),
    "azure_openai": ("azure", "openai"),
    "anthropic": ("anthropic",),
    "gemini": ("google",),
    "cohere": ("cohere",),
    "mistral": ("mistral",),
    "groq": ("groq",),
    "deepseek": ("deepseek",),
    "openrouter": ("openrouter",),
    "together": ("together",),
    "fireworks": ("fireworks",),
    "xai": ("x-ai",),
}
# The router bills what the named inference provider asks, so `model:provider` is looked up at that provider.
ROUTER = "huggingface"

# The operations whose models the data may know.
PRICED = {"chat", "embedding", "image", "image_edit", "speech", "transcription"}
PICTURES = {"image", "image_edit"}
BATCHED = {"chat", "embedding"}

# Their price key -> our unit. Keys that are missing here (searches, one-hour cache writes) have no unit in a usage.
UNITS = {
    "input_mtok": "input_tokens",
    "cache_read_mtok": "cached_input_tokens",
    "cache_write_mtok": "cache_write_tokens",
    "input_audio_mtok": "audio_input_tokens",
    "input_image_mtok": "image_input_tokens",
    "output_mtok": "output_tokens",
    "output_audio_mtok": "audio_output_tokens",
    "output_image_mtok": "image_output_tokens",
    "input_mchars": "characters",
    "audio_hours": "seconds",
}
# Units that the data counts otherwise than by the million, and how many of ours that is.
OTHERWISE = {"seconds": 3600}
# Where a later price drops one of these, its tokens are billed as plain ones from that day on.
PLAIN = {
    "cached_input_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "audio_input_tokens": "input_tokens",
    "image_input_tokens": "input_tokens",
    "audio_output_tokens": "output_tokens",
    "image_output_tokens": "output_tokens",
}

Amounts = dict[tuple[int, str], str]  # (threshold in input tokens, unit) -> dollars per million


def find(vendor: str, name: str) -> tuple[Provider, ModelInfo] | None:
    """Return the price data's entry for one of our models, and where it comes from."""
    known = {provider.id: provider for provider in providers}
    wanted = SOURCES.get(vendor, ())
    if vendor == ROUTER:
        name, _, served_by = name.partition(":")
        wanted = (f"{ROUTER}_{served_by}",) if served_by else ()
    for provider in (known[key] for key in wanted if key in known):
        model = provider.find_model(name)
        if model is not None:
            return provider, model
    return None


def periods(model: ModelInfo) -> list[tuple[date | None, ModelPrice]] | None:
    """Return a model's prices by first day, or None where they depend on the hour."""
    if isinstance(model.prices, ModelPrice):
        return [(None, model.prices)]
    found: list[tuple[date | None, ModelPrice]] = []
    for item in model.prices:
        if item.constraint is None:
            found.append((None, item.prices))
        elif isinstance(item.constraint, StartDateConstraint):
            found.append((item.constraint.start_date, item.prices))
        else:
            return None
    return sorted(found, key=lambda period: period[0] or date.min)


def batch_periods(model: ModelInfo) -> list[tuple[date | None, ModelPrice]]:
    """Return by first day what is priced otherwise in a vendor's batches."""
    found: list[tuple[date | None, ModelPrice]] = []
    for item in model.price_variants or ():
        if item.when != {"processing": "batch"}:
            continue
        if item.constraint is None:
            found.append((None, item.prices))
        elif isinstance(item.constraint, StartDateConstraint):
            found.append((item.constraint.start_date, item.prices))
    return sorted(found, key=lambda period: period[0] or date.min)


def amounts(price: ModelPrice, *, draws: bool) -> Amounts:
    """Flatten one price into dollars per million (or `OTHERWISE`) by threshold and unit.

    Where the data knows but one output of a model that `draws`, that is its pictures.
    """
    found: Amounts = {}
    pictures_only = draws and price.output_image_mtok is None
    names = {**UNITS, "output_mtok": "image_output_tokens"} if pictures_only else UNITS
    for key, unit in names.items():
        value = price.__dict__.get(key)
        if value is None:
            continue
        tiers = value.tiers if isinstance(value, TieredPrices) else []
        found[0, unit] = format(value.base if isinstance(value, TieredPrices) else value, "f")
        for tier in tiers:
            found[tier.start, unit] = format(tier.price, "f")
    return found


def complete(new: Amounts, old: Amounts) -> Amounts:
    """Say explicitly what an earlier period said and a later one leaves out.

    A row stays in force until one for the same unit and threshold follows it, so that silence would keep it.
    """
    full = dict(new)
    for threshold, unit in old:
        if (threshold, unit) in full:
            continue
        plain = PLAIN.get(unit, unit)
        candidates = ((threshold, unit), (0, unit), (threshold, plain), (0, plain))
        amount = next((new[at] for at in candidates if at in new), None)
        if amount is not None:
            full[threshold, unit] = amount
    return full


def rows(
    name: str,
    source: str | None,
    found_periods: Iterable[tuple[date | None, ModelPrice]],
    *,
    draws: bool,
    batch: bool,
) -> Iterator[str]:
    """Yield the TOML rows of one model: one for each start date, threshold and number of units."""
    before: Amounts = {}
    for since, price in found_periods:
        now = complete(amounts(price, draws=draws), before)
        for threshold, per in sorted({(at, OTHERWISE.get(unit, 0)) for at, unit in now}):
            row = {
                unit: now[threshold, unit]
                for unit in UNITS.values()
                if (threshold, unit) in now and OTHERWISE.get(unit, 0) == per
            }
            if row == {unit: before[threshold, unit] for unit in row if (threshold, unit) in before}:
                continue
            parts = [f'model = "{name}"']
            if since is not None:
                parts.append(f"since = {since.isoformat()}")
            if batch:
                parts.append("batch = true")
            if per:
                parts.append(f"per = {per:_}")
            if threshold:
                parts.append(f"above_input_tokens = {threshold:_}")
            parts += [f'{unit} = "{amount}"' for unit, amount in row.items()]
            if source is not None:
                parts.append(f'source = "{source}"')
            yield f"  {{ {', '.join(parts)} }},"
        before = now


def priced_models(vendor: dict[str, Any]) -> Iterator[tuple[str, bool, bool]]:
    """Yield the models whose price is a matter of this script, whether they draw, and whether batches matter."""
    takes_batches = "batches" in vendor
    for model in vendor.get("models", ()):
        gone = model.get("retired_on", date.max) <= RELEASED_ON
        operations = set(model.get("operations", ("chat",)))
        if operations & PRICED and not gone and "prices" not in model:
            yield model["name"], bool(operations & PICTURES), takes_batches and bool(operations & BATCHED)


def sheet(vendor: str) -> tuple[str | None, list[str]]:
    """Return a vendor's price file, None where nothing is priced, and remarks for the reader of the output."""
    lines: list[str] = []
    remarks: list[str] = []
    main: str | None = None
    for name, draws, is_batched in priced_models(
        tomllib.loads((DATA / f"{vendor}.toml").read_text(encoding="utf-8"))
    ):
        found = find(vendor, name)
        if found is None:
            remarks.append(f"{vendor}/{name}: not in the price data")
            continue
        provider, model = found
        if periods(model) is None:
            remarks.append(f"{vendor}/{name}: priced by the hour, left without a price")
            continue
        if model.id.lower() != name.lower():
            remarks.append(f"{vendor}/{name}: priced as {provider.id}/{model.id}")
        page = (provider.pricing_urls or [provider.api_pattern])[0]
        main = main or page
        shown = page if page != main else None
        lines += rows(name, shown, periods(model) or (), draws=draws, batch=False)
        if is_batched:
            lines += rows(name, shown, batch_periods(model), draws=draws, batch=True)
    if not lines:
        return None, remarks
    head = [
        f"# Generated by scripts/update_prices.py from genai-prices {RELEASE}; do not edit. Dollars for `per` units.",
        f'source = "{main}"',
        f"checked = {RELEASED_ON.isoformat()}",
        "per = 1_000_000",
        "rows = [",
    ]
    return "\n".join([*head, *lines, "]", ""]), remarks


def differences(vendors: Iterable[str], *, write: bool) -> list[Path]:
    """Compare every price file with the data, and write those that differ if asked to."""
    differing: list[Path] = []
    for vendor in vendors:
        text, remarks = sheet(vendor)
        path = DATA / "prices" / f"{vendor}.toml"
        present = path.read_text(encoding="utf-8") if path.exists() else None
        if write:
            print(*remarks, sep="\n", end="\n" if remarks else "")
        if text == present:
            continue
        differing.append(path)
        if write and text is None:
            path.unlink()
        elif write and text is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return differing


def main() -> int:
    """Run the command; 1 means that the files differ from the data, or that the data is another release."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file would change")
    check = parser.parse_args().check
    installed = version("genai-prices")
    if installed != RELEASE:
        print(f"genai-prices {installed} is installed: set RELEASE and RELEASED_ON in this script first")
        return 1
    vendors = sorted(path.stem for path in DATA.glob("*.toml"))
    differing = differences(vendors, write=not check)
    for path in differing:
        print(f"{path.name} {'differs from the price data' if check else 'written'}")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
