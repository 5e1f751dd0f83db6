"""What the environment says of the factory's calls that do not say it themselves."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec import Struct

from llm_gate.client.llm_provider import MAX_TOKENS, TEMPERATURE
from llm_gate.domain.policy import FACTORY
from llm_gate.settings.variables import read_switch

T = TypeVar("T")


class Usual(Struct, frozen=True, kw_only=True):
    """The usual settings of a call. `retry_delay` is in seconds."""

    temperature: float = TEMPERATURE
    max_tokens: int = MAX_TOKENS
    max_retries: int = FACTORY.tries
    retry_delay: float = FACTORY.pause_s

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Usual":
        """Read them from the environment.

        Raises:
            ValueError: a variable is no number, or less than it may be.
        """
        return cls(
            temperature=_read(environment, "LLM_TEMPERATURE", float, TEMPERATURE, least=0),
            max_tokens=_read(environment, "LLM_MAX_TOKENS", int, MAX_TOKENS, least=1),
            max_retries=_read(environment, "LLM_RETRY_MAX_ATTEMPTS", int, FACTORY.tries, least=1),
            retry_delay=_read(environment, "LLM_RETRY_DELAY_SECONDS", float, FACTORY.pause_s, least=0),
        )


def _read(
    environment: Mapping[str, str], name: str, read: Callable[[str], T], usual: T, *, least: float
) -> T:
    text = environment.get(name, "").strip()
    if not text:
        return usual
    try:
        value = read(text)
    except ValueError:
        raise ValueError(f"{name}: expected a number") from None
    # Written so that what is not a number is refused as well.
    if not (isinstance(value, int | float) and value >= least):
        raise ValueError(f"{name}: expected a number of at least {least:g}")
    return value


def is_on(environment: Mapping[str, str], name: str) -> bool:
    """Tell whether a switch is set; it is off where nothing is said.

    Raises:
        ValueError: it says neither.
    """
    text = environment.get(name, "").strip()
    try:
        return bool(text) and read_switch(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def listed(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return the items of a list between commas."""
    return tuple(filter(None, map(str.strip, environment.get(name, "").split(","))))
