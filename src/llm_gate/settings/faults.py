"""Where in the operator's files, variables and flags something is wrong, and the error that lists all of it."""

from collections.abc import Sequence

from msgspec import Struct

from llm_gate.domain.errors import Fault, GateFault
from llm_gate.settings.records import Settings


class Place(Struct, frozen=True, kw_only=True):
    """Where a setting was written. `file` is a file's name, "environment" or "command line"."""

    file: str
    line: int | None = None
    key: str = ""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.key}" if self.key else where


class SettingsFaults(GateFault):
    """The configuration cannot be used. `faults` names everything that is wrong, `places` where, in one order.

    `settings` is what remains without the faulty parts, so that other layers can look for faults of their own.
    """

    code = "configuration_error"

    def __init__(self, found: Sequence[tuple[Place, str]], settings: Settings) -> None:
        super().__init__("\n".join(f"{place}: {message}" for place, message in found))
        self.places = tuple(place for place, _ in found)
        self.faults = tuple(Fault(str(place), message) for place, message in found)
        self.settings = settings


def lies_within(path: str, outer: str) -> bool:
    """Tell whether a key path is another one, or a part of what that one names."""
    return path == outer or path.startswith((f"{outer}.", f"{outer}["))
