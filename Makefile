# Every verb does its own set-up: Python 3.11 or newer, make and a package
# index are all it takes. `make help` lists the verbs.

# The first Python that runs, is new enough, and can make an environment.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo $$python && break; done)
VENV ?= .venv
OLDEST ?= $(VENV)-oldest
FOCUS ?= $(VENV)-focus
# The validator of FOCUS runs on no other.
FOCUS_PYTHON ?= python3.12
# One process more than there are cores: many tests wait for servers and processes.
# A test that hangs or crashes is named all the same.
PARALLEL ?= -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --dist worksteal
# Passed on to pytest: make test ARGS="-k ledger"
ARGS ?=

BIN := $(VENV)/bin
# Not byte-compiling what is never imported saves a quarter of the set-up.
PIP := -m pip --disable-pip-version-check install -qq --no-compile

# What is imported is compiled once: images that set this have every process of
# the tests compile all of LangChain anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
# Verbs share environments; two of them must not be set up at the same time.
.NOTPARALLEL:
.PHONY: help demo test check check-format check-lint check-types check-imports \
	check-spelling cover bench soak screens test-oldest test-focus clean

help: ## List the verbs
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/  make \1|\2/p' Makefile | \
		while IFS='|' read -r verb text; do printf '%-20s%s\n' "$$verb" "$$text"; done

demo: $(VENV)/.demo ## See an agent run away and be stopped
	@$(BIN)/guardrails demo

test: $(VENV)/.dev $(VENV)/.node ## Run the tests
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

check: check-format check-lint check-types check-imports check-spelling ## Run every check

check-format: $(VENV)/.dev
	@$(BIN)/ruff format --check --quiet .

check-lint: $(VENV)/.dev
	@$(BIN)/ruff check --quiet .

check-types: $(VENV)/.dev
	@$(BIN)/basedpyright --pythonpath $(BIN)/python
# --verifytypes knows no --pythonpath: it asks the first python of the PATH.
	@for package in guardrails guardrails_langchain guardrails_mcp; do \
		report=$$(PATH="$(abspath $(BIN)):$$PATH" basedpyright --ignoreexternal \
		--verifytypes $$package) || { echo "$$report"; exit 1; }; done

check-imports: $(VENV)/.dev
	@report=$$($(BIN)/lint-imports --no-cache --no-logo) || { echo "$$report"; exit 1; }

check-spelling: $(VENV)/.dev
	@$(BIN)/codespell

cover: $(VENV)/.dev $(VENV)/.node ## Show what nobody tested: here, and in htmlcov/
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage html --quiet
	@$(BIN)/coverage report

bench: $(VENV)/.dev $(VENV)/.node ## Measure what a guarded call costs
	@$(BIN)/python -m benchmarks

soak: $(VENV)/.dev $(VENV)/.node ## Run the tests that take minutes
	@ALL_SERVERS=1 $(BIN)/python -m pytest -m soak --timeout=1800 $(ARGS)

screens: $(VENV)/.dev ## Write what commands show into docs/screens
	@$(BIN)/python -m tests.screens

test-oldest: $(OLDEST)/.test ## Run the adapters' tests on the oldest frameworks
	@$(OLDEST)/bin/python -m pytest $(PARALLEL) tests/integrations/langchain \
		tests/integrations/mcp tests/test_examples.py $(ARGS)

test-focus: $(VENV)/.dev $(FOCUS)/.test ## Have FOCUS's own validator check the export (Python 3.12)
	@FOCUS_PYTHON=$(abspath $(FOCUS))/bin/python $(BIN)/python -m pytest \
		tests/exports/test_focus.py $(ARGS)

clean: ## Remove environments, caches and reports
	@rm -rf $(VENV) $(OLDEST) $(FOCUS) .hypothesis .pytest_cache .ruff_cache .import_linter_cache \
		.coverage .coverage.* build dist htmlcov
	@find . -path './.?*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# ------------------------------------------------------------------- set-up
# A stamp is newer than what it was made from, so a second run is instant.

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing guardrails into $(VENV) (half a minute, once)" >&2
	@$(BIN)/python $(PIP) -c constraints.txt -e ".[all]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing guardrails and its tools into $(VENV) (a minute, once)" >&2
	@$(BIN)/python $(PIP) -c constraints.txt -e ".[all,dev]"
	@touch $(VENV)/.demo $@

$(OLDEST)/.test: pyproject.toml constraints-oldest.txt | $(OLDEST)/bin/python
	@echo "Installing the oldest frameworks into $(OLDEST) (a minute, once)" >&2
	@$(OLDEST)/bin/python $(PIP) -c constraints-oldest.txt -e ".[all,test,test-mcp1]"
	@touch $@

$(FOCUS)/.test: constraints-focus.txt
	@echo "Installing the validator of FOCUS into $(FOCUS) (half a minute, once)" >&2
	@$(FOCUS_PYTHON) -m venv $(FOCUS)
	@$(FOCUS)/bin/python $(PIP) -c constraints-focus.txt focus-validator
	@touch $@

# MCP servers that only npm has. Without it their tests are skipped, and say so.
$(VENV)/.node: constraints-node.txt | $(BIN)/python
	@if command -v npm >/dev/null; then \
		echo "Installing MCP servers into $(VENV)/node (a few seconds, once)" >&2; \
		grep -v '^#' $< | xargs npm install --prefix $(VENV)/node --silent --no-audit \
		--no-fund --no-package-lock --no-update-notifier && touch $@ || \
		echo "npm could not install them: their tests are skipped" >&2; fi

$(BIN)/python $(OLDEST)/bin/python:
	@test -n "$(PYTHON)" || { echo "This needs Python 3.11 or newer with venv. If it is" \
		"installed under another name: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv $(@D:/bin=)
# The newest pip takes half as long as the one that comes with Python 3.11; if
# there is none to be had, that one will do.
	@$@ $(PIP) --upgrade pip || echo "Going on with the pip of $(PYTHON)" >&2
