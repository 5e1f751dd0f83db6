"""What the settings say of kept answers, as the engine goes by it, and what is wrong with it."""

from collections.abc import Collection, Iterator, Mapping

from llm_gate.domain.cache import CacheRule, CacheRules
from llm_gate.domain.catalog import Catalog
from llm_gate.domain.errors import Fault
from llm_gate.settings import Settings
from llm_gate.settings.records import CacheRule as WrittenRule


def cache_rules(settings: Settings) -> CacheRules:
    """Return the rules for every call."""
    said = settings.cache
    return CacheRules(
        usual=CacheRule(
            exact=said.exact,
            semantic=said.semantic,
            ttl_ms=_milliseconds(said.ttl_s),
            threshold=said.threshold,
            namespace=said.namespace or "",
        ),
        per_user=said.scope == "user",
        model=said.model or "",
        max_temperature=said.max_temperature,
        plans={name: _otherwise(rule) for name, rule in said.plans.items()},
        aliases={name: _otherwise(rule) for name, rule in said.aliases.items()},
    )


def _otherwise(rule: WrittenRule) -> Mapping[str, object]:
    """Return what a rule says, and nothing of what it leaves as it is."""
    ttl_ms = None if rule.ttl_s is None else _milliseconds(rule.ttl_s)
    said = {
        "exact": rule.exact,
        "semantic": rule.semantic,
        "ttl_ms": ttl_ms,
        "threshold": rule.threshold,
        "namespace": rule.namespace,
    }
    return {name: value for name, value in said.items() if value is not None}


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def cache_faults(settings: Settings, catalog: Catalog) -> Iterator[Fault]:
    """Find rules for aliases that do not exist."""
    for name in settings.cache.aliases:
        if name not in catalog.aliases:
            yield Fault(f"cache.aliases.{name}", f"no alias is called {name!r}")


def unknown_plan(settings: Settings, plans: Collection[str]) -> str | None:
    """Say which rule is for a plan that does not exist; None where there is none. Plans stand in the store."""
    for name in settings.cache.plans:
        if name not in plans:
            return f"cache.plans.{name}: there is no plan of that name (there are {', '.join(sorted(plans))})"
    return None
