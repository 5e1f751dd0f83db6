"""Finds out what can be reached: the catalog, its dialects, and the places and credentials the settings give."""

import re
from collections.abc import Iterator, Mapping

from msgspec import structs

from llm_gate.bootstrap.cache_rules import cache_faults
from llm_gate.bootstrap.guards import load_guards
from llm_gate.bootstrap.places import Places, deadlines, table_written, variable_of
from llm_gate.catalog.loader import CatalogFaults, load_provider, survey_catalog
from llm_gate.dialects import anthropic_messages, cohere, gemini, ollama, openai
from llm_gate.domain.catalog import Catalog, Operation
from llm_gate.domain.errors import Fault
from llm_gate.domain.plan_tables import table_providers
from llm_gate.domain.policy import FACTORY, GATEWAY, AttemptPolicy, CooldownRules
from llm_gate.domain.provider import Deployment, Provider
from llm_gate.domain.secret import Secret
from llm_gate.engine.presence import Presence
from llm_gate.engine.resolve import Directory
from llm_gate.engine.working import TenantDirectories, Working
from llm_gate.settings import Settings, primary_variable
from llm_gate.transport.upstream import Upstream

_PROVIDER_VARIABLE = re.compile(r"(?P<of>LLM_GATE_(?P<name>.+)_)(?P<what>BASE_URL|MODEL)")


def dialects() -> Mapping[str, Provider]:
    """Return what each wire format can do, by the name used in configuration."""
    known = (
        openai.provider,
        anthropic_messages.provider,
        gemini.provider,
        cohere.provider,
        ollama.provider,
    )
    return {provider.dialect: provider for provider in known}


def load_working(settings: Settings) -> Working:
    """Load what calls need: who can be reached, through what, and how long things may take.

    Raises:
        CatalogFaults: the providers, models or aliases of the configuration are faulty.
        GateFault: a guard cannot be loaded.
    """
    directory = load_directory(settings)
    return Working(
        directory=directory,
        tenants=TenantDirectories(lambda credentials: directory_with(credentials, directory, settings)),
        transport=Upstream(),
        deadlines=deadlines(settings),
        policy=attempt_policy(settings),
        guards=load_guards(settings),
    )


def attempt_policy(settings: Settings) -> AttemptPolicy:
    """Return how often calls are tried: the preset, with what is said over it."""
    said = settings.retries
    policy = FACTORY if said.preset == "factory" else GATEWAY
    names = [name for name in AttemptPolicy.__struct_fields__ if getattr(said, name) is not None]
    policy = structs.replace(policy, **{name: getattr(said, name) for name in names})
    if said.wait:
        return policy
    # Without the last two, what a vendor asks for would still be waited for.
    return structs.replace(policy, pause_s=0.0, last_pause_s=0.0, longest_pause_s=0.0, rate_pause_s=0.0)


def cooldown_rules(settings: Settings) -> CooldownRules:
    """Return when places are left alone."""
    said = settings.cooldown
    longest_s = max(said.first_s, said.longest_s)
    return CooldownRules(
        failures=said.failures,
        window=said.window,
        first_s=said.first_s,
        longest_s=longest_s,
        broken_first_s=said.broken_first_s,
        broken_longest_s=max(said.broken_first_s, said.broken_longest_s),
        longest_wish_s=said.longest_wish_s,
    )


def load_directory(settings: Settings) -> Directory:
    """Load the catalog and find out which of its providers can be used.

    Raises:
        CatalogFaults: what the configuration says of providers, models or aliases is faulty; all of it is listed.
    """
    catalog, faults = survey_catalog(settings.providers, settings.aliases)
    return _directory(settings, catalog, faults, {}, None)


def directory_with(credentials: Mapping[str, Secret], usual: Directory, settings: Settings) -> Directory:
    """Return what can be reached with some credentials, by provider, in place of the environment's."""
    return _directory(settings, usual.catalog, [], credentials, usual.presence)


