# Everything that a fresh machine needs is Python 3.11+, GNU make and this file.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CORES ?= all
EXPERIMENT ?= params.yaml

export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true

.PHONY: demo table test test-slow bench lint format lock clean help
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## draw a data set, run every stage on it, print the table
	$(BIN)/snakemake --cores $(CORES) --configfile experiments/demo.yaml
	$(BIN)/icis show --config experiments/demo.yaml

table: $(VENV)/.installed  ## dvc repro of params.yaml, or of EXPERIMENT=FILE
	$(BIN)/icis select --config $(EXPERIMENT)
	PATH="$(abspath $(BIN)):$$PATH" dvc repro
	$(BIN)/icis show --config $(EXPERIMENT)

test: $(VENV)/.installed lint  ## linters, types and all tests that take minutes
	$(BIN)/python -m pytest -q -n 2 --dist loadscope -m "not slow"

test-slow: $(VENV)/.installed  ## tests on real data, kills, whole runs
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m slow

bench: $(VENV)/.installed  ## speed and memory beside a plain implementation: minutes, on idle cores
	$(BIN)/python -m benchmarks.speed

lint: $(VENV)/.installed  ## ruff, mypy, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

format: $(VENV)/.installed  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/rules

lock: $(VENV)/.installed  ## write the versions installed into requirements.lock
	scripts/lock $(BIN)/python > requirements.lock.new
	mv requirements.lock.new requirements.lock
	touch $(VENV)/.installed

clean:  ## remove everything that is computed (not what was fetched, nor the environment)
	find data -mindepth 1 -maxdepth 1 -type d ! -name fetched ! -name downloads -exec rm -rf {} +
	rm -rf results/*/ logs .snakemake mlflow.db mlartifacts mlruns
