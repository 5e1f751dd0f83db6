"""Reads the operator's files and variables, checks all of it at once, and lays the sources over one another.

Command-line flags win over the environment, the environment over the `.env` file, that over llm-gate.toml.
What stands in a provider's table is checked by the catalog, which knows what is laid over what.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import msgspec
from dotenv import dotenv_values
from msgspec import Meta, Struct

from llm_gate.domain.catalog import Alias, AliasTarget
from llm_gate.domain.faults import find_faults
from llm_gate.domain.plan_tables import PlanTable, table_faults
from llm_gate.domain.policy import Sticky, Strategy
from llm_gate.domain.secret import Secret
from llm_gate.settings.faults import Place, SettingsFaults, lies_within
from llm_gate.settings.lines import line_of
from llm_gate.settings.records import (
    AlertSettings,
    ApiSettings,
    CacheSettings,
    CooldownSettings,
    Environment,
    GuardSettings,
    LoggingSettings,
    MediaSettings,
    PlanSettings,
    RetrySettings,
    ServerSettings,
    Settings,
    Text,
    TimeoutSettings,
)
from llm_gate.settings.variables import (
    DATABASE_URL,
    OVERRIDES,
    PEPPER,
    REDIS_URL,
    WEBHOOK_SECRET,
    fallback_providers,
    place_of_variable,
    primary_provider,
    read_secrets,
    read_switch,
)

CONFIG_FILE = Path("llm-gate.toml")
ENV_FILE = Path(".env")

_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")
_API_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
_SYNTAX_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_MANY_DIGITS = re.compile(r"[\d_]{4000}")

# No set: what is written in the place of a strategy may be a list.
_WEIGHING = ("weighted", "least_busy")

_Found = list[tuple[Place, str]]


class _Manner(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    strategy: Strategy = "ordered"
    sticky: Sticky | None = None


class _AliasTable(_Manner, frozen=True, kw_only=True, forbid_unknown_fields=True):
    targets: Annotated[tuple[Text | AliasTarget, ...], Meta(min_length=1)]


class _Tables(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What llm-gate.toml may hold."""

    server: ServerSettings = ServerSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    retries: RetrySettings = RetrySettings()
    cooldown: CooldownSettings = CooldownSettings()
    logging: LoggingSettings = LoggingSettings()
    api: ApiSettings = ApiSettings()
    plans: PlanSettings = PlanSettings()
    alerts: AlertSettings = AlertSettings()
    guards: GuardSettings = GuardSettings()
    media: MediaSettings = MediaSettings()
    cache: CacheSettings = CacheSettings()
    providers: Mapping[str, Any] = {}
    aliases: Mapping[str, _AliasTable] = {}


class _Source(Struct, frozen=True, kw_only=True):
    """One source's part of the tables, and where each path of it was written."""

    tables: Mapping[str, Any]
    place: Callable[[str], Place]
    faults: tuple[tuple[str, str], ...]