def _directory(
    settings: Settings,
    catalog: Catalog,
    faults: list[Fault],
    credentials: Mapping[str, Secret],
    presence: Presence | None,
) -> Directory:
    known = dialects()
    deployments: dict[str, tuple[Deployment, ...]] = {}
    hints: dict[str, str] = {}
    own: list[Fault] = []
    for name, entry in catalog.providers.items():
        if not entry.spec.enabled:
            hints[name] = "it is switched off in the configuration"
            continue
        codecs: Provider | None = None
        try:
            codecs = load_provider(entry.spec, known)
        except CatalogFaults as error:
            # A shipped entry may wait for its dialect; one that the operator wrote may not.
            written = [fault for fault in error.faults if fault.path in table_written(settings, name)]
            own += [Fault(f"providers.{name}.{fault.path}", fault.message) for fault in written]
            hints[name] = (
                "it is listed for its prices; this version cannot call it"
                if entry.spec.dialect is None
                else f"its dialect {entry.spec.dialect!r} is not available in this version"
            )
            if not written:
                continue
        if codecs is not None and not codecs.apis:
            own += _api_faults(name, settings)
        places = Places(entry, settings, credentials.get(name))
        found = places.find(hints, own)
        if found and codecs is not None:
            deployments[name] = tuple(places.deployment(place, codecs) for place in found)
    named, unknown = _named_providers(settings, catalog)
    own += [*unknown, *_logging_faults(settings, catalog), *_plan_faults(settings, catalog)]
    own += cache_faults(settings, catalog)
    # The same fault may show in several places, and the catalog's word on a key goes before the one said here.
    said = {fault.path for fault in faults}
    faults += {(fault.path, fault.message): fault for fault in own if fault.path not in said}.values()
    if faults:
        raise CatalogFaults(faults)
    return Directory(
        catalog=catalog,
        deployments=deployments,
        named=named,
        named_defaults=_named_defaults(settings, catalog),
        hints=hints,
        presence=presence,
    )


def _api_faults(name: str, settings: Settings) -> Iterator[Fault]:
    """Find where an `api` was written for a provider that has but one."""
    entry = table_written(settings, name)
    message = "this provider's wire format has only one"
    if entry.get("api") is not None:
        yield Fault(f"providers.{name}.api", message)
    models = entry.get("models")
    for index, model in enumerate(models if isinstance(models, list) else ()):
        if isinstance(model, Mapping) and model.get("api") is not None:
            yield Fault(f"providers.{name}.models[{index}].api", message)


def unknown_variables(settings: Settings, catalog: Catalog) -> list[Fault]:
    """Return the variables that are made for a provider which does not exist; they have no effect."""
    known = {variable_of(name, "") for name in catalog.providers}
    others = {variable_of(alias, ""): name for alias, name in catalog.provider_aliases.items()}
    found: list[Fault] = []
    for variable in sorted(settings.environment):
        parts = _PROVIDER_VARIABLE.fullmatch(variable)
        if parts is None or parts["of"] in known:
            continue
        message = f"no provider is called {parts['name'].lower()!r}"
        if parts["of"] in others:
            message += f": write {variable_of(others[parts['of']], parts['what'])}"
        found.append(Fault(variable, message))
    return found


def _named_providers(settings: Settings, catalog: Catalog) -> tuple[list[str], list[Fault]]:
    """Return the providers the operator prefers, best first, and a fault for each that does not exist."""
    names: list[str] = []
    unknown: list[Fault] = []
    primary = filter(None, re.split(r"[,\s]+", settings.primary or ""))
    wanted = [(primary_variable(settings.environment), given) for given in primary]
    wanted += [("LLM_FALLBACK_PROVIDERS", given) for given in settings.fallbacks]
    for variable, given in wanted:
        name = catalog.provider_aliases.get(given, given)
        if name in catalog.providers:
            names.append(name)
        else:
            unknown.append(Fault(variable, f"no provider is called {given!r}"))
    return list(dict.fromkeys(names)), unknown


def _logging_faults(settings: Settings, catalog: Catalog) -> Iterator[Fault]:
    for name in settings.logging.providers:
        canonical = catalog.provider_aliases.get(name)
        if canonical is not None:
            yield Fault(f"logging.providers.{name}", f"another name of {canonical!r}: write that")
        elif name not in catalog.providers:
            yield Fault(f"logging.providers.{name}", f"no provider is called {name!r}")


def _plan_faults(settings: Settings, catalog: Catalog) -> Iterator[Fault]:
    for plan, table in settings.plans.custom.items():
        for limit, provider in table_providers(table).items():
            if provider not in catalog.providers:
                yield Fault(f"plans.custom.{plan}.limits.{limit}", f"no provider is called {provider!r}")


def _named_defaults(settings: Settings, catalog: Catalog) -> dict[tuple[str, Operation], str]:
    """Return the models that variables name, by provider and operation."""
    found: dict[tuple[str, Operation], str] = {}
    for name, entry in catalog.providers.items():
        variables: dict[Operation, str] = {**entry.spec.defaults_env, "chat": variable_of(name, "MODEL")}
        for operation, variable in variables.items():
            if model := settings.environment.get(variable):
                found[name, operation] = model
    return found
