"""Everything that can be wrong with provider files and is not a matter of types. Nothing here is built or read."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from llm_gate.catalog.readable import Readable, Written
from llm_gate.domain.catalog import Alias, ModelSpec, PriceSpec, ProviderSpec
from llm_gate.domain.errors import Fault
from llm_gate.domain.faults import find_faults
from llm_gate.domain.money import parse_usd

# Lower case only: the name is also a part of environment variables, where case cannot be told apart.
_PROVIDER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_DEPLOYMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OWN_PLACE = "default"
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Ours begin alike, so that nobody takes them for a vendor's, and web pages may read them.
_OUR_HEADER = re.compile(r"x-llm-gate-[a-z0-9-]+", re.IGNORECASE)
_TAKEN_HEADERS = frozenset(
    f"x-llm-gate-{name}"
    for name in ("provider", "model", "attempts", "cost-usd", "dropped", "synthetic", "estimated")
)
# What is made may have a size, a quality, a resolution; and what tokens are counted of may be stood in for.
_SHAPED_UNITS = frozenset({"images", "image_inputs", "megapixels", "requests", "seconds"})
_STOOD_IN_FOR = frozenset({"input_tokens", "output_tokens", "image_output_tokens"})


def overlay_faults(overlay: Mapping[str, Any], taken: Mapping[str, str]) -> Iterator[Fault]:
    """Find the faults of the operator's entries taken by themselves; `taken` are other names of shipped providers."""
    for name, entry in overlay.items():
        path = f"providers.{name}"
        if not _PROVIDER_NAME.fullmatch(name):
            yield Fault(path, "a provider's name is made of lower-case letters, digits, _ and -")
        if name in taken:
            yield Fault(path, f"another name of {taken[name]!r}: write [providers.{taken[name]}]")
        for fault in find_faults(entry, ProviderSpec, path):
            yield Fault(fault.path, fault.message.replace("`object`", "`table`"))
        yield from _repeated_models(entry, path)


def catalog_faults(
    specs: Mapping[str, ProviderSpec],
    places: Mapping[tuple[str, str], Written],
    parts: Mapping[str, Readable],
    shipped: Collection[str],
) -> list[Fault]:
    """Return the faults of all providers as one catalog, after laying the operator's entries over the shipped ones.

    `places` says where a (provider, model) was written; `parts` are the operator's entries as far as they could
    be read. What depends on something that could not be read is not judged. A provider that is `shipped` without
    a dialect is only catalogued, and needs no address.
    """
    found = list(_provider_name_faults(specs))
    for provider, spec in specs.items():
        unread = parts[provider].unread if provider in parts else frozenset()
        if provider not in shipped or spec.dialect is not None or spec.module is not None:
            found += _address_faults(spec, f"providers.{provider}", unread)
        found += _header_faults(spec, f"providers.{provider}.reply_headers")
        found += _deployment_faults(spec, f"providers.{provider}.deployments")
        known: dict[str, ModelSpec] = {}
        for model in spec.models:
            found += _name_faults(model, known, places[provider, model.name].path)
            known.update((name, model) for name in (model.name, *model.aliases) if name not in known)
        for model in spec.models:
            written = places[provider, model.name]
            found += _model_faults(model, written.path)
            found += _price_faults(model.prices, written)
            if "models" not in unread:
                found += _replacement_faults(model, known, written.path)
        if "models" not in unread:
            found += _default_faults(spec, known, f"providers.{provider}.defaults")
    return found


def alias_faults(
    aliases: Mapping[str, Alias], specs: Mapping[str, ProviderSpec], parts: Mapping[str, Readable]
) -> Iterator[Fault]:
    """Find the faults of all aliases. A target that an unreadable part may define is not judged."""
    hides_providers = any("aliases" in part.unread for part in parts.values())
    hides_models = any(part.hides_models for part in parts.values())
    providers = set(specs) | {name for spec in specs.values() for name in spec.aliases}
    models = {
        name for spec in specs.values() for model in spec.models for name in (model.name, *model.aliases)
    }
    for alias, said in aliases.items():
        targets = [each.target for each in said.targets]
        path = f"aliases.{alias}"
        if "/" in alias and alias.partition("/")[0] in providers:
            yield Fault(path, "never reached: the part before the slash is the name of a provider")
        if not targets:
            yield Fault(f"{path}.targets", "expected at least one target")
        for index, target in enumerate(targets):
            where = f"{path}.targets[{index}]"
            provider, slash, model = target.partition("/")
            if slash and provider in providers:
                # A model that is not listed is passed through, so any name will do.
                if not model:
                    yield Fault(where, "expected a model after the slash")
            elif target in models:
                continue
            elif target in aliases:
                yield Fault(where, f"{target!r} is an alias itself")
            elif slash:
                if not hides_providers:
                    yield Fault(where, f"there is no provider {provider!r}")
            elif not hides_models:
                yield Fault(where, f"there is no model {target!r}; write provider/model")


