"""The gateway's own environment variables: how each is read, and what it sets. Values are never quoted in faults."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from llm_gate.domain.secret import Secret
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


def read_no(text: str) -> bool:
    """Read a yes or no, and return the contrary.

    Raises:
        ValueError: it is neither.
    """
    return not read_switch(text)


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
    ("LLM_GATE_NO_WAITING", "retries.wait", read_no),
)


DATABASE_URL, REDIS_URL, PEPPER = "LLM_GATE_DATABASE_URL", "LLM_GATE_REDIS_URL", "LLM_GATE_PEPPER"
WEBHOOK_SECRET = "LLM_GATE_WEBHOOK_SECRET"  # noqa: S105 - the variable's name
SECRETS = (DATABASE_URL, REDIS_URL, PEPPER, WEBHOOK_SECRET)
"""The variables of the stores, and of the webhook; all of them hold something secret."""

_ADDRESSES: Mapping[str, tuple[str, ...]] = {
    DATABASE_URL: ("postgresql://", "postgres://"),
    REDIS_URL: ("redis://", "rediss://"),
}
_SHORTEST_PEPPER = 32


def read_secrets(environment: Mapping[str, str]) -> tuple[dict[str, Secret], list[tuple[str, str]]]:
    """Return what the variables of the stores hold, by their names, and what is wrong with which of them."""
    given = {name: environment.get(name, "").strip() for name in SECRETS}
    found: list[tuple[str, str]] = []
    for name, starts in _ADDRESSES.items():
        if given[name] and not _is_address(name, given[name]):
            found.append((name, f"expected an address of the form {starts[0]}user:password@host:port/name"))
    if given[PEPPER] and len(given[PEPPER]) < _SHORTEST_PEPPER:
        found.append((PEPPER, f"expected at least {_SHORTEST_PEPPER} characters"))
    if given[DATABASE_URL] and not given[PEPPER]:
        found.append((DATABASE_URL, f"needs {PEPPER}: one secret for all gateways of the database"))
    faulty = {name for name, _ in found}
    return {name: Secret(text) for name, text in given.items() if text and name not in faulty}, found


def _is_address(name: str, text: str) -> bool:
    if not text.startswith(_ADDRESSES[name]):
        return False
    try:
        parts = urlsplit(text)
        # A port that is no number shows only when it is asked for.
        sound = parts.port != 0
    except ValueError:
        return False
    # A driver would put something in place of what is left out, and tables would appear where nobody meant them.
    return sound and (name != DATABASE_URL or parts.path.strip("/") != "")


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
