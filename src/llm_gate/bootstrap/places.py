"""Where one provider can be called: addresses and credentials from the environment and the file, made deployments."""

import ipaddress
import re
import ssl
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, structs

from llm_gate.domain.catalog import DeadlineSpec, DeploymentSpec, ProviderEntry, RegionSpec
from llm_gate.domain.errors import Fault
from llm_gate.domain.policy import CapacityLimits, Deadlines
from llm_gate.domain.provider import Auth, Deployment, Provider
from llm_gate.domain.secret import Secret
from llm_gate.settings import Settings

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

_OWN = "default"
"""The name of a provider's own place in its table of deployments."""

_KEY_CHARS = 16


class Place(Struct, frozen=True, kw_only=True):
    """An address with the credential for it. `name` is that of the deployment, empty for the provider's own."""

    address: str
    host: str
    secret: Secret | None
    region: str | None = None
    name: str = ""


class Places:
    """Finds the places where one provider can be called; a `credential` goes before those of the environment."""

    def __init__(self, entry: ProviderEntry, settings: Settings, credential: Secret | None) -> None:
        self._entry = entry
        self._credential = credential
        self._spec = entry.spec
        self._settings = settings
        self._environment = settings.environment
        self._origin = ""
        self._missing: str | None = None

    def find(self, hints: dict[str, str], faults: list[Fault]) -> list[Place]:
        """Return the places; where there is none, note in `hints` what is missing, and in `faults` what is wrong."""
        name, spec = self._entry.name, self._spec
        own_variable = variable_of(name, "BASE_URL")
        override = self._environment.get(own_variable)
        named = self._environment.get(spec.base_url_env) if spec.base_url_env else None
        base_url = override or named or spec.base_url
        origin = own_variable if override else (spec.base_url_env if named else None)
        self._origin = origin or f"providers.{name}.base_url"
        secret = self._credential or self._first(spec.auth.names)
        explicit = bool(override or named or "base_url" in table_written(self._settings, name))
        if override or (not named and "base_url" in table_written(self._settings, name)):
            # An address written for the gateway is checked even where no key makes use of it.
            self._place(base_url or "", None, None, faults)
        if spec.ca_file is not None and not _holds_certificates(spec.ca_file):
            faults.append(Fault(f"providers.{name}.ca_file", "cannot be read as a file of certificates"))
        places: list[Place] = []
        usual_origin = self._origin
        if base_url is not None and (secret is not None or (self._is_free and (explicit or spec.synthetic))):
            places.append(self._place(base_url, secret, None, faults))
        for region_spec in spec.regions:
            places += self._regions(region_spec, override, faults)
        self._origin = usual_origin
        if self._credential is None:
            places += self._deployments(places, base_url, secret, faults)
        if not places:
            hints[name] = f"set {self._missing}" if self._missing else self._hint(base_url, secret)
        return places

    def _deployments(
        self, found: list[Place], base_url: str | None, secret: Secret | None, faults: list[Fault]
    ) -> list[Place]:
        """Return the places that stand in the file alone; those that were found before only get their share there."""
        provider = self._entry.name
        known = {place.name.lower() for place in found} | {_OWN}
        usual_origin, usual_names = self._origin, self._spec.auth.names
        places: list[Place] = []
        for name, spec in self._spec.deployments.items():
            if name.lower() in known:
                continue
            path = f"providers.{provider}.deployments.{name}"
            self._origin = usual_origin if spec.base_url is None else f"{path}.base_url"
            address = spec.base_url or base_url
            is_waiting = spec.env is not None and not self._environment.get(spec.env)
            if spec.env is None and secret is None and not self._is_free:
                # A place that has an address of its own waits for the provider's key as the provider does.
                if spec.base_url is None or not usual_names:
                    faults.append(Fault(path, "the name of an environment variable is missing: env"))
                else:
                    self._missing = self._missing or " or ".join(usual_names)
            elif is_waiting and (address is not None or self._spec.regions):
                # The address of a region comes with its key.
                self._missing = self._missing or spec.env
            elif address is None:
                # One that was written and cannot be read is told of already.
                if "base_url" not in table_written(self._settings, provider):
                    faults.append(Fault(path, "required field is missing: base_url"))
            else:
                own = secret if spec.env is None else Secret(self._environment[spec.env])
                place = self._place(address, own, spec.region, faults)
                places.append(structs.replace(place, name=name))
        return places

    @property
    def _is_free(self) -> bool:
        return self._spec.auth.kind == "none" or self._spec.auth.optional

    def _regions(self, spec: RegionSpec, override: str | None, faults: list[Fault]) -> list[Place]:
        pattern = re.compile(re.escape(spec.key).replace(re.escape("{region}"), "(.+)"))
        places: list[Place] = []
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
                place = self._place(endpoint, secret, region, faults)
                places.append(structs.replace(place, name=region))
        return places

    def _place(self, base_url: str, secret: Secret | None, region: str | None, faults: list[Fault]) -> Place:
        address = base_url if "://" in base_url else _completed(base_url, self._spec.base_url)
        address = address.rstrip("/")
        host = _host_of(address)
        if host is None:
            faults.append(Fault(self._origin, "must be an http(s) address without user name or query"))
        return Place(address=address, host=host or "", secret=secret, region=region)

    def deployment(self, place: Place, codecs: Provider) -> Deployment:
        """Return the deployment at a place."""
        spec, provider = self._spec, self._entry.name
        said = self._said_of(place.name or _OWN)
        version = self._environment.get(spec.api_version_env) if spec.api_version_env else None
        name = f"{provider}/{place.name}" if place.name else provider
        return Deployment(
            provider=provider,
            base_url=place.address,
            auth=Auth(kind=spec.auth.kind, header=spec.auth.header, secret=place.secret),
            spec=spec,
            codecs=codecs,
            region=place.region,
            api_version=said.api_version or version or spec.api_version,
            verify_tls=self._settings.verify_tls or not is_private(place.host),
            ca_file=spec.ca_file,
            name=name,
            key=_key_of(name, place),
            weight=said.weight or spec.weight,
            models=said.models,
            capacity=self._capacity(said),
            deadlines=deadlines(self._settings, spec.timeouts, said.timeouts),
        )

    def _said_of(self, name: str) -> DeploymentSpec:
        """Return what the file says of a deployment; environment variables do not tell capitals apart."""
        for each, spec in self._spec.deployments.items():
            if each.lower() == name.lower():
                return spec
        return DeploymentSpec()

    def _capacity(self, said: DeploymentSpec) -> CapacityLimits:
        """Return the room of a place. What processes cannot count together is shared out among them."""
        spec, settings = self._spec, self._settings
        share = settings.server.workers if settings.redis_url is None else 1
        rpm, tpm = said.rpm or spec.rpm, said.tpm or spec.tpm
        most, waiting = said.max_concurrent or spec.max_concurrent, said.max_waiting
        if waiting is None:
            waiting = spec.max_waiting
        usual = CapacityLimits()
        return CapacityLimits(
            rpm=None if rpm is None else max(1, rpm // share),
            tpm=None if tpm is None else max(1, tpm // share),
            max_concurrent=None if most is None else max(1, most // settings.server.workers),
            max_waiting=usual.max_waiting if waiting is None else waiting,
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


def deadlines(settings: Settings, *nearer: DeadlineSpec) -> Deadlines:
    """Return how long things may take: as configured for everybody, and then, in this order, for a place."""
    usual = settings.timeouts
    found = Deadlines(
        connect_s=usual.connect_s,
        headers_s=usual.headers_s,
        first_event_s=usual.first_event_s,
        idle_s=usual.idle_s,
        total_s=usual.total_s,
        stream_total_s=usual.stream_total_s,
    )
    for each in nearer:
        said = {name: value for name, value in structs.asdict(each).items() if value is not None}
        found = structs.replace(found, **said)
    return found


def table_written(settings: Settings, provider: str) -> Mapping[str, Any]:
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


def _key_of(name: str, place: Place) -> str:
    """Return what tells a place from any other, and gives nothing of its credential away."""
    secret = "" if place.secret is None else place.secret.reveal()
    return sha256(f"{name}\n{place.address}\n{secret}".encode()).hexdigest()[:_KEY_CHARS]