def load_settings(
    environment: Mapping[str, str],
    *,
    config_file: Path | None = None,
    env_file: Path | None = None,
    overrides: Mapping[str, Any] = {},
) -> Settings:
    """Read and merge everything the operator wrote.

    Without `config_file`, llm-gate.toml of the working directory is read if it is there; without `env_file`, no
    such file is. `overrides` are command-line flags by the name of their [server] setting; None is not given.

    Raises:
        SettingsFaults: something is wrong; all of it is listed, and what is sound is handed out with it.
    """
    found: _Found = []
    config_file, config_text = _read_config(config_file, found)
    from_file = _file_source(config_file, config_text, found)
    # Which providers a broken file means to add is unknown, so that nothing that names one can be judged.
    names_are_known = not found and not any(path == "providers" for path, _ in from_file.faults)
    env_text = _read(env_file, found) if env_file is not None and env_file.exists() else None
    in_env_file = {
        name: value
        for name, value in dotenv_values(stream=StringIO(env_text or ""), interpolate=False).items()
        if value is not None
    }
    merged = Environment({name: value for name, value in {**in_env_file, **environment}.items() if value})

    def place(name: str) -> Place:
        return place_of_variable(name, str(env_file) if in_env_file else None, env_text or "", environment)

    sources = (from_file, _variable_source(merged, place, found), _flag_source(overrides))
    for source in sources:
        found += [(source.place(path), message) for path, message in source.faults]
    key = merged.get("LLM_GATE_API_KEY", "").strip()
    secrets, faults = read_secrets(merged)
    found += [(place(name), message) for name, message in faults]
    settings = msgspec.structs.replace(
        _settings(_merged(sources)),
        primary=primary_provider(merged),
        fallbacks=fallback_providers(merged),
        verify_tls=_verify_tls(merged, place, found),
        api_key=Secret(key) if key else None,
        database_url=secrets.get(DATABASE_URL),
        redis_url=secrets.get(REDIS_URL),
        pepper=secrets.get(PEPPER),
        webhook_secret=secrets.get(WEBHOOK_SECRET),
        environment=merged,
        config_file=config_file,
        env_file=None if env_text is None else env_file,
    )
    if found:
        raise SettingsFaults(found, settings if names_are_known else _without_names(settings))
    return settings


def _settings(tables: Mapping[str, Any]) -> Settings:
    aliases = tables.get("aliases", {})
    return Settings(
        server=msgspec.convert(tables.get("server", {}), ServerSettings, dec_hook=_to_path),
        timeouts=msgspec.convert(tables.get("timeouts", {}), TimeoutSettings),
        retries=msgspec.convert(tables.get("retries", {}), RetrySettings),
        cooldown=msgspec.convert(tables.get("cooldown", {}), CooldownSettings),
        logging=_logging(tables.get("logging", {})),
        api=msgspec.convert(tables.get("api", {}), ApiSettings),
        plans=_plans(tables.get("plans", {})),
        alerts=msgspec.convert(tables.get("alerts", {}), AlertSettings),
        guards=msgspec.convert(tables.get("guards", {}), GuardSettings),
        media=msgspec.convert(tables.get("media", {}), MediaSettings),
        cache=msgspec.convert(tables.get("cache", {}), CacheSettings),
        providers=tables.get("providers", {}),
        aliases={name: _alias(alias) for name, alias in aliases.items()},
    )


def _plans(tables: Mapping[str, Any]) -> PlanSettings:
    said = msgspec.convert(tables, PlanSettings)
    return msgspec.structs.replace(said, default=said.default.lower())


def _alias(table: Any) -> Alias:
    """Return what can be read of an alias; a target that cannot becomes "", so that the others keep their numbers."""
    given = table if isinstance(table, Mapping) else {}
    targets = given.get("targets")
    read = tuple(_target(each) for each in targets) if isinstance(targets, list) else ()
    manner = {
        key: given[key]
        for key in ("strategy", "sticky")
        if key in given and not find_faults({key: given[key]}, _Manner)
    }
    return Alias(targets=read, **manner)


def _target(written: Any) -> AliasTarget:
    if isinstance(written, str):
        return AliasTarget(target=written)
    if isinstance(written, Mapping) and not find_faults(written, AliasTarget):
        return msgspec.convert(written, AliasTarget)
    return AliasTarget(target="")


def _without_names(settings: Settings) -> Settings:
    """Leave out everything that names a provider."""
    return msgspec.structs.replace(
        settings,
        aliases={},
        primary=None,
        fallbacks=(),
        logging=msgspec.structs.replace(settings.logging, providers={}),
        plans=msgspec.structs.replace(settings.plans, custom={}),
    )


def locate(config_file: Path | None, path: str) -> Place:
    """Return where a path of the configuration is written, for faults that are found after loading."""
    if config_file is None:
        return Place(file="configuration", key=path)
    try:
        text = config_file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        text = ""
    return Place(file=str(config_file), line=line_of(text, path), key=path)


def locate_variable(settings: Settings, name: str, real: Mapping[str, str]) -> Place:
    """Return where a variable was set, for faults that are found after loading; `real` is the environment."""
    file = settings.env_file
    text = "" if file is None else _read(file, []) or ""
    return place_of_variable(name, None if file is None else str(file), text, real)


