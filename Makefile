# The two commands to know: `make serve` and `make test`. Everything else is a part of them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
ARGS ?=

.PHONY: setup serve test prove check soak bench fmt lock clean help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/'

$(VENV)/.runtime: requirements/runtime.txt requirements/build.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

setup: $(VENV)/.dev  ## make .venv with the llm-gate command and every development tool

serve: $(VENV)/.runtime  ## set up and run the gateway on 127.0.0.1:8080
	@$(BIN)/llm-gate serve $(ARGS)

check: setup  ## lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: setup check  ## everything: checks, then all tests
	$(BIN)/python -m pytest -n auto $(ARGS)

prove: setup  ## the tests that have full figures, with these; takes a long while (docs/proofs.md)
	PROVE=1 $(BIN)/python -m pytest -m "prove or not prove" -n auto $$(grep -rl --include='test_*.py' support.figures tests) $(ARGS)

soak: setup  ## an hour of mixed calls with faults and leavers, on loopback (SOAK_S=1500 for less)
	SOAK_S=$${SOAK_S:-3600} $(BIN)/python -m pytest -q -s tests/journeys/test_soak.py $(ARGS)

bench: $(VENV)/.runtime  ## measure beside nginx, on Linux with two cores (ARGS=--quick for a smoke run)
	@$(BIN)/python -m bench $(ARGS)

fmt: setup  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: setup  ## renew the hash locks from requirements/*.in (needs uv on the PATH)
	for f in runtime build otel s3 tokens dev; do uv pip compile -q --python-version 3.11 --universal --generate-hashes --no-header --no-emit-index-url --no-annotate requirements/$$f.in -o requirements/$$f.txt; done

clean:  ## remove what setup and the tools made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
