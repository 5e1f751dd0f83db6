"""The JSON Schema of llm-gate.toml, for editors; made from the records that read the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from llm_gate.domain.catalog import AliasTarget, ProviderSpec
from llm_gate.domain.policy import Sticky, Strategy
from llm_gate.settings.records import (
    AlertSettings,
    ApiSettings,
    CacheSettings,
    CooldownSettings,
    GuardSettings,
    LoggingSettings,
    MediaSettings,
    PlanSettings,
    RetrySettings,
    ServerSettings,
    Text,
    TimeoutSettings,
)


class AliasTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A public name for several targets, in the order of `strategy`; `sticky` keeps a subject's calls together."""

    targets: Annotated[tuple[Text | AliasTarget, ...], Meta(min_length=1)]
    strategy: Strategy = "ordered"
    sticky: Sticky | None = None


class ConfigFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything llm-gate.toml may hold; all of it is optional."""

    server: ServerSettings | UnsetType = UNSET
    timeouts: TimeoutSettings | UnsetType = UNSET
    retries: RetrySettings | UnsetType = UNSET
    cooldown: CooldownSettings | UnsetType = UNSET
    logging: LoggingSettings | UnsetType = UNSET
    api: ApiSettings | UnsetType = UNSET
    plans: PlanSettings | UnsetType = UNSET
    alerts: AlertSettings | UnsetType = UNSET
    guards: GuardSettings | UnsetType = UNSET
    media: MediaSettings | UnsetType = UNSET
    cache: CacheSettings | UnsetType = UNSET
    providers: Mapping[str, ProviderSpec] = {}
    aliases: Mapping[str, AliasTable] = {}


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of llm-gate.toml."""
    (reference,), components = msgspec.json.schema_components(
        [ConfigFile], schema_hook=_path_schema, ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llm-gate.toml",
        **_tidy(reference),
        "$defs": _tidy(components),
    }


def _path_schema(kind: type) -> dict[str, Any]:
    """Describe a path; msgspec expects NotImplementedError for every other type."""
    if kind is Path:
        return {"type": "string"}
    raise NotImplementedError(kind)


def _tidy(schema: Any) -> Any:
    """Leave out defaults that are whole tables, and write each description on one line.

    Such defaults only repeat what stands beside them; the blanks of a docstring differ between Python versions.
    """
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # Below `properties` stand names of settings, one of which may be "default", too.
    kept: dict[str, Any] = {
        key: {name: _tidy(each) for name, each in value.items()} if key == "properties" else _tidy(value)
        for key, value in schema.items()
        if not (key == "default" and isinstance(value, dict | list))
    }
    if isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split())
    return kept
