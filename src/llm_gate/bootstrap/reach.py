"""Finds out what can be reached: the catalog, its dialects, and the places and credentials the settings give."""

import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from llm_gate.catalog.loader import CatalogFaults, load_provider, survey_catalog
from llm_gate.dialects import anthropic_messages, cohere, gemini, ollama, openai
from llm_gate.domain.catalog import Catalog, ProviderEntry, RegionSpec
from llm_gate.domain.errors import Fault
from llm_gate.domain.plan_tables import table_providers
from llm_gate.domain.provider import Auth, Deployment, Provider
from llm_gate.domain.secret import Secret
from llm_gate.engine.presence import Presence
from llm_gate.engine.resolve import Directory
from llm_gate.engine.working import Deadlines, TenantDirectories, Working
from llm_gate.settings import Settings, primary_variable
from llm_gate.transport.upstream import Upstream

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
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
    """
    timeouts = settings.timeouts
    directory = load_directory(settings)
    return Working(
        directory=directory,
        tenants=TenantDirectories(lambda credentials: directory_with(credentials, directory, settings)),
        transport=Upstream(connect_s=timeouts.connect_s),
        deadlines=Deadlines(
            headers_s=timeouts.headers_s,
            idle_s=timeouts.idle_s,
            total_s=timeouts.total_s,
            stream_total_s=timeouts.stream_total_s,
        ),
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
            written = [fault for fault in error.faults if fault.path in _written(settings, name)]
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
        places = _Places(entry, settings, credentials.get(name))
        found = places.find(hints, own)
        if found and codecs is not None:
            deployments[name] = tuple(places.deployment(place, codecs) for place in found)
    named, unknown = _named_providers(settings, catalog)
    own += [*unknown, *_logging_faults(settings, catalog), *_plan_faults(settings, catalog)]
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
    written = _written(settings, name)
    message = "this provider's wire format has only one"
    if written.get("api") is not None:
        yield Fault(f"providers.{name}.api", message)
    models = written.get("models")
    for index, model in enumerate(models if isinstance(models, list) else ()):
        if isinstance(model, Mapping) and model.get("api") is not None:
            yield Fault(f"providers.{name}.models[{index}].api", message)


class _Place(Struct, frozen=True, kw_only=True):
    """An address with the credential for it."""

    address: str
    host: str
    secret: Secret | None
    region: str | None = None


class _Places:
    """Finds the places where one provider can be called; a `credential` goes before those of the environment."""

    def __init__(self, entry: ProviderEntry, settings: Settings, credential: Secret | None) -> None:
        self._entry = entry
        self._credential = credential
        self._spec = entry.spec
        self._settings = settings
        self._environment = settings.environment
        self._origin = ""
        self._missing: str | None = None

    def find(self, hints: dict[str, str], faults: list[Fault]) -> list[_Place]:
        name, spec = self._entry.name, self._spec
        own_variable = variable_of(name, "BASE_URL")
        override = self._environment.get(own_variable)
        named = self._environment.get(spec.base_url_env) if spec.base_url_env else None
        base_url = override or named or spec.base_url
        origin = own_variable if override else (spec.base_url_env if named else None)
        self._origin = origin or f"providers.{name}.base_url"
        secret = self._credential or self._first(spec.auth.names)
        explicit = bool(override or named or "base_url" in _written(self._settings, name))
        if override or (not named and "base_url" in _written(self._settings, name)):
            # An address written for the gateway is checked even where no key makes use of it.
            self._place(base_url or "", None, None, faults)
        if spec.ca_file is not None and not _holds_certificates(spec.ca_file):
            faults.append(Fault(f"providers.{name}.ca_file", "cannot be read as a file of certificates"))
        places: list[_Place] = []
        free = spec.auth.kind == "none" or spec.auth.optional
        if base_url is not None and (secret is not None or (free and (explicit or spec.synthetic))):
            places.append(self._place(base_url, secret, None, faults))
        for region_spec in spec.regions:
            places += self._regions(region_spec, override, faults)
        if not places:
            hints[name] = f"set {self._missing}" if self._missing else self._hint(base_url, secret)
        return places

    def _regions(self, spec: RegionSpec, override: str | None, faults: list[Fault]) -> list[_Place]:
        pattern = re.compile(re.escape(spec.key).replace(re.escape("{region}"), "(.+)"))
        places: list[_Place] = []
        for variable in sorted(self._environment):
            match = pattern.fullmatch(variable)
            if match is None:
                continue
            region = match[1]
            endpoint_variable = spec.endpoint.format(region=region)
            endpoint = override or self._environment.get(endpoint_variable)
            if endpoint is None:
                self._missing = endpoint_variable
            else:
                self._origin = self._origin if override else endpoint_variable
                secret = self._credential or Secret(self._environment[variable])
                places.append(self._place(endpoint, secret, region, faults))
        return places

    def _place(self, base_url: str, secret: Secret | None, region: str | None, faults: list[Fault]) -> _Place:
        address = base_url if "://" in base_url else _completed(base_url, self._spec.base_url)
        address = address.rstrip("/")
        host = _host_of(address)
        if host is None:
            faults.append(Fault(self._origin, "must be an http(s) address without user name or query"))
        return _Place(address=address, host=host or "", secret=secret, region=region)

    def deployment(self, place: _Place, codecs: Provider) -> Deployment:
        spec = self._spec
        version = self._environment.get(spec.api_version_env) if spec.api_version_env else None
        return Deployment(
            provider=self._entry.name,
            base_url=place.address,
            auth=Auth(kind=spec.auth.kind, header=spec.auth.header, secret=place.secret),
            spec=spec,
            codecs=codecs,
            region=place.region,
            api_version=version or spec.api_version,
            verify_tls=self._settings.verify_tls or not is_private(place.host),
            ca_file=spec.ca_file,
        )

    def _first(self, names: tuple[str, ...]) -> Secret | None:
        values = (self._environment.get(name) for name in names)
        return next((Secret(value) for value in values if value), None)

    def _hint(self, base_url: str | None, secret: Secret | None) -> str:
        wanted: list[str] = []
        if secret is None and self._spec.auth.names and not self._spec.auth.optional:
            wanted.append(" or ".join(self._spec.auth.names))
        if base_url is None or not wanted:
            wanted.append(self._spec.base_url_env or variable_of(self._entry.name, "BASE_URL"))
        return f"set {' and '.join(wanted)}"


def _written(settings: Settings, provider: str) -> Mapping[str, Any]:
    """Return what the operator wrote of a provider, nothing where it is no table."""
    entry = settings.providers.get(provider)
    return entry if isinstance(entry, Mapping) else {}


def _host_of(address: str) -> str | None:
    """Return the host of an http(s) address without user name and query, None where it is no such thing."""
    try:
        parts = urlsplit(address)
        # A port that is no number shows only when it is asked for.
        sound = (
            parts.scheme in {"http", "https"} and not parts.username and not parts.query and parts.port != 0
        )
    except ValueError:
        return None
    return parts.hostname if sound else None


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


def _completed(host: str, usual: str | None) -> str:
    """Return the address a host without scheme stands for; without a port it has that of the usual address."""
    parts = urlsplit(f"http://{host}")
    try:
        port = urlsplit(usual or "").port if parts.port is None else None
    except ValueError:
        port = None
    return parts.geturl() if port is None else parts._replace(netloc=f"{parts.netloc}:{port}").geturl()


def _holds_certificates(path: str) -> bool:
    try:
        ssl.create_default_context(cafile=path)
    except OSError:
        return False
    return True


def variable_of(provider: str, what: str) -> str:
    """Return the name of a provider's own variable, such as LLM_GATE_X_BASE_URL."""
    return f"LLM_GATE_{re.sub(r'[^A-Za-z0-9]', '_', provider).upper()}_{what}"


def is_loopback(host: str) -> bool:
    """Tell whether listening on a host reaches no further than this machine."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name that begins like such an address may stand for any other.
        return False


def is_private(host: str) -> bool:
    """Tell whether a host is this machine or an address of a private network, without asking any resolver."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private


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


def _named_defaults(settings: Settings, catalog: Catalog) -> dict[str, str]:
    found: dict[str, Any] = {
        name: settings.environment.get(variable_of(name, "MODEL")) for name in catalog.providers
    }
    return {name: model for name, model in found.items() if model}
