# `make` creates .venv from a lock file, and updates it only when that file changes.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
export TORCH_INDEX
USER_ENV := .venv/.ready
DEV_ENV := .venv/.ready-dev
PLOTS_PAGE := .dvc/plots-page.html
WORKERS ?= 2

.PHONY: help install demo repro show report official check test test-long coverage lint audit lock \
  bench clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Run it

install: $(PLOTS_PAGE)  ## create the environment, .venv; TORCH_INDEX=<address> sets the index for torch

demo: $(PLOTS_PAGE)  ## run a complete experiment on built-in data; downloads no data
	@python -m recipes run digits --demo
	@python -m tools.report

repro: $(PLOTS_PAGE)  ## bring everything up to date with params.yaml (dvc repro)
	dvc repro

show: $(USER_ENV)  ## list all experiments, best first, with the parameters that differ
	python -m tools.show

report: $(USER_ENV)  ## write the results as one page, report.html
	python -m tools.report

official: $(PLOTS_PAGE)  ## run the default on the official archive, and leave its results ready to commit
	python -m tools.official

clean:  ## remove checkpoints, logs, pages and caches; keep data and models
	@[ -x .venv/bin/python ] || { echo "error: no environment (.venv): run make install" >&2; exit 1; }
	@python -m tools.clean

# Work on it

# Tests keep their bytecode, because pytest takes 20 seconds to make it.
check test test-long coverage: export PYTHONDONTWRITEBYTECODE :=

check: $(DEV_ENV)  ## run only the fast tests
	python -m pytest -n $(WORKERS) --dist worksteal -m "not long and not slow"

test: $(DEV_ENV)  ## run all tests except the long ones
	python -m pytest -n $(WORKERS) --dist worksteal -m "not long"

test-long: $(DEV_ENV)  ## run all tests, including the long ones
	python -m pytest -n $(WORKERS) --dist worksteal

coverage: $(DEV_ENV)  ## run the tests, and list the lines that they do not reach
	python -m pytest -n $(WORKERS) --dist worksteal -m "not long" --cov --cov-report=term-missing

lint: $(DEV_ENV)  ## run ruff and mypy
	ruff check .
	ruff format --check .
	mypy

audit: $(DEV_ENV)  ## check the locked packages for known vulnerabilities
	pip-audit --require-hashes --disable-pip -r requirements-dev.lock

COMPILE = uv pip compile --quiet $(UPGRADE) --universal --fork-strategy fewest --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
lock: $(DEV_ENV)  ## resolve the lock files again; UPGRADE=--upgrade selects the newest versions
	$(COMPILE) --group dev pyproject.toml -o requirements-dev.lock
	$(COMPILE) -c requirements-dev.lock pyproject.toml -o requirements.lock

bench: $(USER_ENV)  ## measure speed, memory and accuracy (about 40 minutes on a quiet machine)
	python -m benchmarks

# What the targets need

$(USER_ENV): requirements.lock
	@$(PYTHON) tools/install.py $<
	@touch $@

$(DEV_ENV): requirements-dev.lock
	@$(PYTHON) tools/install.py $<
	@touch $(USER_ENV) $@

$(PLOTS_PAGE): $(USER_ENV) tools/plots_page.py tools/plots_page.html
	@python -m tools.plots_page