def _repeated_models(entry: Any, path: str) -> Iterator[Fault]:
    models = entry.get("models") if isinstance(entry, Mapping) else None
    seen: set[str] = set()
    for index, model in enumerate(models if isinstance(models, list) else ()):
        name = model.get("name") if isinstance(model, Mapping) else None
        if not isinstance(name, str):
            continue
        if name in seen:
            yield Fault(f"{path}.models[{index}].name", f"a second model named {name!r}")
        seen.add(name)


def _provider_name_faults(specs: Mapping[str, ProviderSpec]) -> Iterator[Fault]:
    taken: dict[str, str] = {}
    for provider, spec in specs.items():
        for index, alias in enumerate(spec.aliases):
            path = f"providers.{provider}.aliases[{index}]"
            if alias in specs:
                yield Fault(path, f"{alias!r} is the name of a provider")
            elif alias in taken:
                yield Fault(path, f"{alias!r} is already another name of {taken[alias]!r}")
            taken.setdefault(alias, provider)


def _address_faults(spec: ProviderSpec, path: str, unread: frozenset[str]) -> Iterator[Fault]:
    if spec.dialect is None and spec.module is None and not unread & {"dialect", "module"}:
        yield Fault(f"{path}.dialect", "required field is missing")
    if spec.base_url is None:
        is_elsewhere = spec.base_url_env is not None or spec.regions
        if not is_elsewhere and not unread & {"base_url", "base_url_env", "regions"}:
            yield Fault(f"{path}.base_url", "required field is missing")
    elif not _is_http_url(spec.base_url):
        yield Fault(f"{path}.base_url", "expected an address that starts with http:// or https://")
    if spec.auth.kind == "header" and not spec.auth.header:
        yield Fault(f"{path}.auth.header", "required field is missing where kind is 'header'")
    is_free = spec.auth.kind == "none" or spec.auth.names or spec.auth.optional or spec.regions
    if not is_free and "regions" not in unread:
        yield Fault(f"{path}.auth.env", "the name of an environment variable is missing")


def _header_faults(spec: ProviderSpec, path: str) -> Iterator[Fault]:
    for vendors, ours in spec.reply_headers.items():
        if not _HEADER.fullmatch(vendors):
            yield Fault(path, f"{vendors!r} is no header name")
        if not _OUR_HEADER.fullmatch(ours):
            yield Fault(f"{path}.{vendors}", "expected a header name that starts with x-llm-gate-")
        elif ours.lower() in _TAKEN_HEADERS:
            yield Fault(f"{path}.{vendors}", f"{ours!r} is a header that the gateway sets itself")


def _deployment_faults(spec: ProviderSpec, path: str) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    for name, place in spec.deployments.items():
        where = f"{path}.{name}"
        if not _DEPLOYMENT_NAME.fullmatch(name):
            yield Fault(where, "a deployment's name is made of letters, digits, ., _ and -")
        if name.lower() in seen:
            yield Fault(where, f"the same name as {seen[name.lower()]!r}: capitals are not told apart")
        seen.setdefault(name.lower(), name)
        if place.base_url is not None and not _is_http_url(place.base_url):
            yield Fault(f"{where}.base_url", "expected an address that starts with http:// or https://")
        if name.lower() == _OWN_PLACE:
            for key in ("env", "base_url", "region"):
                if getattr(place, key) is not None:
                    yield Fault(f"{where}.{key}", "does not apply to the provider's own place")


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _name_faults(model: ModelSpec, known: Mapping[str, ModelSpec], path: str) -> Iterator[Fault]:
    if not model.name:
        yield Fault(f"{path}.name", "expected a name")
    if model.name in known:
        yield Fault(f"{path}.name", f"{model.name!r} is already an alias of {known[model.name].name!r}")
    for index, alias in enumerate(model.aliases):
        if alias == model.name or alias in known:
            other = known.get(alias, model).name
            yield Fault(f"{path}.aliases[{index}]", f"{alias!r} already names the model {other!r}")


