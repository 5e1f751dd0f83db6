"""The one place that knows which adapter stands behind which port: settings in, a working gateway out."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from msgspec import Struct

from llm_gate.catalog.loader import CatalogFaults, load_catalog, load_provider
from llm_gate.dialects import anthropic_messages, gemini, openai
from llm_gate.domain.catalog import Catalog, ProviderEntry, RegionSpec
from llm_gate.domain.errors import Fault
from llm_gate.domain.provider import Auth, Deployment, Provider
from llm_gate.domain.secret import Secret
from llm_gate.engine.gate import Deadlines, Gate
from llm_gate.engine.resolve import Directory
from llm_gate.settings import Settings
from llm_gate.transport.upstream import Upstream


class Gateway(Struct, frozen=True, kw_only=True):
    """A gateway ready to work. Make it inside the event loop that uses it, and close it there."""

    gate: Gate
    directory: Directory
    transport: Upstream

    async def close(self) -> None:
        """Close every connection to providers."""
        await self.transport.close()


def dialects() -> Mapping[str, Provider]:
    """Return what each wire format can do, by the name used in configuration."""
    known = (openai.provider, anthropic_messages.provider, gemini.provider)
    return {provider.dialect: provider for provider in known}


def build(settings: Settings, *, instance_id: str | None = None) -> Gateway:
    """Put a gateway together; `instance_id` names it to the gateways it calls.

    Raises:
        CatalogFaults: the providers, models or aliases of the configuration are faulty.
    """
    directory = load_directory(settings)
    transport = Upstream(connect_s=settings.timeouts.connect_s)
    gate = Gate(
        directory=directory,
        transport=transport,
        deadlines=Deadlines(
            headers_s=settings.timeouts.headers_s,
            idle_s=settings.timeouts.idle_s,
            total_s=settings.timeouts.total_s,
            stream_total_s=settings.timeouts.stream_total_s,
        ),
        instance_id=instance_id or uuid4().hex[:16],
    )
    return Gateway(gate=gate, directory=directory, transport=transport)


def load_directory(settings: Settings) -> Directory:
    """Load the catalog and find out which of its providers can be used.

    Raises:
        CatalogFaults: the providers, models or aliases of the configuration are faulty.
    """
    catalog = load_catalog(settings.providers, settings.aliases)
    known = dialects()
    deployments: dict[str, tuple[Deployment, ...]] = {}
    hints: dict[str, str] = {}
    faults: list[Fault] = []
    for name, entry in catalog.providers.items():
        if not entry.spec.enabled:
            hints[name] = "it is switched off in the configuration"
            continue
        try:
            codecs = load_provider(entry.spec, known)
        except CatalogFaults as error:
            # A shipped entry may wait for its dialect; one that the operator wrote may not.
            hints[name] = f"its dialect {entry.spec.dialect!r} is not available in this version"
            if "dialect" in settings.providers.get(name, {}):
                faults += [Fault(f"providers.{name}.{fault.path}", fault.message) for fault in error.faults]
            continue
        found = _Places(entry, codecs, settings).find(hints, faults)
        if found:
            deployments[name] = found
    named, unknown = _named_providers(settings, catalog)
    if faults or unknown:
        raise CatalogFaults([*faults, *unknown])
    return Directory(
        catalog=catalog,
        deployments=deployments,
        named=named,
        named_defaults=_named_defaults(settings, catalog),
        hints=hints,
    )


class _Places:
    """Finds the places where one provider can be called."""

    def __init__(self, entry: ProviderEntry, codecs: Provider, settings: Settings) -> None:
        self._entry = entry
        self._spec = entry.spec
        self._codecs = codecs
        self._settings = settings
        self._environment = settings.environment
        self._origin = ""
        self._missing: str | None = None

    def find(self, hints: dict[str, str], faults: list[Fault]) -> tuple[Deployment, ...]:
        name, spec = self._entry.name, self._spec
        own_variable = variable_of(name, "BASE_URL")
        override = self._environment.get(own_variable)
        named = self._environment.get(spec.base_url_env) if spec.base_url_env else None
        base_url = override or named or spec.base_url
        origin = own_variable if override else (spec.base_url_env if named else None)
        self._origin = origin or f"providers.{name}.base_url"
        secret = self._first(spec.auth.names)
        explicit = bool(override or named or "base_url" in self._settings.providers.get(name, {}))
        places: list[Deployment] = []
        free = spec.auth.kind == "none" or spec.auth.optional
        if base_url is not None and (secret is not None or (free and (explicit or spec.synthetic))):
            places.append(self._place(base_url, secret, None, faults))
        for region_spec in spec.regions:
            places += self._regions(region_spec, override, faults)
        if not places:
            hints[name] = f"set {self._missing}" if self._missing else self._hint(base_url, secret)
        return tuple(places)

    def _regions(self, spec: RegionSpec, override: str | None, faults: list[Fault]) -> list[Deployment]:
        pattern = re.compile(re.escape(spec.key).replace(re.escape("{region}"), "(.+)"))
        places: list[Deployment] = []
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
                secret = Secret(self._environment[variable])
                places.append(self._place(endpoint, secret, region, faults))
        return places

    def _place(
        self, base_url: str, secret: Secret | None, region: str | None, faults: list[Fault]
    ) -> Deployment:
        spec = self._spec
        address = base_url if "://" in base_url else f"http://{base_url}"
        address = address.rstrip("/")
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            faults.append(Fault(self._origin, "must be an http(s) address without user name or query"))
        version = self._environment.get(spec.api_version_env) if spec.api_version_env else None
        return Deployment(
            provider=self._entry.name,
            base_url=address,
            auth=Auth(kind=spec.auth.kind, header=spec.auth.header, secret=secret),
            spec=spec,
            codecs=self._codecs,
            region=region,
            api_version=version or spec.api_version,
            verify_tls=self._settings.verify_tls or not is_private(parts.hostname or ""),
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


def variable_of(provider: str, what: str) -> str:
    """Return the name of a provider's own variable, such as LLM_GATE_X_BASE_URL."""
    return f"LLM_GATE_{re.sub(r'[^A-Za-z0-9]', '_', provider).upper()}_{what}"


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
    wanted = [("GPT_PROVIDER or LLM_PRIMARY_PROVIDER", given) for given in primary]
    wanted += [("LLM_FALLBACK_PROVIDERS", given) for given in settings.fallbacks]
    for variable, given in wanted:
        name = catalog.provider_aliases.get(given, given)
        if name in catalog.providers:
            names.append(name)
        else:
            unknown.append(Fault(variable, f"no provider is called {given!r}"))
    return list(dict.fromkeys(names)), unknown


def _named_defaults(settings: Settings, catalog: Catalog) -> dict[str, str]:
    found: dict[str, Any] = {
        name: settings.environment.get(variable_of(name, "MODEL")) for name in catalog.providers
    }
    return {name: model for name, model in found.items() if model}
