"""Places of a program's own beside those of the configuration: its classes, and vendors with a key of its own."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from uuid import NAMESPACE_URL, uuid5

from msgspec import structs

from llm_gate.bootstrap import Gateway
from llm_gate.bootstrap.reach import directory_with
from llm_gate.client.foreign import ADDRESS, provider_at
from llm_gate.client.llm_provider import LLMProvider
from llm_gate.domain.catalog import Model, ProviderEntry, ProviderSpec
from llm_gate.domain.provider import Auth, Deployment
from llm_gate.domain.secret import Secret
from llm_gate.settings import Settings
from llm_gate.transport.local import Threads

_OWN = "own"


class OwnPlaces:
    """The places that a program brought into its gateway, each known by what it stands for."""

    def __init__(self, gateway: Gateway, settings: Settings) -> None:
        self.settings = settings
        self._gateway = gateway
        self._threads = Threads()
        self._serial = count(1)
        self._classes: dict[tuple[str, type[LLMProvider]], str] = {}
        self._keys: dict[tuple[str, bytes], str | None] = {}

    def canonical(self, name: str) -> str | None:
        """Return the catalog's name for a provider; None where it has none."""
        return self._gateway.directory.canonical(name)

    def is_configured(self, name: str) -> bool:
        """Tell whether a provider of the catalog can be called; it need not be there."""
        canonical = self.canonical(name)
        return canonical is not None and canonical in self._gateway.directory.deployments

    def key_of(self, name: str) -> str:
        """Return the key that the environment has for a provider; empty where it has none."""
        environment = self.settings.environment
        names: Sequence[str] = ()
        canonical = self.canonical(name)
        if canonical is not None:
            names = self._gateway.directory.catalog.providers[canonical].spec.auth.names
        names = names or (f"{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}_API_KEY",)
        return next((value for variable in names if (value := environment.get(variable))), "")

    def of_class(self, name: str, kind: type[LLMProvider]) -> str:
        """Return the place that stands for a class under a name."""
        place = self._classes.get((name, kind))
        if place is None:
            place = self._classes[name, kind] = f"{_OWN}:{name}:{next(self._serial)}"
            self._add(place, self.canonical(name) or name, kind.__name__, Secret(self.key_of(name)))
        return f"{place}/{kind.__name__}"

    def _add(self, place: str, provider: str, model: str, secret: Secret) -> None:
        entry = ProviderEntry(
            id=str(uuid5(NAMESPACE_URL, f"llm-gate:{place}")),
            name=place,
            label=provider,
            description="A class of the program's own",
            spec=ProviderSpec(label=provider, dialect=_OWN, base_url=ADDRESS),
            models={
                model: Model(
                    id=str(uuid5(NAMESPACE_URL, f"llm-gate:{place}/{model}")),
                    provider=provider,
                    name=model,
                    label=model,
                    description="",
                    operations=("chat",),
                )
            },
        )
        deployment = Deployment(
            provider=provider,
            base_url=ADDRESS,
            # Sent nowhere: it is known here so that it can be taken out of errors.
            auth=Auth(kind="none", secret=secret),
            spec=entry.spec,
            codecs=provider_at(place, self._threads),
            name=provider,
            key=place,
        )
        self._gateway.gate.add_provider(entry, deployment)

    def with_key(self, name: str, key: str) -> str | None:
        """Return the place of a provider of the catalog with a key of the program's own; None where it has none."""
        canonical = self.canonical(name)
        if canonical is None or key == self.key_of(name):
            return name if self.is_configured(name) else None
        known = (canonical, sha256(key.encode()).digest())
        if known not in self._keys:
            self._keys[known] = self._keyed(canonical, Secret(key))
        return self._keys[known]

    def _keyed(self, provider: str, key: Secret) -> str | None:
        usual = self._gateway.directory
        found = directory_with({provider: key}, usual, self.settings).deployments.get(provider)
        model_name = usual.default_model(provider, "chat")
        if not found or model_name is None:
            return None
        place = f"{_OWN}:{provider}:{next(self._serial)}"
        model = usual.catalogued(provider, model_name, "chat", datetime.now(UTC).date())
        # Under a name of its own, so that the model's usual name stays unambiguous.
        models = {_OWN: structs.replace(model, retired_on=None, replacement=None)}
        entry = usual.catalog.providers[provider]
        # Nobody who names nobody is led here.
        spec = structs.replace(entry.spec, rank=None, defaults={})
        entry = structs.replace(entry, name=place, spec=spec, models=models)
        self._gateway.gate.add_provider(entry, structs.replace(found[0], key=place))
        return f"{place}/{_OWN}"
