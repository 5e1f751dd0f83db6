"""`python -m bench.unrecorded`: the gateway without a ledger, to measure what the durable one costs."""

import argparse
import sys
from pathlib import Path

from msgspec import structs

from bench.no_ledger import NoLedger
from llm_gate.bootstrap import memory_stores
from llm_gate.configuration import Source
from llm_gate.http.server import run_server


def main() -> None:
    """Serve with the settings of a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    given = parser.parse_args()
    source = Source(config_file=given.config, overrides={"data_dir": given.data_dir})
    given.data_dir.mkdir(parents=True, exist_ok=True)
    stores = structs.replace(memory_stores(), ledger=NoLedger())
    sys.exit(run_server(source.read(), source, stores=stores))


if __name__ == "__main__":
    main()
