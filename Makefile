# Every target sets up what it needs.  Works with GNU make 3.81 and later, as root and as an ordinary user, and writes
# nothing outside this folder (the embedded servers' sockets, and as root their data, excepted).

PYTHON ?= python3
UV ?= uv
BIN := .venv/bin
# Each process has servers of its own; more than four would only wait for the disk.  One that crashes (a segmentation fault
# inside the interpreter, seen once in many runs) says where, is replaced, and its test run again; one that fails never is.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal \
  --reruns 1 --only-rerun '^the process crashed$$' -r fER

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore
# The tests start hundreds of interpreters; where bytecode is not kept, each would compile the product anew.
export PYTHONDONTWRITEBYTECODE =
ifndef PIP_CACHE_DIR
export PIP_NO_CACHE_DIR = 1
endif

# An environment that was moved, or whose Python is gone, is made anew.
ifneq ($(shell $(BIN)/python -c "" 2>/dev/null && cat .venv/.place 2>/dev/null),$(CURDIR))
$(shell rm -f .venv/.runtime .venv/.dev)
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo up run test test-all check screenshots lint types arrows wheel fmt bench lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: .venv/.runtime ## the virtual environment .venv with the locked versions, and .venv/bin/dispatcher
	@:

demo: setup ## the whole journey on a real shop: import, segment, decide, send, unsubscribe
	@$(BIN)/dispatcher demo

up: setup ## everything in one terminal: servers, clock, workers, HTTP (Ctrl-C ends it)
	@$(BIN)/dispatcher up

run: up ## the same as up

test: .venv/.dev ## the tests, against real PostgreSQL and Valkey
	@$(PYTEST) -m "not slow and not thorough"

test-all: .venv/.dev ## the tests and their longer campaigns
	@HYPOTHESIS_PROFILE=check $(PYTEST)

# AFTER_TEST=1 leaves out what a `make test` just before has run in the same way: all but examples and long tests.
check: lint types arrows wheel ## what CI runs: lint, types, arrows, wheel, tests with more examples
	@echo "tests, with more examples"
	@HYPOTHESIS_PROFILE=check $(PYTEST) -m "$(if $(AFTER_TEST),(thorough or hypothesis) and )not slow or reference"

screenshots: .venv/.dev ## the pictures in docs/screenshots anew, from the real pages (needs Chromium)
	@DISPATCHER_SCREENSHOTS=1 $(BIN)/python -m pytest tests/acceptance/test_pages_in_a_browser.py

lint: .venv/.dev ## ruff: rules and format
	@echo "lint"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.dev ## mypy, strict
	@echo "types"
	@$(BIN)/mypy

arrows: .venv/.dev ## import-linter: scheduler -> workers -> dispatcher -> segments
	@echo "arrows"
	@$(BIN)/lint-imports

wheel: .venv/.dev ## build the wheel, install it apart, import every room from it
	@echo "wheel"
	@rm -rf build/wheel build/installed
	@$(BIN)/python -m build --wheel --no-isolation --outdir build/wheel . > /dev/null
	@$(BIN)/python -m pip install -q --no-deps --no-compile --target build/installed build/wheel/*.whl
	@$(BIN)/python .ci/import_rooms.py build/installed

fmt: .venv/.dev ## put the code into its format, with the fixes that are safe
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup ## the first figures: plan against a bare INSERT, send against one task per person
	@$(BIN)/python -m benchmarks

lock: ## the locked versions anew, from pyproject.toml (needs uv)
	@$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q \
	  --extra embedded --group build pyproject.toml -o requirements/runtime.lock
	@$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q \
	  --extra embedded --group dev -c requirements/runtime.lock pyproject.toml -o requirements/dev.lock

clean: ## remove what make made; never the data in .dispatcher
	@rm -rf .venv build dist .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.runtime: requirements/runtime.lock pyproject.toml
	@echo "making .venv, once (about a minute)"
	@python=""; for candidate in "$(PYTHON)" python3.13 python3.12 python3.11 python3.14; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
	    python="$$candidate"; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11 or newer is needed; if you have it elsewhere: make setup PYTHON=/path/to/python3" >&2; exit 1; fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2> /dev/null; then \
	  echo "this Python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; fi; \
	if ! [ "$$(cat .venv/.place 2> /dev/null)" = "$(CURDIR)" ] || ! $(BIN)/python -m pip --version > /dev/null 2>&1; then \
	  "$$python" -m venv --clear .venv && printf '%s' "$(CURDIR)" > .venv/.place; fi
	@echo "installing what requirements/runtime.lock names"
	@$(BIN)/python -m pip install -q --require-hashes -r requirements/runtime.lock
	@$(BIN)/python -m pip install -q --no-build-isolation --no-deps -e .
	@touch $@

.venv/.dev: .venv/.runtime requirements/dev.lock
	@echo "installing the tools of the workshop, from requirements/dev.lock"
	@$(BIN)/python -m pip install -q --require-hashes -r requirements/dev.lock
	@touch $@
