"""The one place that knows which adapter stands behind which port: settings in, a working gateway out."""

from llm_gate.bootstrap.gateway import (
    Gateway,
    Stores,
    access_rules,
    build,
    ids_of,
    memory_stores,
    now_ms,
    open_stores,
)
from llm_gate.bootstrap.places import LOOPBACK_NAMES, is_loopback, is_private, variable_of
from llm_gate.bootstrap.reach import dialects, load_directory, load_working, unknown_variables

__all__ = [
    "LOOPBACK_NAMES",
    "Gateway",
    "Stores",
    "access_rules",
    "build",
    "dialects",
    "ids_of",
    "is_loopback",
    "is_private",
    "load_directory",
    "load_working",
    "memory_stores",
    "now_ms",
    "open_stores",
    "unknown_variables",
    "variable_of",
]
