"""The gateway's own environment variables: how each is read, and what it sets. Values are never quoted in faults."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from llm_gate.settings.faults import Place

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def read_whole_number(text: str) -> int:
    """Read a plain decimal number.

    Raises:
        ValueError: it is something else.
    """
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError("expected a whole number")
    return int(text)


def read_switch(text: str) -> bool:
    """Read a yes or no in any of the usual spellings.

    Raises:
        ValueError: it is none of them.
    """
    word = text.lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("expected True or False")


def read_text(text: str) -> str:
    """Take a text as it is."""
    return text


# Variable, the setting it overrides (by its path in llm-gate.toml), and its reader.
OVERRIDES: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("HEIMDALL_SERVER_HOST", "server.host", read_text),
    ("HEIMDALL_SERVER_PORT", "server.port", read_whole_number),
    ("LLM_GATE_DATA_DIR", "server.data_dir", read_text),
    ("HEIMDALL_API_TITLE", "api.title", read_text),
    ("HEIMDALL_API_DESCRIPTION", "api.description", read_text),
    ("HEIMDALL_API_PATH", "api.path", read_text),
    ("LOG_LEVEL", "logging.level", read_text),
)


def primary_variable(environment: Mapping[str, str]) -> str:
    """Return the name of the variable that chooses the provider for whoever names none."""
    return "GPT_PROVIDER" if environment.get("GPT_PROVIDER", "").strip() else "LLM_PRIMARY_PROVIDER"


def primary_provider(environment: Mapping[str, str]) -> str | None:
    """Return the provider that serves whoever names none, if the operator chose one."""
    return environment.get(primary_variable(environment), "").strip().lower() or None


def fallback_providers(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the providers to try after the primary one, in order, each once."""
    listed = environment.get("LLM_FALLBACK_PROVIDERS", "").lower().split(",")
    return tuple(dict.fromkeys(filter(None, map(str.strip, listed))))


def place_of_variable(name: str, env_file: str | None, env_text: str, real: Mapping[str, str]) -> Place:
    """Return where a variable was set: in the `.env` file, or in the real environment, which wins."""
    if name in real or env_file is None:
        return Place(file="environment", key=name)
    line = None
    for number, text in enumerate(env_text.splitlines(), 1):
        if re.match(rf"\s*(?:export\s+)?['\"]?{re.escape(name)}['\"]?\s*=", text):
            line = number
    return Place(file=env_file, line=line, key=name)
