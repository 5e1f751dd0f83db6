"""Builds the catalog: shipped files, the operator's entries laid over them, checked as one, made into values.

Which of the providers can be used now is not decided here, nor which model a request gets.
"""

import importlib
import importlib.util
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any
from uuid import UUID, uuid5

import msgspec

from llm_gate.catalog.checks import alias_faults, catalog_faults, overlay_faults
from llm_gate.catalog.readable import Readable, Written, readable_part
from llm_gate.domain.catalog import Alias, Catalog, Model, ModelSpec, PriceSpec, ProviderEntry, ProviderSpec
from llm_gate.domain.errors import Fault, GateFault
from llm_gate.domain.money import parse_usd
from llm_gate.domain.pricing import Price, PriceCondition
from llm_gate.domain.provider import Provider

# Ids are names in this namespace, so that an entry has the same id after every start and in every process.
_IDS = UUID("5d0d1a6e-7c0b-5b53-9f0e-2f6f1c8f7a41")
_PROVIDER_MODULES = "llm_gate.providers"
# Keys of a price row that say which price it is; every other key is a unit with its amount.
_ROW_KEYS = frozenset({"model", "since", "above_input_tokens", "batch", "source", "per"})


class CatalogFaults(GateFault):
    """The catalog cannot be used. `faults` names everything that is wrong, and where."""

    code = "configuration_error"

    def __init__(self, faults: Sequence[Fault]) -> None:
        lines = "; ".join(f"{fault.path}: {fault.message}" for fault in faults)
        super().__init__(f"the catalog is faulty: {lines}")
        self.faults = tuple(faults)


def load_catalog(
    overlay: Mapping[str, Any] = {},
    aliases: Mapping[str, Alias] = {},
) -> Catalog:
    """Build the catalog from the shipped files, the operator's `[providers.*]` and the aliases.

    Raises:
        CatalogFaults: something is wrong with the operator's part, or with the two combined.
    """
    catalog, faults = survey_catalog(overlay, aliases)
    if faults:
        raise CatalogFaults(faults)
    return catalog


def survey_catalog(
    overlay: Mapping[str, Any],
    aliases: Mapping[str, Alias],
) -> tuple[Catalog, list[Fault]]:
    """Build the catalog and find its faults, for whoever has more to check.

    With faults, it holds what could be read of the providers, without their models, and is good for checks only.
    """
    shipped = _read_shipped()
    taken = {alias: name for name, entry in shipped.items() for alias in entry.get("aliases", ())}
    faults = list(overlay_faults(overlay, taken))
    parts = {
        name: readable_part(entry, f"providers.{name}")
        for name, entry in overlay.items()
        if name not in taken
    }
    specs = {
        name: msgspec.convert(
            _laid_over(shipped.get(name, {}), parts[name].entry if name in parts else {}), ProviderSpec
        )
        for name in [*shipped, *(name for name in parts if name not in shipped)]
    }
    faults += catalog_faults(specs, _places(specs, parts), parts, shipped)
    faults += alias_faults(aliases, specs, parts)
    if faults:
        specs = {name: msgspec.structs.replace(spec, models=()) for name, spec in specs.items()}
    catalog = Catalog(
        providers={name: _entry(name, spec) for name, spec in specs.items()},
        provider_aliases={alias: name for name, spec in specs.items() for alias in spec.aliases},
        aliases=dict(aliases),
    )
    return catalog, faults


def load_provider(spec: ProviderSpec, dialects: Mapping[str, Provider]) -> Provider:
    """Return what a provider can do: its own module's value, or the dialect's where it has no module.

    Raises:
        CatalogFaults: there is no such module or dialect.
    """
    if spec.module is None:
        if spec.dialect is None or spec.dialect not in dialects:
            known = ", ".join(sorted(dialects))
            raise CatalogFaults([Fault("dialect", f"{spec.dialect!r} is none of {known}")])
        return dialects[spec.dialect]
    path = f"{_PROVIDER_MODULES}.{spec.module}"
    if not spec.module.isidentifier() or importlib.util.find_spec(path) is None:
        raise CatalogFaults([Fault("module", f"there is no provider module {spec.module!r}")])
    provider = getattr(importlib.import_module(path), "provider", None)
    if not isinstance(provider, Provider):
        raise CatalogFaults([Fault("module", f"{spec.module!r} ends with no value `provider`")])
    return provider


