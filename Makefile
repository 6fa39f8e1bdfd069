SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# Holds the digest of what was installed; the environment is made again only when that differs.
STAMP := $(VENV)/.installed
PYTHON ?=
# Extra arguments: make test ARGS='-k ledger -x', make run ARGS='--port 8100'
ARGS ?=

.PHONY: help setup lock run test test-slow mutants check format bench clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

setup: ## Make .venv from requirements.lock (does nothing when it is up to date)
	@PYTHON="$(PYTHON)" tools/setup_venv.sh "$(VENV)" "$(STAMP)"

lock: setup ## Resolve pyproject.toml anew into requirements.lock (ARGS=--upgrade for newer versions)
	@tools/lock.sh "$(BIN)/uv" $(ARGS)

run: setup ## Start Strata with its own PostgreSQL and Redis under .strata
	@exec $(BIN)/strata up $(ARGS)

test: setup ## The tests, without the slow ones
	@exec $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist worksteal $(ARGS)

test-slow: setup ## The slow tests alone
	@exec $(BIN)/python -m pytest -m slow --timeout 900 $(ARGS)

mutants: setup ## Take the migrator's guards away one by one; a test must miss each (ARGS: names from tools/mutants.toml)
	@exec $(BIN)/python tools/mutants.py $(ARGS)

check: setup ## Lint, types, layers, dead code
	@exec tools/check.sh "$(BIN)"

format: setup ## Let ruff format and mend what it safely can
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench: setup ## Measure; raw results go to docs/benchmarks
	@exec $(BIN)/python -m tests.bench $(ARGS)

clean: ## Remove the environment and every cache (never .strata, which holds data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find strata tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