def _model_faults(model: ModelSpec, path: str) -> Iterator[Fault]:
    if not model.operations:
        yield Fault(f"{path}.operations", "expected at least one operation")
    for field in ("context_window", "max_output_tokens"):
        value = getattr(model, field)
        if value is not None and value < 1:
            yield Fault(f"{path}.{field}", "expected a number above 0")


def _replacement_faults(model: ModelSpec, known: Mapping[str, ModelSpec], path: str) -> Iterator[Fault]:
    if model.replacement is None:
        return
    where = f"{path}.replacement"
    if model.retired_on is None:
        yield Fault(where, "a replacement needs `retired_on`, the day it takes over")
    successor = known.get(model.replacement)
    if successor is None:
        yield Fault(where, f"the provider has no model {model.replacement!r}")
        return
    # Vendors end tuning without a successor for it.
    lost = sorted(set(model.operations) - set(successor.operations) - {"fine_tune"})
    if lost:
        yield Fault(where, f"{model.replacement!r} does not offer {', '.join(lost)}")
    seen = {model.name}
    step: ModelSpec | None = successor
    while step is not None:
        if step.name in seen:
            yield Fault(where, f"the replacements of {model.name!r} lead back to {step.name!r}")
            return
        seen.add(step.name)
        step = known.get(step.replacement) if step.replacement is not None else None


def _price_faults(prices: Sequence[PriceSpec], written: Written) -> Iterator[Fault]:
    seen: set[tuple[object, ...]] = set()
    numbers = range(len(prices)) if written.prices is None else written.prices
    for number, price in zip(numbers, prices, strict=True):
        where = f"{written.path}.prices[{number}]"
        for key, amount in (("usd", price.usd), ("minimum_usd", price.minimum_usd)):
            try:
                parse_usd("0" if amount is None else amount)
            except ValueError as error:
                yield Fault(f"{where}.{key}", str(error))
        if price.per < 1:
            yield Fault(f"{where}.per", "expected a number above 0")
        yield from _condition_faults(price, where)
        yield from _stand_in_faults(price, where)
        same = (price.unit, price.condition, price.since)
        if same in seen:
            yield Fault(where, f"a second price of {price.unit} under the same condition from the same day")
        seen.add(same)


def _stand_in_faults(price: PriceSpec, path: str) -> Iterator[Fault]:
    if price.unit.endswith("_tokens"):
        for key in ("minimum_usd", "instead_of"):
            if getattr(price, key) is not None:
                yield Fault(f"{path}.{key}", f"does not apply to {price.unit}")
    elif price.instead_of is not None and price.instead_of not in _STOOD_IN_FOR:
        yield Fault(f"{path}.instead_of", f"expected one of {', '.join(sorted(_STOOD_IN_FOR))}")


def _condition_faults(price: PriceSpec, path: str) -> Iterator[Fault]:
    condition = price.condition
    if condition is None:
        return
    where = f"{path}.condition"
    shaped = {condition.width, condition.height, condition.quality, condition.resolution} != {None}
    if condition.above_input_tokens is None and not shaped and not condition.batch:
        yield Fault(where, "expected above_input_tokens, batch, or width and height, quality or resolution")
    if condition.batch and not price.unit.endswith("_tokens"):
        yield Fault(f"{where}.batch", f"does not apply to {price.unit}")
    if condition.above_input_tokens is not None:
        if condition.above_input_tokens < 0:
            yield Fault(f"{where}.above_input_tokens", "expected a number of at least 0")
        if not price.unit.endswith("_tokens"):
            yield Fault(f"{where}.above_input_tokens", f"does not apply to {price.unit}")
    if shaped and price.unit not in _SHAPED_UNITS:
        yield Fault(where, f"width, height, quality and resolution do not apply to {price.unit}")
    if (condition.width is None) != (condition.height is None):
        yield Fault(where, "width and height need each other")
    for side in ("width", "height"):
        length = getattr(condition, side)
        if length is not None and length < 1:
            yield Fault(f"{where}.{side}", "expected a number above 0")


def _default_faults(spec: ProviderSpec, known: Mapping[str, ModelSpec], path: str) -> Iterator[Fault]:
    for operation, name in spec.defaults.items():
        model = known.get(name)
        if model is None:
            # A provider that lists no models takes any name, so that its default need not be listed either.
            if spec.models:
                yield Fault(f"{path}.{operation}", f"the provider has no model {name!r}")
        elif operation not in model.operations:
            yield Fault(f"{path}.{operation}", f"{name!r} does not offer {operation}")