def _read_config(file: Path | None, found: _Found) -> tuple[Path | None, str]:
    if file is None:
        if not CONFIG_FILE.exists():
            return None, ""
        file = CONFIG_FILE
    return file, _read(file, found) or ""


def _read(file: Path, found: _Found) -> str | None:
    raw = b""
    try:
        raw = file.read_bytes()
        # Some editors begin a file with a byte order mark.
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found.append((Place(file=str(file), line=line), "not valid UTF-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        found.append((Place(file=str(file)), f"cannot be read: {reason[:1].lower()}{reason[1:]}"))
    return None


def _file_source(file: Path | None, text: str, found: _Found) -> _Source:
    tables: dict[str, Any] = {}
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        at = _SYNTAX_PLACE.search(message)
        line = int(at[1]) if at and at[1] else text.count("\n") + 1
        message = _SYNTAX_PLACE.sub("", message)
        found.append((Place(file=str(file), line=line), f"{message[:1].lower()}{message[1:]}"))
    except RecursionError:
        found.append((Place(file=str(file)), "nested too deeply"))
    except ValueError:
        # Not a syntax error to tomllib: Python refuses to read integers of thousands of digits.
        digits = _MANY_DIGITS.search(text)
        place = Place(file=str(file), line=text.count("\n", 0, digits.start()) + 1 if digits else None)
        found.append((place, "a number has too many digits"))
    return _source(tables, lambda path: Place(file=str(file), line=line_of(text, path), key=path))


def _variable_source(environment: Mapping[str, str], place: Callable[[str], Place], found: _Found) -> _Source:
    tables: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    for name, path, read in OVERRIDES:
        text = environment.get(name, "").strip()
        if not text:
            continue
        table, _, key = path.partition(".")
        names[path] = name
        try:
            tables.setdefault(table, {})[key] = read(text)
        except ValueError as error:
            found.append((place(name), str(error)))
    return _source(tables, lambda path: place(names[path]))


def _flag_source(overrides: Mapping[str, Any]) -> _Source:
    given = {name: value for name, value in overrides.items() if value is not None}
    if "data_dir" in given:
        given["data_dir"] = str(given["data_dir"])

    def place(path: str) -> Place:
        flag = path.removeprefix("server.").replace("_", "-")
        return Place(file="command line", key=f"--{flag}")

    return _source({"server": given} if given else {}, place)


def _source(tables: Mapping[str, Any], place: Callable[[str], Place]) -> _Source:
    """Check one source's tables and keep what is sound of them."""
    faults = tuple(_faults_of(tables))
    paths = [path for path, _ in faults]
    return _Source(tables=_sound(tables, paths), place=place, faults=faults)


def _sound(tables: Mapping[str, Any], faulty: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Leave out the settings that are faulty.

    Aliases and the levels of providers stay, since the names in them are still to be checked.
    """
    kept: dict[str, dict[str, Any]] = {}
    for name in _Tables.__struct_fields__:
        table = tables.get(name)
        if not isinstance(table, Mapping):
            continue
        kept[name] = {
            key: value
            for key, value in table.items()
            if name == "aliases" or not any(lies_within(path, f"{name}.{key}") for path in faulty)
        }
    plans = tables.get("plans")
    if isinstance(plans, Mapping) and isinstance(plans.get("custom"), Mapping):
        kept["plans"]["custom"] = {
            name: table
            for name, table in plans["custom"].items()
            if not any(lies_within(path, f"plans.custom.{name}") for path in faulty)
        }
    logging = tables.get("logging")
    if isinstance(logging, Mapping) and isinstance(logging.get("providers"), Mapping):
        kept["logging"]["providers"] = {
            provider: level if isinstance(level, str) and level else "INFO"
            for provider, level in logging["providers"].items()
        }
    return kept


def _faults_of(tables: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the path and the message of each fault of one source."""
    plain = dict(tables)
    own: list[tuple[str, str]] = []
    if isinstance(plain.get("server"), dict):
        plain["server"] = dict(plain["server"])
        # msgspec knows no paths, so that this one is checked by hand.
        folder = plain["server"].pop("data_dir", ".")
        if not isinstance(folder, str) or not folder or "\0" in folder:
            own.append(("server.data_dir", "expected the path of a folder"))
    faults = [
        (fault.path, fault.message.replace("`object`", "`table`")) for fault in find_faults(plain, _Tables)
    ]
    broken = {path for path, _ in faults}
    own += [(path, message) for path, message in _value_faults(plain) if path not in broken]
    return faults + own


def _value_faults(tables: Mapping[str, Any]) -> list[tuple[str, str]]:
    own: list[tuple[str, str]] = []
    logging, api = tables.get("logging"), tables.get("api")
    if isinstance(logging, Mapping):
        levels = {"logging.level": logging.get("level", "INFO")}
        if isinstance(logging.get("providers"), Mapping):
            levels |= {f"logging.providers.{name}": level for name, level in logging["providers"].items()}
        own += [
            (path, f"expected one of {', '.join(_LEVELS)}")
            for path, level in levels.items()
            if isinstance(level, str) and _level(level) not in _LEVELS
        ]
    if isinstance(api, Mapping) and isinstance(api.get("path"), str) and not _API_PATH.fullmatch(api["path"]):
        own.append(
            ("api.path", "expected a path like /llm-gate: a slash first, none last, only plain characters")
        )
    return own + _alias_faults(tables.get("aliases")) + _plan_faults(tables.get("plans"))


def _alias_faults(aliases: object) -> list[tuple[str, str]]:
    """Find weights that would weigh nothing."""
    own: list[tuple[str, str]] = []
    for name, table in aliases.items() if isinstance(aliases, Mapping) else ():
        targets = table.get("targets") if isinstance(table, Mapping) else None
        if not isinstance(targets, list) or table.get("strategy") in _WEIGHING:
            continue
        own += [
            (
                f"aliases.{name}.targets[{index}].weight",
                'a weight needs strategy = "weighted" or "least_busy"',
            )
            for index, each in enumerate(targets)
            if isinstance(each, Mapping) and "weight" in each and "sticky" not in table
        ]
    return own


def _plan_faults(plans: object) -> list[tuple[str, str]]:
    custom = plans.get("custom") if isinstance(plans, Mapping) else None
    own: list[tuple[str, str]] = []
    for name, table in custom.items() if isinstance(custom, Mapping) else ():
        path = f"plans.custom.{name}"
        written = table.items() if isinstance(table, Mapping) else ()
        # What has the wrong type is told of already, and the rest is judged all the same.
        sound = {key: value for key, value in written if not find_faults({key: value}, PlanTable)}
        faults = table_faults(name, msgspec.convert(sound, PlanTable))
        own += [(f"{path}.{fault.path}" if fault.path else path, fault.message) for fault in faults]
    return own


def _verify_tls(environment: Mapping[str, str], place: Callable[[str], Place], found: _Found) -> bool:
    text = environment.get("HTTPX_CLIENT_VERIFY", "").strip()
    if not text:
        return True
    try:
        return read_switch(text)
    except ValueError as error:
        found.append((place("HTTPX_CLIENT_VERIFY"), str(error)))
        return True


def _merged(sources: tuple[_Source, ...]) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for source in sources:
        for name, table in source.tables.items():
            tables[name] = {**tables.get(name, {}), **table}
    return tables


def _logging(table: Mapping[str, Any]) -> LoggingSettings:
    said = msgspec.convert(table, LoggingSettings)
    levels = {name: _level(level) for name, level in said.providers.items()}
    return msgspec.structs.replace(said, level=_level(said.level), providers=levels)


def _level(text: str) -> str:
    level = text.upper()
    return "WARNING" if level == "WARN" else level


def _to_path(kind: type, text: Any) -> Any:
    # A file knows no shell that would have expanded the tilde.
    return Path(os.path.expanduser(text)) if kind is Path else text  # noqa: PTH111 - Path.expanduser may raise
