# The environment is made on first use and again when pyproject.toml or constraints.txt change.
VENV ?= .venv
PYTHON ?= python3

BIN := $(VENV)/bin
STAMP := $(VENV)/.zo-run-installed
OFFLINE := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help run test test-all pytest check lint types imports format assets golden bench faults signal calibration tables wheel hooks clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "Variables: VENV (now $(VENV)) is the environment, PYTHON (now $(PYTHON)) makes it."

run: $(STAMP) ## run the embedded default experiment: zo-run with no arguments
	$(BIN)/zo-run

test: $(STAMP) ## everything that must pass: ruff, mypy, import contracts, pytest; under 5 minutes on two cores
	@$(MAKE) --no-print-directory -j 2 check pytest

test-all: $(STAMP) ## make test and the slow tests: everything but what needs a GPU
	@$(MAKE) --no-print-directory -j 2 check pytest SELECT='-m "not gpu"'

pytest: $(STAMP)
	$(OFFLINE) $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(SELECT)

check: lint types imports ## only the linters and the types

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy
	$(BIN)/mypy

imports: $(STAMP) ## import contracts
	$(BIN)/lint-imports

format: $(STAMP) ## let ruff format the code and mend what it safely can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

assets: $(STAMP) ## pretrain the embedded pocket models again
	HF_HUB_OFFLINE=1 $(BIN)/python -m scripts.pretrain_pocket_models

golden: $(STAMP) ## write the golden numbers again (announce it in CHANGELOG.md)
	$(OFFLINE) $(BIN)/python -m tests.golden

bench: $(STAMP) ## time steps side by side, into docs/bench.md (a quarter of an hour; 45 minutes with ZO_REAL=DIR, a real model)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks docs

faults: $(STAMP) ## put faults into real runs, into docs/reliability.md
	$(OFFLINE) $(BIN)/python -m tests.faults docs

signal: $(STAMP) ## make the tables and figures of docs/signal.md again (20 minutes)
	$(OFFLINE) $(BIN)/python -m scripts.signal docs/signal
	$(OFFLINE) $(BIN)/python -m scripts.coverage runs/coverage

calibration: $(STAMP) ## make the table of lr=auto against grids of docs/signal.md again (an hour)
	$(OFFLINE) $(BIN)/python -m scripts.calibration runs/calibration

tables: $(STAMP) ## run every pocket sweep and write docs/results/ again (half an hour)
	$(OFFLINE) $(BIN)/python -m scripts.tables docs/results

wheel: $(STAMP) ## build the wheel into dist/
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --wheel-dir dist .

hooks: $(STAMP) ## run the linters before every commit
	$(BIN)/pre-commit install

clean: ## remove caches and build outputs; the environment and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . \( -path ./.git -o -path ./$(VENV) -o -path ./runs \) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# The stamp comes last, so that an interrupted installation is taken up again. An environment without a working pip is
# made anew, and only a directory that is an environment is ever cleared.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    || { echo "zo-run needs Python 3.11 or newer, and $(PYTHON) is not; try PYTHON=python3.11" >&2; exit 1; }; \
	  if [ -f $(VENV)/pyvenv.cfg ]; then clear=--clear; else clear=; fi; \
	  echo "making the environment $(VENV)"; \
	  $(PYTHON) -m venv $$clear $(VENV); \
	fi
	@echo "installing zo-run and its tools into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
