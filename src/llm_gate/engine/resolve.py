"""From a name to the ordered targets of a call: alias, provider and model, default; pure look-ups."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import get_args
from uuid import NAMESPACE_URL, uuid5

from llm_gate.domain.catalog import Catalog, Model, Operation, ProviderEntry
from llm_gate.domain.errors import InvalidRequest, NotFound
from llm_gate.domain.provider import Deployment, Target

DEFAULT = "default"
"""The model name that means: whatever the operator prefers."""


class Directory:
    """What can be named and reached in one state of the configuration.

    `deployments` holds the usable places by provider; `named` the providers the operator prefers, best first
    (behind them, the catalog's ranks decide); `named_defaults` the operator's default models by provider;
    `hints` says what to set so that a provider becomes usable.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        deployments: Mapping[str, tuple[Deployment, ...]],
        named: Sequence[str],
        named_defaults: Mapping[str, str],
        hints: Mapping[str, str],
    ) -> None:
        self.catalog = catalog
        self.deployments = deployments
        self.named = tuple(named)
        ranked = sorted(
            (e.spec.rank, name) for name, e in catalog.providers.items() if e.spec.rank is not None
        )
        self._preferred_order = tuple(dict.fromkeys([*named, *(name for _, name in ranked)]))
        self.hints = hints
        self._named_defaults = named_defaults
        self._canonical = {**{name: name for name in catalog.providers}, **catalog.provider_aliases}
        self._bare = _index_bare(catalog, deployments)

    def is_enabled(self, provider: str) -> bool:
        """Tell whether a provider can be used now."""
        return provider in self.deployments

    def resolve(
        self, name: str, operation: Operation, on: date, headers: Mapping[str, str]
    ) -> tuple[Target, ...]:
        """Return the targets for a requested name, in the order in which they are to be tried.

        `name` is an alias, `provider/model`, `provider/` or a provider's name (its default model), a bare
        model name, or empty or "default" (the preferred provider's default model).

        Raises:
            NotFound: nothing of that name can be used.
            InvalidRequest: the name is ambiguous, or the model does something else.
        """
        if name in self.catalog.aliases:
            return self._resolve_alias(name, operation, on, headers)
        entry, model_name = self._place(name, operation)
        return self._targets(entry, model_name, operation, on, headers)

    def describe(self, name: str, on: date) -> Model:
        """Return the model that a name leads to first, whatever it does.

        Raises:
            NotFound: nothing of that name can be used, or the provider does not list it.
        """
        for operation in get_args(Operation):
            try:
                model = self.resolve(name, operation, on, {})[0].model
            except InvalidRequest:
                continue
            if model.listed:
                return model
        raise NotFound(f"model {name!r} is not known here", param="model", code="model_not_found")

    def _resolve_alias(
        self, name: str, operation: Operation, on: date, headers: Mapping[str, str]
    ) -> tuple[Target, ...]:
        targets: list[Target] = []
        reasons: list[str] = []
        for target_name in self.catalog.aliases[name]:
            try:
                entry, model_name = self._place(target_name, operation)
                targets += self._targets(entry, model_name, operation, on, headers)
            except NotFound as error:
                reasons.append(error.message)
        if not targets:
            raise NotFound(
                f"no target of alias {name!r} can be used: {'; '.join(reasons)}",
                param="model",
                code="model_not_found",
            )
        return tuple(targets)

    def _place(self, name: str, operation: Operation) -> tuple[ProviderEntry, str]:
        if name in {"", DEFAULT}:
            return self._preferred(operation)
        head, slash, rest = name.partition("/")
        provider = self._canonical.get(head)
        if provider is not None and (slash or name not in self._bare) and self.is_enabled(provider):
            entry = self.catalog.providers[provider]
            return entry, rest or self._default_model(entry, operation)
        if name in self._bare:
            return self._bare_model(name), name
        if provider is not None:
            hint = self.hints.get(provider, "it is switched off")
            raise NotFound(
                f"provider {provider!r} is not configured: {hint}",
                param="model",
                code="provider_not_configured",
            )
        what = f"provider {head!r}" if slash else f"model {name!r}"
        raise NotFound(f"{what} is not known here", param="model", code="model_not_found")

    def _bare_model(self, name: str) -> ProviderEntry:
        holders = self._bare[name]
        if len(holders) > 1:
            named = [provider for provider in self.named if provider in holders]
            if not named:
                choices = ", ".join(f"{provider}/{name}" for provider in holders)
                raise InvalidRequest(
                    f"model {name!r} is offered by several providers: name one of {choices}",
                    param="model",
                    code="model_ambiguous",
                )
            holders = (named[0],)
        return self.catalog.providers[holders[0]]

    def _preferred(self, operation: Operation) -> tuple[ProviderEntry, str]:
        for provider in self._preferred_order:
            entry = self.catalog.providers[provider]
            model = self._named_default(entry, operation)
            if self.is_enabled(provider) and model is not None:
                return entry, model
        raise NotFound(f"no configured provider has a default model for {operation}", param="model")

    def _default_model(self, entry: ProviderEntry, operation: Operation) -> str:
        model = self._named_default(entry, operation)
        if model is None:
            raise InvalidRequest(
                f"provider {entry.name!r} has no default model for {operation}: name one", param="model"
            )
        return model

    def _named_default(self, entry: ProviderEntry, operation: Operation) -> str | None:
        if operation == "chat" and entry.name in self._named_defaults:
            return self._named_defaults[entry.name]
        return entry.spec.defaults.get(operation)

    def _targets(
        self,
        entry: ProviderEntry,
        model_name: str,
        operation: Operation,
        on: date,
        headers: Mapping[str, str],
    ) -> tuple[Target, ...]:
        model = _current(entry, model_name, operation, on)
        if model.listed and operation not in model.operations:
            raise InvalidRequest(
                f"model {entry.name}/{model.name} does {', '.join(model.operations)}, not {operation}",
                param="model",
                code="model_not_suitable",
            )
        control_header = entry.spec.control_header
        control = headers.get(control_header) if control_header is not None else None
        places = self.deployments[entry.name]
        if model.region is not None:
            places = tuple(place for place in places if place.region == model.region)
            if not places:
                raise NotFound(f"region {model.region!r} of provider {entry.name!r} is not configured")
        return tuple(Target(deployment=place, model=model, control=control) for place in places)


def _current(entry: ProviderEntry, name: str, operation: Operation, on: date) -> Model:
    """Return the model that answers to a name on a day: itself, its replacement, or an unlisted one."""
    model = entry.models.get(name)
    while model is not None and model.is_retired(on) and model.replacement is not None:
        model = entry.models[model.replacement]
    if model is not None:
        return model
    return Model(
        id=str(uuid5(NAMESPACE_URL, f"llm-gate:unlisted:{entry.name}/{name}")),
        provider=entry.name,
        name=name,
        label=name,
        description="",
        operations=(operation,),
        listed=False,
    )


def _index_bare(catalog: Catalog, deployments: Iterable[str]) -> dict[str, tuple[str, ...]]:
    index: dict[str, tuple[str, ...]] = {}
    for provider in deployments:
        for name in catalog.providers[provider].models:
            index[name] = (*index.get(name, ()), provider)
    return index
