"""The options that say where the configuration is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from llm_gate.configuration import Source
from llm_gate.settings import ENV_FILE

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


def source_of(config: Path | None, no_env_file: bool, **flags: Any) -> Source:
    """Return where the options say the configuration is; `flags` override [server] settings."""
    return Source(config_file=config, env_file=None if no_env_file else ENV_FILE, overrides=flags)
