"""`llm-gate check`."""

from pathlib import Path

import click

from llm_gate.bootstrap import unknown_variables
from llm_gate.cli.configuration import configuration_options, json_option, source_of
from llm_gate.cli.output import fault_lines, print_json
from llm_gate.configuration import place_of, read_directory
from llm_gate.engine.resolve import Directory
from llm_gate.settings import Place, Settings, SettingsFaults

HELP = """Check the configuration without starting anything: llm-gate.toml, .env and the environment.

Every fault is named in one run, with file, line and key. Exit code 0 means that the gateway would start with
it, 2 that it would not. Warnings name what has no effect. Keys are only looked for, never tried.

\b
Examples:
  llm-gate check
  llm-gate check --config staging.toml --no-env-file
"""


@click.command(help=HELP)
@configuration_options
@json_option
@click.pass_context
def command(context: click.Context, config: Path | None, no_env_file: bool, as_json: bool) -> None:
    """Check the configuration."""
    try:
        settings = source_of(config, no_env_file).read()
        directory = read_directory(settings)
    except SettingsFaults as faults:
        if as_json:
            print_json({"ok": False, "faults": _documents(faults)})
        else:
            click.echo(fault_lines(faults))
        context.exit(2)
    warnings = [
        (place_of(settings, fault.path), fault.message)
        for fault in unknown_variables(settings, directory.catalog)
    ]
    if as_json:
        told = [_document(place, message) for place, message in warnings]
        document = {"files": _files(settings), "providers": _usable(directory), "warnings": told}
        print_json({"ok": True, **document})
        return
    click.echo("ok")
    click.echo(f"files read: {', '.join(_files(settings)) or 'none'}")
    click.echo(f"providers usable: {', '.join(_usable(directory)) or 'none'}")
    if settings.aliases:
        click.echo(f"aliases: {', '.join(settings.aliases)}")
    for place, message in warnings:
        click.echo(f"warning: {place}: {message}")


def _files(settings: Settings) -> list[str]:
    return [str(file) for file in (settings.config_file, settings.env_file) if file is not None]


def _usable(directory: Directory) -> list[str]:
    return [name for name in directory.catalog.providers if directory.is_enabled(name)]


def _documents(faults: SettingsFaults) -> list[dict[str, str | int | None]]:
    return [
        _document(place, fault.message) for place, fault in zip(faults.places, faults.faults, strict=True)
    ]


def _document(place: Place, message: str) -> dict[str, str | int | None]:
    return {"file": place.file, "line": place.line, "key": place.key, "message": message}
