"""`llm-gate serve`."""

from pathlib import Path

import click

from llm_gate.cli.configuration import configuration_options, source_of
from llm_gate.configuration import read_directory
from llm_gate.http.server import run_server

HELP = """Run the gateway until it is told to stop.

On 127.0.0.1, the default, anybody may call until a first key is made with `llm-gate keys create`. On any other
address it only starts when there is one, or when LLM_GATE_API_KEY is set, which is a key as well.

Flags win over the environment, the environment over .env, and that over llm-gate.toml.

\b
Examples:
  llm-gate serve
  llm-gate serve --port 9000 --data-dir /var/lib/llm-gate
  LLM_GATE_API_KEY=... llm-gate serve --host 0.0.0.0 --workers 4
"""


@click.command(help=HELP)
@click.option("--host", metavar="ADDRESS", help="The address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    help="The port to listen on; 0 is any free one.  [default: 8080]",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder in which the gateway keeps its data.  [default: data]",
)
@click.option(
    "--workers", type=click.IntRange(1, 256), metavar="N", help="How many processes serve.  [default: 1]"
)
@configuration_options
@click.pass_context
def command(
    context: click.Context,
    *,
    host: str | None,
    port: int | None,
    data_dir: Path | None,
    workers: int | None,
    config: Path | None,
    no_env_file: bool,
) -> None:
    """Run the gateway."""
    source = source_of(config, no_env_file, host=host, port=port, data_dir=data_dir, workers=workers)
    settings = source.read()
    # A faulty catalog is told here, with its lines, before any process is started.
    read_directory(settings)
    try:
        code = run_server(settings, source)
    except KeyboardInterrupt:
        # The server has already closed in good order; it raises the signal again for whoever started it.
        code = 0
    context.exit(code)
