# titan_lab. Needs Python 3.11 or newer, make, and a package index; everything else goes into $(VENV).
# `make` alone lists what can be done.

PYTHON ?= python3
VENV   ?= .venv
AS_OF  ?= 2025-01-15
ARGS   ?=

BIN     := $(VENV)/bin
SAMPLES := data/samples/orders.db

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test proofs lint bench lab notebooks samples clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run.stamp $(SAMPLES) ## set up, run the job `daily_orders` on the samples, say where the report is
	@$(BIN)/titan run daily_orders --as-of $(AS_OF)

test: $(VENV)/.test.stamp $(SAMPLES) ## set up, then prove everything: tests, doctests, README, notebooks (ARGS="-k name")
	$(BIN)/python -m pytest -m "not slow" $(ARGS)
	$(BIN)/python -m pytest --nbval --nbval-sanitize-with=titan_lab/notebook/nbval.cfg --nbval-cell-timeout=120 \
	  --nbval-kernel-startup-timeout=120 notebooks

proofs: $(VENV)/.test.stamp $(SAMPLES) ## what takes longer: planted bugs, races, killed processes, servers, browsers (ARGS="-k name")
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(VENV)/.lint.stamp ## ruff, mypy, and the one-way imports
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench.stamp ## measure the promises beside their peers, one JSON line each (ARGS="--events 10000000")
	$(BIN)/python -m benchmarks $(ARGS)

lab: $(VENV)/.lab.stamp $(SAMPLES) ## open the notebooks in JupyterLab
	$(BIN)/titan lab -- $(ARGS)

notebooks: $(VENV)/.test.stamp $(SAMPLES) ## execute notebooks/ in place, so that their outputs are of this code
	$(BIN)/python -m titan_lab.notebook.refresh notebooks/*.ipynb

samples: $(VENV)/.run.stamp ## make data/samples anew from the seeded generator
	$(BIN)/python -m titan_lab.orders.sample data/samples

clean: ## remove the environment, caches and runs
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what those need -------------------------------------------------------------------------------------------

# One stamp per set of extras: pip runs again only when pyproject.toml changed, and never for what is not asked for.
$(VENV)/.%.stamp: pyproject.toml | $(BIN)/python
	@echo "titan_lab: installing the packages for '$*' into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "titan_lab needs Python 3.11 or newer; '$(PYTHON)' is missing or older."; \
	  echo "Name another one:  make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) could not make a virtual environment. On Debian and Ubuntu that part is a package of its own:"; \
	  echo "  apt-get install python3-venv"; exit 1; }

# The samples are in the repository; this only serves a checkout that lost them.
$(SAMPLES): | $(VENV)/.run.stamp
	$(BIN)/python -m titan_lab.orders.sample data/samples
