"""Finds the operator's guards by the names that the settings give them."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from llm_gate.domain.errors import GateFault
from llm_gate.domain.guards import Guard
from llm_gate.engine.guards import Guards
from llm_gate.settings import Settings


def load_guards(settings: Settings) -> Guards | None:
    """Import the functions that the settings name; None where they name none.

    Modules are found where Python finds them, and in the working directory.

    Raises:
        GateFault: there is no such function, or its module cannot be imported.
    """
    said = settings.guards
    if not said.input and not said.output:
        return None
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return Guards(
        inputs=_functions("guards.input", said.input),
        outputs=_functions("guards.output", said.output),
        timeout_s=said.timeout_s,
    )


def _functions(path: str, names: Sequence[str]) -> list[Guard]:
    return [_function(f"{path}[{index}]", name) for index, name in enumerate(names)]


def _function(path: str, name: str) -> Guard:
    module_name, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except (
        Exception
    ) as error:  # the boundary to foreign code: a module may raise anything while it is imported
        raise GateFault(f"{path}: {module_name} cannot be imported ({type(error).__name__})") from error
    if not callable(found):
        raise GateFault(f"{path}: {module_name} has no function {attribute!r}")
    guard: Guard = found
    return guard
