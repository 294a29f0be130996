# `make` makes .venv itself, from requirements.lock, and again only when that file changes.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
READY := .venv/.ready

.PHONY: help install demo repro report test test-long bench lint lock show

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock
	@python3 -c 'import sys; sys.exit("error: Python 3.11 or later is needed (python3)" if sys.version_info < (3, 11) else 0)'
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

install: $(READY)  ## the environment, which every other target makes too

demo: $(READY)  ## a whole experiment on built-in data, no download, about a minute
	@python -m recipes run digits --demo
	@python -m tools.report

repro: $(READY)  ## dvc repro: bring everything up to date with params.yaml
	dvc repro

report: $(READY)  ## the result as one page, report.html
	python -m tools.report

show: $(READY)  ## the experiments as a table: metrics and the parameters that differ
	python -m tools.show

test: $(READY)  ## the tests, without the long ones: five minutes
	python -m pytest -m "not long"

test-long: $(READY)  ## all tests, the long ones too
	python -m pytest

bench: $(READY)  ## speed, accuracy against time, memory: about 40 minutes on a quiet machine
	python -m benchmarks

lint: $(READY)  ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

lock: $(READY)  ## compile requirements.lock anew from pyproject.toml
	python -m pip install --quiet --target .venv/uv uv
	.venv/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --group dev --custom-compile-command "make lock" pyproject.toml -o requirements.lock
