"""What can be read of an operator's entry although parts of it have the wrong type, so that the rest is checked too."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from llm_gate.domain.catalog import DeploymentSpec, ModelSpec, PriceSpec, ProviderSpec
from llm_gate.domain.faults import find_faults


class Written(Struct, frozen=True, kw_only=True):
    """Where a model was written. `prices` are the numbers of its prices there, where some could not be read."""

    path: str
    prices: tuple[int, ...] | None = None


class Readable(Struct, frozen=True, kw_only=True):
    """The part of an entry that fits `ProviderSpec`.

    `unread` are the keys that were left out, in whole or in part. `models` says where each model is written.
    `hides_models` means that there may be models whose names are not known.
    """

    entry: Mapping[str, Any]
    unread: frozenset[str]
    models: Mapping[str, Written]
    hides_models: bool = False


def readable_part(entry: Any, path: str) -> Readable:
    """Leave out of an entry what has the wrong type; `path` is where the entry is written."""
    if not isinstance(entry, Mapping):
        # Names cannot hide in what is no table, so that aliases are still judged.
        unread = set(ProviderSpec.__struct_fields__) - {"aliases"}
        return Readable(entry={}, unread=frozenset(unread), models={})
    unread = {key for key, value in entry.items() if find_faults({key: value}, ProviderSpec)}
    kept = {key: value for key, value in entry.items() if key not in unread}
    models = entry.get("models", [])
    sound_models: list[dict[str, Any]] = []
    written: dict[str, Written] = {}
    hides_models = not isinstance(models, list)
    for index, model in enumerate(models if isinstance(models, list) else ()):
        name = model.get("name") if isinstance(model, Mapping) else None
        if not isinstance(name, str):
            hides_models = True
            continue
        sound, numbers = _readable_model(model)
        hides_models |= "aliases" in model and "aliases" not in sound
        sound_models.append(sound)
        written[name] = Written(path=f"{path}.models[{index}]", prices=numbers)
    if "models" in entry:
        kept["models"] = sound_models
    places = entry.get("deployments")
    if isinstance(places, Mapping):
        kept["deployments"] = {
            name: place for name, place in places.items() if not find_faults(place, DeploymentSpec)
        }
    return Readable(entry=kept, unread=frozenset(unread), models=written, hides_models=hides_models)


def _readable_model(model: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, ...] | None]:
    """Return what fits of a model, and the numbers of the prices that do where some do not."""
    sound = {
        key: value for key, value in model.items() if not find_faults({"name": "", key: value}, ModelSpec)
    }
    prices = model.get("prices")
    if "prices" in sound or not isinstance(prices, list):
        return sound, None
    numbers = tuple(number for number, price in enumerate(prices) if not find_faults(price, PriceSpec))
    return {**sound, "prices": [prices[number] for number in numbers]}, numbers
