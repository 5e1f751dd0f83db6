"""The options that say where the configuration is, and its loading with every fault placed in the files."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from llm_gate.bootstrap import load_directory
from llm_gate.catalog.loader import CatalogFaults
from llm_gate.engine.resolve import Directory
from llm_gate.settings import ENV_FILE, Place, Settings, SettingsFaults, load_settings, locate

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def configuration_options(command: F) -> F:
    """Give a command --config and --no-env-file."""
    config = click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The configuration file.  [default: llm-gate.toml, if it is there]",
    )
    no_env_file = click.option(
        "--no-env-file", is_flag=True, help="Do not read the file .env of this directory."
    )
    return config(no_env_file(command))


def read_settings(config: Path | None, no_env_file: bool, **flags: Any) -> Settings:
    """Load the settings as the options say; `flags` override [server] settings.

    Raises:
        SettingsFaults: something is wrong with them.
    """
    env_file = None if no_env_file else ENV_FILE
    return load_settings(os.environ, config_file=config, env_file=env_file, overrides=flags)


def read_directory(settings: Settings) -> Directory:
    """Load the catalog and find out what can be used.

    Raises:
        SettingsFaults: something is wrong with providers, models or aliases.
    """
    with placed_faults(settings):
        return load_directory(settings)


@contextmanager
def placed_faults(settings: Settings) -> Iterator[None]:
    """Say of the catalog's faults where in the files they are.

    Raises:
        SettingsFaults: the catalog is faulty.
    """
    try:
        yield
    except CatalogFaults as error:
        found = [(_place(settings, fault.path), fault.message) for fault in error.faults]
        raise SettingsFaults(found) from None


def _place(settings: Settings, path: str) -> Place:
    if path.startswith(("providers.", "aliases.")):
        return locate(settings.config_file, path)
    return Place(file="environment", key=path)
