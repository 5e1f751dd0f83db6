"""Reading the whole configuration, as commands and a reload do it: every fault of every layer, each in its place."""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from llm_gate.bootstrap import load_directory, load_working
from llm_gate.catalog.loader import CatalogFaults
from llm_gate.domain.errors import Fault
from llm_gate.engine.resolve import Directory
from llm_gate.settings import (
    CONFIG_FILE,
    Place,
    Settings,
    SettingsFaults,
    lies_within,
    load_settings,
    locate,
    locate_variable,
)


class Source(Struct, frozen=True, kw_only=True):
    """Where the configuration comes from, to read it now and again.

    Without `config_file`, llm-gate.toml of the working directory is meant; without `env_file`, no such file.
    `overrides` are the command line's [server] settings.
    """

    config_file: Path | None = None
    env_file: Path | None = None
    overrides: Mapping[str, Any] = {}

    @property
    def files(self) -> tuple[Path, ...]:
        """The files whose change means another configuration."""
        config_file = self.config_file or CONFIG_FILE
        return (config_file,) if self.env_file is None else (config_file, self.env_file)

    def read(self) -> Settings:
        """Read the files and this process's environment.

        Raises:
            SettingsFaults: something is wrong with them; then whatever else is wrong is listed as well.
        """
        try:
            return load_settings(
                os.environ, config_file=self.config_file, env_file=self.env_file, overrides=self.overrides
            )
        except SettingsFaults as error:
            raise _with_catalog_faults(error) from None


def read_directory(settings: Settings) -> Directory:
    """Load the catalog and find out what can be used.

    Raises:
        SettingsFaults: something is wrong with providers, models or aliases.
    """
    with placed_faults(settings):
        return load_directory(settings)


def ask_directory(settings: Settings) -> Directory:
    """Load the catalog, and ask the providers that may be away whether they are there.

    Raises:
        SettingsFaults: something is wrong with providers, models or aliases.
    """
    with placed_faults(settings):
        working = load_working(settings)
    asyncio.run(working.ask_once())
    return working.directory


@contextmanager
def placed_faults(settings: Settings) -> Iterator[None]:
    """Say of the catalog's faults where in the files they are.

    Raises:
        SettingsFaults: the catalog is faulty.
    """
    try:
        yield
    except CatalogFaults as error:
        raise _sorted(_placed(settings, error.faults), settings) from None


def place_of(settings: Settings, path: str) -> Place:
    """Return where a key of the file, or a variable, was written."""
    if path.startswith(("providers.", "aliases.", "logging.", "plans.", "cache.")):
        return locate(settings.config_file, path)
    return locate_variable(settings, path, os.environ)


def _with_catalog_faults(error: SettingsFaults) -> SettingsFaults:
    settings = error.settings
    found = [(place, fault.message) for place, fault in zip(error.places, error.faults, strict=True)]
    try:
        load_directory(settings)
    except CatalogFaults as more:
        # Of an alias whose targets cannot be read, the catalog sees only the remains.
        said = [place.key for place in error.places if place.key.startswith("aliases.")]
        new = [fault for fault in more.faults if not any(lies_within(fault.path, key) for key in said)]
        found += _placed(settings, new)
    return _sorted(found, settings)


def _placed(settings: Settings, faults: Sequence[Fault]) -> list[tuple[Place, str]]:
    return [(place_of(settings, fault.path), fault.message) for fault in faults]


def _sorted(found: Sequence[tuple[Place, str]], settings: Settings) -> SettingsFaults:
    """Put the faults into the order in which the files are read from top to bottom, variables and flags last."""
    order = [str(settings.config_file), str(settings.env_file), "environment", "command line"]

    def position(each: tuple[Place, str]) -> tuple[int, int]:
        place = each[0]
        return order.index(place.file) if place.file in order else 0, place.line or 0

    return SettingsFaults(sorted(found, key=position), settings)