def _read_shipped() -> dict[str, dict[str, Any]]:
    data = files("llm_gate.catalog").joinpath("data")
    sheets = {sheet.name: sheet for sheet in data.joinpath("prices").iterdir()}
    shipped: dict[str, dict[str, Any]] = {}
    for file in sorted(data.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            entry = _read(file)
            _add_prices(entry, _read(sheets[file.name]) if file.name in sheets else {"rows": []})
            shipped[file.name.removesuffix(".toml")] = entry
    return shipped


def _read(file: Traversable) -> dict[str, Any]:
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _add_prices(entry: dict[str, Any], sheet: Mapping[str, Any]) -> None:
    """Give the models of a vendor's file their generated prices, with those of `media_prices` and `batch_prices`.

    A list of `prices` written by hand, also an empty one, stands in the place of the generated ones.
    """
    prices: dict[str, list[dict[str, Any]]] = {}
    for row in sheet["rows"]:
        shared = {
            "per": row.get("per", sheet["per"]),
            "source": row.get("source", sheet["source"]),
            "checked": sheet["checked"],
        }
        if "since" in row:
            shared["since"] = row["since"]
        condition = {key: row[key] for key in ("above_input_tokens", "batch") if key in row}
        if condition:
            shared["condition"] = condition
        prices.setdefault(row["model"], []).extend(
            {"unit": unit, "usd": amount, **shared} for unit, amount in row.items() if unit not in _ROW_KEYS
        )
    for model in entry.get("models", ()):
        by_hand = [*model.pop("media_prices", []), *model.pop("batch_prices", [])]
        model["prices"] = [*model.get("prices", prices.get(model["name"], [])), *by_hand]


def _laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table over another: values and lists replace, tables merge, models merge by their name."""
    merged = dict(under)
    for key, value in over.items():
        present = merged.get(key)
        if key == "models":
            merged[key] = _models_laid_over(present or [], value)
        elif isinstance(value, Mapping) and isinstance(present, Mapping):
            merged[key] = _laid_over(present, value)
        else:
            merged[key] = value
    return merged


def _models_laid_over(
    under: Sequence[Mapping[str, Any]], over: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    by_name = {model["name"]: dict(model) for model in under}
    for model in over:
        by_name[model["name"]] = {**by_name.get(model["name"], {}), **model}
    return list(by_name.values())


def _places(
    specs: Mapping[str, ProviderSpec], parts: Mapping[str, Readable]
) -> dict[tuple[str, str], Written]:
    """Say where each model was written: the operator's own entry where there is one, so that it can be found."""
    places: dict[tuple[str, str], Written] = {}
    for provider, spec in specs.items():
        for index, model in enumerate(spec.models):
            places[provider, model.name] = Written(path=f"providers.{provider}.models[{index}]")
        if provider in parts:
            places.update(((provider, name), place) for name, place in parts[provider].models.items())
    return places


def _entry(name: str, spec: ProviderSpec) -> ProviderEntry:
    label = spec.label or name
    models: dict[str, Model] = {}
    for model_spec in spec.models:
        model = _model(name, model_spec)
        models.update((known_as, model) for known_as in (model.name, *model.aliases))
    return ProviderEntry(
        id=_id("provider", name),
        name=name,
        label=label,
        description=spec.description or f"{label} provider",
        spec=spec,
        models=models,
    )


def _model(provider: str, spec: ModelSpec) -> Model:
    label = spec.label or spec.name
    name = f"{provider}/{spec.name}"
    return Model(
        id=_id("model", name),
        provider=provider,
        name=spec.name,
        label=label,
        description=spec.description or f"{label} model",
        operations=spec.operations,
        abilities=frozenset(spec.abilities),
        context_window=spec.context_window,
        max_output_tokens=spec.max_output_tokens,
        media_tokens=spec.media_tokens,
        media=spec.media,
        search=spec.search,
        training_data=spec.training_data,
        prices=tuple(_price(name, price) for price in spec.prices if not _is_of_batches(price)),
        batch_prices=tuple(_price(name, price) for price in spec.prices if _is_of_batches(price)),
        batches=spec.batches,
        tuned_prices=tuple(_price(f"{name}:tuned", price) for price in spec.tuned_prices),
        aliases=spec.aliases,
        retired_on=spec.retired_on,
        replacement=spec.replacement,
        deployment=spec.deployment,
        region=spec.region,
        api=spec.api,
        api_version=spec.api_version,
    )


def _price(model: str, spec: PriceSpec) -> Price:
    # A record pins the price it used by this id, so whatever changes the amount changes the id.
    nanos = parse_usd(spec.usd)
    minimum = None if spec.minimum_usd is None else parse_usd(spec.minimum_usd)
    condition: tuple[object, ...] | None = None
    if spec.condition is not None:
        parts = msgspec.structs.asdict(spec.condition)
        is_of_batches = parts.pop("batch")
        # What was there before batches keeps its id.
        condition = (*parts.values(), "batch") if is_of_batches else tuple(parts.values())
    return Price(
        id=_id("price", f"{model}/{spec.unit}/{condition}/{spec.since}/{nanos}/{spec.per}/{minimum}"),
        unit=spec.unit,
        per=spec.per,
        nanos=nanos,
        minimum_nanos=minimum,
        instead_of=spec.instead_of,
        condition=_usual(spec.condition),
        since=spec.since,
        source=spec.source,
        checked=spec.checked,
    )


def _is_of_batches(price: PriceSpec) -> bool:
    return price.condition is not None and price.condition.batch


def _usual(condition: PriceCondition | None) -> PriceCondition | None:
    """Return a condition without its word for batches, whose prices stand in a list of their own."""
    if condition is None or not condition.batch:
        return condition
    rest = msgspec.structs.replace(condition, batch=False)
    return None if rest == PriceCondition() else rest


def _id(kind: str, name: str) -> str:
    return str(uuid5(_IDS, f"{kind}:{name}"))
