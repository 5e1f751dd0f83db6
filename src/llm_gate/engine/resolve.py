"""From a name to the ordered targets of a call: alias, provider and model, default; pure look-ups.

What is known to be away is not chosen, but a caller who names it gets it tried: the last answer may be seconds old.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import get_args
from uuid import NAMESPACE_URL, uuid5

from msgspec import Struct, structs

from llm_gate.domain.catalog import Ability, Catalog, Model, Operation, ProviderEntry, SearchKind
from llm_gate.domain.errors import InvalidRequest, NotFound, ProviderUnavailable
from llm_gate.domain.fine_tuning import TunedModel
from llm_gate.domain.offers import Offer, offer_of
from llm_gate.domain.provider import Deployment, Target
from llm_gate.engine.choice import Candidate, Group, Left, Route
from llm_gate.engine.presence import Presence

MAX_NAME_CHARS = 200
"""How long a model may be called, its provider included."""

DEFAULT = "default"
"""The model name that means: whatever the operator prefers."""


_PLAIN: tuple[Operation, ...] = ("chat", "embedding")
_UNNAMED_DEFAULTS = 2
"""Of providers that the operator did not name, one stands in for the first, and no more."""

# With these, a call goes on with its fallbacks; any other fault is the caller's to mend.
_PASSING = frozenset({"provider_not_configured", "provider_unavailable"})


class Directory:
    """What can be named and reached in one state of the configuration.

    `deployments` holds the usable places by provider; `named` the providers the operator prefers, best first
    (behind them, the catalog's ranks decide); `named_defaults` the operator's default models by provider;
    `hints` says what to set so that a provider becomes usable; `presence` is what those say that may be away.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        deployments: Mapping[str, tuple[Deployment, ...]],
        named: Sequence[str],
        named_defaults: Mapping[tuple[str, Operation], str],
        hints: Mapping[str, str],
        presence: Presence | None = None,
        tuned: "Tuned | None" = None,
    ) -> None:
        self.catalog = catalog
        self.deployments = deployments
        self.named = tuple(named)
        ranked = sorted(
            (e.spec.rank, name) for name, e in catalog.providers.items() if e.spec.rank is not None
        )
        self._preferred_order = tuple(dict.fromkeys([*named, *(name for _, name in ranked)]))
        self.hints = hints
        self.presence = presence or Presence(deployments)
        self._named_defaults = named_defaults
        self._tuned = tuned
        self._canonical = {**{name: name for name in catalog.providers}, **catalog.provider_aliases}
        self._bare = _index_bare(catalog, deployments)

    def with_provider(self, entry: ProviderEntry, deployment: Deployment) -> "Directory":
        """Return a directory with one provider more, or with this one in the place of another of its name."""
        catalog = structs.replace(self.catalog, providers={**self.catalog.providers, entry.name: entry})
        return Directory(
            catalog=catalog,
            deployments={**self.deployments, entry.name: (deployment,)},
            named=self.named,
            named_defaults=self._named_defaults,
            hints=self.hints,
            presence=self.presence,
            tuned=self._tuned,
        )

    def with_tuned(self, tuned: "Tuned") -> "Directory":
        """Return the directory as a tenant sees it: with the tuned models that are its own, without those of others."""
        providers = dict(self.catalog.providers)
        for model in tuned.own:
            entry = providers.get(model.provider)
            # What the operator lists by name stands as it is written.
            if entry is not None and model.name not in entry.models:
                made = _tuned_model(entry, model)
                providers[entry.name] = structs.replace(entry, models={**entry.models, made.name: made})
        return Directory(
            catalog=structs.replace(self.catalog, providers=providers),
            deployments=self.deployments,
            named=self.named,
            named_defaults=self._named_defaults,
            hints=self.hints,
            presence=self.presence,
            tuned=tuned,
        )

    def is_enabled(self, provider: str) -> bool:
        """Tell whether a provider can be used now."""
        return provider in self.deployments and self.presence.trouble(provider) is None

    def hint(self, provider: str) -> str:
        """Say what is missing for a provider that cannot be used now."""
        return self.presence.trouble(provider) or self.hints.get(provider, "it is switched off")

    def offers(self) -> list[Offer]:
        """Return what each provider of the catalog offers now, in the catalog's order."""
        return [self._offer(entry) for entry in self.catalog.providers.values()]

    def _offer(self, entry: ProviderEntry) -> Offer:
        offer = offer_of(entry, enabled=self.is_enabled(entry.name))
        if not offer.enabled:
            return offer
        absent = [model.id for model in offer.models if self.presence.lacks(entry.name, _wire_name(model))]
        others = self._others(entry)
        return Offer(
            entry=entry,
            enabled=True,
            models=(*offer.models, *others.values()),
            absent=frozenset(absent),
        )

    def _others(self, entry: ProviderEntry) -> dict[str, Model]:
        """Return the models that a provider has beside those of the catalog; what they do is not known."""
        known = {self.presence.plain(entry.name, _wire_name(model)) for model in entry.models.values()}
        names = [
            name
            for name in self.presence.models(entry.name)
            if name not in known and not self._is_foreign(entry, name)
        ]
        codecs = self.deployments[entry.name][0].codecs
        operations = tuple(each for each in _PLAIN if codecs.does(each))
        return {name: _unlisted(entry, name, operations) for name in names}

    def resolve(
        self, name: str, operation: Operation, on: date, headers: Mapping[str, str]
    ) -> tuple[Target, ...]:
        """Return the targets for a requested name, as they are written; raises what `route` does."""
        route = self.route(name, operation, on, headers)
        return tuple(each.target for group in route.groups for each in group.candidates)

    def route(
        self,
        name: str,
        operation: Operation,
        on: date,
        headers: Mapping[str, str],
        *,
        needs: frozenset[Ability] = frozenset(),
        fallbacks: Sequence[str] = (),
        kind: SearchKind | None = None,
    ) -> Route:
        """Return where a call by a name may go, and what was left out.

        `name` is an alias, `provider/model`, `provider/` or a provider's name (its default model), a bare
        model name, or empty or "default" (the default models of the preferred providers). `fallbacks` are such names,
        too; those that lead nowhere are left out. Targets that are known to lack what the call needs are left out as
        long as another has it. `kind` says which of a provider's models a search takes where it names none.

        Raises:
            NotFound: nothing of that name can be used.
            ProviderUnavailable: an alias or the default leads to nobody who is there now.
            InvalidRequest: the name is ambiguous, or the model does something else.
        """
        wanted = _Wanted(operation=operation, on=on, headers=headers, kind=kind)
        groups: list[Group] = []
        left: list[Left] = []
        problem: NotFound | InvalidRequest | ProviderUnavailable | None = None
        for each in (name, *fallbacks):
            _check_length(each)
            try:
                found, without = self._groups(each, wanted)
            except (NotFound, InvalidRequest, ProviderUnavailable) as error:
                if problem is None and each is name and not (fallbacks and error.code in _PASSING):
                    raise
                problem = problem or error
                left.append(Left(name=each, reason=error.message))
            else:
                groups += found
                left += without
        if not groups:
            assert problem is not None  # noqa: S101 - a name leads to a group or raises
            raise problem
        return _able(Route(groups=_each_once(groups), left=tuple(left)), needs)

    def _groups(self, name: str, wanted: "_Wanted") -> tuple[list[Group], list[Left]]:
        if name in self.catalog.aliases:
            return self._alias_groups(name, wanted)
        if name in {"", DEFAULT}:
            return self._default_groups(wanted)
        entry, model_name = self._place(name, wanted)
        return [self._group(entry, model_name, wanted)], []

    def _is_foreign(self, entry: ProviderEntry, name: str) -> bool:
        """Tell whether a name that is not listed is that of a tuned model which the tenant must not reach."""
        if self._tuned is None:
            return False
        if (entry.name, name) in self._tuned.all:
            return True
        spec = entry.spec.fine_tuning
        marks = () if spec is None else spec.marks
        return name.startswith(marks) and not self._tuned.may_pass(entry.name)

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
            entry = self.catalog.providers[model.provider]
            other = self._others(entry).get(self.presence.plain(entry.name, model.name))
            if other is not None:
                return other
        raise NotFound(f"model {name!r} is not known here", param="model", code="model_not_found")

    def canonical(self, provider: str) -> str | None:
        """Return the name of a provider of the catalog, usable or not, that goes by another; None for none."""
        return self._canonical.get(provider)

    def catalogued(self, provider: str, name: str, operation: Operation, on: date) -> Model:
        """Return the model that a name means at a provider of the catalog on a day, whether or not it can be used."""
        return _current(self.catalog.providers[provider], name, operation, on)

    def default_model(self, provider: str, operation: Operation) -> str | None:
        """Return the name of a provider's default model, whether or not it can be used."""
        return self._named_default(self.catalog.providers[provider], operation)

    def preference(self) -> tuple[str, ...]:
        """Return every provider of the catalog: those that can be used first, then the rest, each best first."""
        ordered = dict.fromkeys([*self._preferred_order, *self.catalog.providers])
        return tuple(sorted(ordered, key=lambda provider: not self.is_enabled(provider)))

    def _alias_groups(self, name: str, wanted: "_Wanted") -> tuple[list[Group], list[Left]]:
        alias = self.catalog.aliases[name]
        groups: list[Group] = []
        left: list[Left] = []
        away: str | None = None
        for each in alias.targets:
            try:
                entry, model_name = self._place(each.target, wanted)
                group = self._group(entry, model_name, wanted, weight=each.weight)
            except NotFound as error:
                left.append(Left(name=each.target, reason=error.message))
                continue
            target = group.candidates[0].target
            absence = self._absence(target.provider, target.wire_model)
            if absence is None:
                groups.append(group)
            else:
                left.append(Left(name=each.target, reason=absence))
                away = target.provider
        if not groups:
            reasons = "; ".join(dict.fromkeys(each.reason for each in left))
            message = f"no target of alias {name!r} can be used: {reasons}"
            if away is not None:
                raise ProviderUnavailable(message, provider=away)
            raise NotFound(message, param="model", code="model_not_found")
        if alias.strategy != "ordered":
            candidates = tuple(each for group in groups for each in group.candidates)
            groups = [Group(strategy=alias.strategy, candidates=candidates, sticky=alias.sticky)]
        return groups, left

    def _absence(self, provider: str, wire_model: str) -> str | None:
        """Say why a model is known not to be there now; None where nothing is known against it."""
        trouble = self.presence.trouble(provider)
        if trouble is not None:
            return f"provider {provider!r} is away: {trouble}"
        if self.presence.lacks(provider, wire_model):
            return f"provider {provider!r} does not have model {wire_model!r} now"
        return None

    def _place(self, name: str, wanted: "_Wanted") -> tuple[ProviderEntry, str]:
        head, slash, rest = name.partition("/")
        provider = self._canonical.get(head)
        if provider is not None and (slash or name not in self._bare) and provider in self.deployments:
            entry = self.catalog.providers[provider]
            return entry, rest or self._default_model(entry, wanted)
        if name in self._bare:
            return self._bare_model(name), name
        if provider is not None:
            raise NotFound(
                f"provider {provider!r} is not configured: {self.hint(provider)}",
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

    def _default_groups(self, wanted: "_Wanted") -> tuple[list[Group], list[Left]]:
        """Return the default models of those whom the operator named, or else of the first ones by rank."""
        away: dict[str, str] = {}
        found: list[tuple[ProviderEntry, str]] = []
        chosen = [provider for provider in self.named if provider in self.deployments]
        if wanted.operation not in _PLAIN and not any(
            self._has_default(each, wanted.operation) for each in chosen
        ):
            # Who was named for text need not make pictures.
            chosen = []
        for provider in chosen or self._preferred_order:
            if not self._has_default(provider, wanted.operation):
                continue
            entry = self.catalog.providers[provider]
            model = _of_kind(entry, self._named_default(entry, wanted.operation) or "", wanted.kind)
            listed = entry.models.get(model)
            absence = self._absence(provider, model if listed is None else _wire_name(listed))
            if absence is not None:
                away[provider] = absence
            elif not ((away or found) and entry.spec.synthetic and provider not in self.named):
                # Made-up answers never stand in by themselves for those of somebody who is away.
                found.append((entry, model))
        if not found and away:
            message = f"nobody is there to answer: {'; '.join(away.values())}"
            raise ProviderUnavailable(message, provider=next(iter(away)))
        if not found:
            raise NotFound(
                f"no configured provider has a default model for {wanted.operation}", param="model"
            )
        if not chosen and wanted.operation != "search":
            # What one finds is as good as what another does; what one writes is not.
            found = found[:_UNNAMED_DEFAULTS]
        left = [Left(name=provider, reason=reason) for provider, reason in away.items()]
        return [self._group(entry, model, wanted) for entry, model in found], left

    def _has_default(self, provider: str, operation: Operation) -> bool:
        """Tell whether a provider can do an operation now, and has a model for it where none is named."""
        places = self.deployments.get(provider)
        if not places or self._named_default(self.catalog.providers[provider], operation) is None:
            return False
        return places[0].codecs.does(operation)

    def _default_model(self, entry: ProviderEntry, wanted: "_Wanted") -> str:
        model = self._named_default(entry, wanted.operation)
        if model is None:
            raise InvalidRequest(
                f"provider {entry.name!r} has no default model for {wanted.operation}: name one",
                param="model",
            )
        return _of_kind(entry, model, wanted.kind)

    def _named_default(self, entry: ProviderEntry, operation: Operation) -> str | None:
        named = self._named_defaults.get((entry.name, operation))
        return named if named is not None else entry.spec.defaults.get(operation)

    def _group(self, entry: ProviderEntry, model_name: str, wanted: "_Wanted", *, weight: int = 1) -> Group:
        """Return one model at every place of a provider that has it."""
        model = _current(entry, model_name, wanted.operation, wanted.on)
        if not model.listed and self._is_foreign(entry, model.name):
            raise NotFound(f"model {model.name!r} is not known here", param="model", code="model_not_found")
        if model.listed and wanted.operation not in model.operations:
            raise InvalidRequest(
                f"model {entry.name}/{model.name} does {', '.join(model.operations)}, not {wanted.operation}",
                param="model",
                code="model_not_suitable",
            )
        control_header = entry.spec.control_header
        control = wanted.headers.get(control_header) if control_header is not None else None
        places = self.deployments[entry.name]
        if model.place is not None:
            # A tuned model is where it was made; of a place whose credential has changed the others may have it.
            places = tuple(place for place in places if place.key == model.place) or places
        if model.region is not None:
            places = tuple(place for place in places if place.region == model.region)
            if not places:
                raise NotFound(f"region {model.region!r} of provider {entry.name!r} is not configured")
        having = tuple(place for place in places if not place.models or model.name in place.models)
        if not having:
            raise NotFound(
                f"no deployment of provider {entry.name!r} has model {model.name!r}",
                param="model",
                code="model_not_found",
            )
        return Group(
            strategy=entry.spec.strategy,
            candidates=tuple(
                Candidate(
                    target=Target(deployment=place, model=model, control=control),
                    weight=weight * place.weight,
                )
                for place in having
            ),
        )


class Tuned(Struct, frozen=True, kw_only=True):
    """The tuned models that a tenant has, and those it must not reach.

    `own` are its own; `all` are the provider and the name of every one that is known here. `passes` are the providers
    (None: all) whose account is the tenant's own, so that it may name tuned models there that nobody has here.
    """

    own: tuple[TunedModel, ...] = ()
    all: frozenset[tuple[str, str]] = frozenset()
    passes: frozenset[str] | None = frozenset()

    def may_pass(self, provider: str) -> bool:
        """Tell whether names of tuned models that nobody has here may be used at a provider."""
        return self.passes is None or provider in self.passes


class _Wanted(Struct, frozen=True, kw_only=True):
    """What a call is to do, when, and with which headers."""

    operation: Operation
    on: date
    headers: Mapping[str, str]
    kind: SearchKind | None = None


def _check_length(name: str) -> None:
    """Refuse what is no name: it would stand in every record, and in keys of the store that must not be long."""
    if len(name) > MAX_NAME_CHARS:
        raise InvalidRequest(
            f"model: a name has at most {MAX_NAME_CHARS} characters, not {len(name)}", param="model"
        )


def _each_once(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Leave out targets that stand further ahead already."""
    if len(groups) == 1:
        return tuple(groups)
    seen: set[tuple[str, str, str]] = set()
    kept: list[Group] = []
    for group in groups:
        fresh: list[Candidate] = []
        for each in group.candidates:
            target = each.target
            name = (target.provider, target.deployment.key or target.deployment.base_url, target.wire_model)
            if name not in seen:
                seen.add(name)
                fresh.append(each)
        if fresh:
            kept.append(structs.replace(group, candidates=tuple(fresh)))
    return tuple(kept)


def _able(route: Route, needs: frozenset[Ability]) -> Route:
    """Leave out what is known to lack an ability, unless nothing would be left: the catalog may be behind."""
    if not needs or len(route.candidates) == 1:
        return route
    lacking = {
        id(each): needs - each.target.model.abilities
        for each in route.candidates
        # Of a model without any abilities nobody has said what it can do.
        if each.target.model.abilities and not needs <= each.target.model.abilities
    }
    if not lacking or len(lacking) == len(route.candidates):
        return route
    groups = [
        structs.replace(group, candidates=tuple(each for each in group.candidates if id(each) not in lacking))
        for group in route.groups
    ]
    left = [
        Left(name=each.target.name, reason=f"it is not known to do {', '.join(sorted(lacking[id(each)]))}")
        for each in route.candidates
        if id(each) in lacking
    ]
    return Route(groups=tuple(group for group in groups if group.candidates), left=(*route.left, *left))


def _current(entry: ProviderEntry, name: str, operation: Operation, on: date) -> Model:
    """Return the model that answers to a name on a day: itself, its replacement, or an unlisted one."""
    model = entry.models.get(name)
    while model is not None and model.is_retired(on) and model.replacement is not None:
        model = entry.models[model.replacement]
    return _unlisted(entry, name, (operation,)) if model is None else model


def _tuned_model(entry: ProviderEntry, tuned: TunedModel) -> Model:
    """Return a tuned model: what its base model can do, at the price that the catalog has for such models."""
    base = entry.models.get(tuned.base)
    about = f"{tuned.name} (tuned from {tuned.base})"
    made = _unlisted(entry, tuned.name, ("chat",))
    if base is not None:
        made = structs.replace(
            made,
            abilities=base.abilities,
            context_window=base.context_window,
            max_output_tokens=base.max_output_tokens,
            media_tokens=base.media_tokens,
            prices=base.tuned_prices,
            api=base.api,
            api_version=base.api_version,
        )
    model_id = uuid5(NAMESPACE_URL, f"llm-gate:tuned:{entry.name}/{tuned.name}")
    return structs.replace(
        made, id=str(model_id), description=about, place=tuned.deployment or None, listed=True
    )


def _unlisted(entry: ProviderEntry, name: str, operations: tuple[Operation, ...]) -> Model:
    """Return a model that the catalog does not know."""
    return Model(
        id=str(uuid5(NAMESPACE_URL, f"llm-gate:unlisted:{entry.name}/{name}")),
        provider=entry.name,
        name=name,
        label=name,
        description="",
        operations=operations,
        listed=False,
    )


def _of_kind(entry: ProviderEntry, default: str, kind: SearchKind | None) -> str:
    """Return the model that looks for a kind: the default one if it does, else the first that does, if any."""
    if kind is None:
        return default
    usual = entry.models.get(default)
    for model in ([] if usual is None else [usual]) + list(entry.models.values()):
        if model.search is not None and kind in model.search.kinds:
            return model.name
    return default


def _wire_name(model: Model) -> str:
    return model.deployment or model.name


def _index_bare(catalog: Catalog, deployments: Iterable[str]) -> dict[str, tuple[str, ...]]:
    index: dict[str, tuple[str, ...]] = {}
    for provider in deployments:
        for name in catalog.providers[provider].models:
            index[name] = (*index.get(name, ()), provider)
    return index
