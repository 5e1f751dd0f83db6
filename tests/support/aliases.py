"""Aliases as tests write them."""

from llm_gate.domain.catalog import Alias, AliasTarget


def alias_of(*targets: str) -> Alias:
    """Return an alias that leads to targets, in this order."""
    return Alias(targets=tuple(AliasTarget(target=each) for each in targets))
