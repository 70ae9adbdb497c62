# Everything a person types. `make` or `make help` prints the list.
# A machine needs Linux x86-64, CPython 3.11 or 3.12 with venv and its shared library, git and make.

SHELL := /bin/bash -o pipefail
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
# protoc finds its plug-ins, and tests the command, by PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# The first that works; `make PYTHON=/path/to/python3.12 setup` chooses another.
PYTHON ?= $(firstword $(foreach python,python3.11 python3.12 python3,$(shell \
	$(python) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $(python))) \
	python3)
# uv does not read pip's configuration; this tells it the user's indexes.
UV = eval "$$($(BIN)/python services/embedded/indexes.py)" && $(BIN)/uv
PYTEST := $(BIN)/pytest
# What Loupe is measured against lives in an environment of its own.
PEERS := build/peers
# No index address gets into a lock.
COMPILE := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help setup lock check test debian demo generate contract e2e bench-stream bench-line bench-peers soak \
	load clean

help: ## Print this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMPS)/parts ## Install everything: the locked environment, then the parts of the stack (once)

demo: setup ## Run the product's main job on this machine: make demo ARGS="--cameras 3"
	$(BIN)/loupe demo $(ARGS)

test: setup debian check ## Run every check and every test
	$(PYTEST) tests --ignore=tests/unit --ignore=tests/repo

debian: # Debian packages that some tests use; without root or network these tests skip
	tests/install-debian-packages.sh

check: $(STAMPS)/locked ## Format, lint, types, import rules, generated code, unit tests (under two minutes)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy services serve tests
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py build/wire && diff -r -x __pycache__ build/wire services/wire/gen
	$(PYTEST) tests/unit tests/repo

generate: $(STAMPS)/locked ## Write the generated code and docs/asyncapi.yaml anew
	$(BIN)/python proto/generate.py
	$(BIN)/loupe asyncapi --yaml --output docs/asyncapi.yaml

contract: setup ## One suite per Protocol, in memory and on real servers
	$(PYTEST) tests/contract

e2e: setup ## Whole chains on the whole stack
	$(PYTEST) tests/e2e

bench-stream: setup ## Measure the stream against the bare loop; ends with ratio=… p50_ms=… p99_ms=…
	$(BIN)/python -m loadtest.bench_stream $(ARGS)

bench-line: setup ## Measure the line: make bench-line ARGS="spool|ingest|video|ledger|latency"
	$(BIN)/python -m loadtest.bench_line $(ARGS)

bench-peers: setup $(PEERS)/.installed ## Measure anomalib beside Loupe: same photos, splits and weights, one run
	$(BIN)/python -m loadtest.bench_peers --python $(PEERS)/bin/python $(ARGS)

soak: setup ## One camera at 50 frames/s for an hour: the slope of each part's memory
	$(BIN)/python -m loadtest.soak $(ARGS)

load: setup ## Load test with thresholds that can fail
	$(BIN)/python -m loadtest $(ARGS)

lock: $(STAMPS)/locked ## Resolve all dependencies anew: environment, build tools, parts
	$(UV) pip compile $(COMPILE) --all-extras pyproject.toml --output-file requirements.lock
	$(UV) pip compile $(COMPILE) --no-annotate --constraint requirements.lock requirements-build.in \
		--output-file requirements-build.lock
	$(UV) pip compile $(COMPILE) --no-annotate --no-deps services/embedded/pins/triton.in \
		--output-file services/embedded/pins/triton.txt
	$(UV) pip compile $(COMPILE) --no-annotate services/embedded/pins/triton-backend.in \
		--output-file services/embedded/pins/triton-backend.txt
	$(UV) pip compile $(COMPILE) --no-annotate --constraint requirements.lock loadtest/bench_peers.in \
		--output-file loadtest/bench_peers.lock
	$(BIN)/python -m services.embedded.jars

clean: ## Stop the stack of this folder and remove environment, parts and state
	-test -x $(BIN)/loupe && $(BIN)/loupe down
	rm -rf $(VENV) .loupe .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(BIN)/python:
	@$(PYTHON) services/embedded/python_check.py
	$(PYTHON) -m venv $(VENV)

# The same torch as in the environment above, so most of its 6 GB are links to uv's cache.
$(PEERS)/.installed: loadtest/bench_peers.lock $(STAMPS)/locked
	@$(UV) venv --quiet --clear --python $(BIN)/python $(PEERS)
	@$(UV) pip install --quiet --python $(PEERS)/bin/python --require-hashes -r loadtest/bench_peers.lock
	@touch $@

# uv and the build back end by pip with hashes; all else by uv with hashes.
$(STAMPS)/locked: requirements.lock requirements-build.lock pyproject.toml | $(BIN)/python
	@echo "Installing the locked environment: about 6 GB on disk, most of it torch; minutes on a slow line."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock
	@$(UV) pip install --python $(BIN)/python --require-hashes -r requirements.lock
	@$(UV) pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/parts: $(STAMPS)/locked $(wildcard services/embedded/pins/*) services/trainer/backbones/efficientnet.py
	@$(BIN)/loupe setup
	@touch $@
