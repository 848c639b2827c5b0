# All commands for working on this project. They need make, and Python 3.11, 3.12 or 3.13.
# `make PYTHON=/path/to/python3.12 test` picks the Python of a new environment; `make clean` first.
# It must work with GNU make 3.81, which macOS ships.

PYTHON ?=
ARGS ?=
VENV := .venv
READY := $(VENV)/.ready

# Our dependencies would send telemetry.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
# Hundreds of processes import the same libraries: without bytecode each compiles them anew, which
# takes longer than what it does.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-rest bench lab lint lock clean

help: ## List these commands
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | while IFS='	' read -r name what; do \
		printf 'make %-10s %s\n' "$$name" "$$what"; done

setup: $(READY) ## Create .venv with the locked dependencies and this project in it

demo: $(READY) ## Run the whole loop on the example stream, from a fresh home
	rm -rf .thermodrift-demo
	$(VENV)/bin/thermodrift --home .thermodrift-demo run examples/elec2.toml

# A test often waits for a process, so there is one worker more than the two cores that they need.
PYTEST := $(VENV)/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(READY) ## Run the tests that answer within five minutes; ARGS="-k drift" selects some
	$(PYTEST) -m 'not slow' $(ARGS)

test-all: $(READY) ## Run every test, also those with servers and kills
	$(PYTEST) $(ARGS)

test-rest: $(READY) ## Run only the tests that `make test` leaves out
	$(PYTEST) -m slow $(ARGS)

bench: $(READY) ## Measure throughput against its budgets; a miss does not fail
	$(VENV)/bin/python -m benchmarks.budgets

lab: $(READY) ## Measure what the defaults do, and write docs/laboratory.md; it resumes
	$(VENV)/bin/python -m benchmarks.laboratory $(ARGS)

lint: $(READY) ## Check style, types, the layers of the packages, and the lock
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	@if grep -nE '://|^[[:space:]]*(-i|-f|--index-url|--extra-index-url|--find-links|--trusted-host)' \
		requirements.lock; then \
		echo 'requirements.lock names an index or an address; make lock writes one that does not' >&2; \
		exit 1; fi

lock: $(READY) ## Resolve requirements.lock again; ARGS=--upgrade takes the newest versions
	$(VENV)/bin/uv pip compile pyproject.toml --extra dev --extra lake --universal \
		--python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --quiet --output-file requirements.lock $(ARGS)

clean: ## Remove the environment, the demo's home and every cache
	rm -rf $(VENV) .thermodrift-demo .thermodrift-lab .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The lock is complete, so nothing is resolved; the check reports it if this is no longer true. pip
# installs uv, in the lock's version and with its hashes, and uv installs the rest, which is many times
# faster. Where uv fails (for example with a proxy or a login that only pip knows), pip installs all.
$(READY): requirements.lock pyproject.toml
	@rm -f $(READY)
	@set -e; if ! $(VENV)/bin/python -c '$(FITS)' 2>/dev/null; then \
		$(FIND_PYTHON); \
		echo "Creating $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv --clear $(VENV); fi
	@echo 'Installing what requirements.lock says (1.1 GB) by uv:'
	@echo 'a minute or so, or seconds where its cache has it'
	@set -e; $(AS_PIP_IS_TOLD); \
	if said=$$({ $(BRING_UV) && $(UV) install $(HERE) $(LOCKED) && \
		$(UV) install $(HERE) $(OURSELVES) && $(UV) check $(HERE); } 2>&1); then \
		echo "$$said" | tail -n 1; \
	else \
		echo 'uv could not install it (addresses left out):' >&2; \
		echo "$$said" | tail -n 5 | sed 's,[a-z+]*://[^ ]*,(address),g; s/^/  /' >&2; \
		echo 'pip installs it instead, which takes some minutes' >&2; \
		$(PIP) install $(LOCKED); $(PIP) install $(OURSELVES); $(PIP) check; fi
	@touch $(READY)

LOCKED := -qq --no-deps --require-hashes -r requirements.lock
OURSELVES := -q --no-deps --no-build-isolation -e .
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
UV := $(VENV)/bin/uv pip
HERE := --python $(VENV)/bin/python

# The lock's own lines of uv, unless that very version is there already.
define BRING_UV
awk '/^uv==/ { on = 1 } on { print } on && !/\\$$/ { exit }' requirements.lock >$(VENV)/uv.txt && \
{ grep -q "^uv==$$($(VENV)/bin/uv --version 2>/dev/null | cut -d ' ' -f 2) " $(VENV)/uv.txt || \
	$(PIP) install -q --no-deps --require-hashes -r $(VENV)/uv.txt; }
endef

# uv does not read pip's settings, so pip's settings for indexes are passed to uv, unless uv has
# settings of its own. pip takes a version from any index that has it, and the strategy makes uv do the
# same; the hashes of the lock make that safe.
define AS_PIP_IS_TOLD
told=$${UV_DEFAULT_INDEX:-}$${UV_INDEX_URL:-}$${UV_INDEX:-}$${UV_EXTRA_INDEX_URL:-}$${UV_CONFIG_FILE:-}; \
if [ -z "$$told" ] && ! grep -qs index "$${XDG_CONFIG_HOME:-$$HOME/.config}/uv/uv.toml" /etc/uv/uv.toml; then \
	for key in index extra-index; do \
		value=$$(for room in install global; do \
			$(PIP) config get "$$room.$$key-url" 2>/dev/null && break; done | tr '\n' ' ' | sed 's/^ *//; s/ *$$//'); \
		case $$key in \
			index) value=$${PIP_INDEX_URL:-$$value}; \
				if [ -n "$$value" ]; then export UV_DEFAULT_INDEX="$$value"; fi;; \
			*) value=$${PIP_EXTRA_INDEX_URL:-$$value}; \
				if [ -n "$$value" ]; then export UV_EXTRA_INDEX_URL="$$value"; fi; \
				export UV_INDEX_STRATEGY=unsafe-best-match;; \
		esac; done; fi
endef

FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

# A name on the path is not enough: a version manager's shim may exist and fail when it is run.
define FIND_PYTHON
python=; for each in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python); do \
	if "$$each" -c '$(FITS)' >/dev/null 2>&1; then python="$$each"; break; fi; done; \
if [ -z "$$python" ]; then \
	echo 'No Python that thermodrift can use: it needs 3.11, 3.12 or 3.13, with venv.' >&2; \
	for each in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python); do \
		echo "  $$each: $$("$$each" --version 2>&1 | head -n 1)" >&2; done; \
	echo 'Install one (Debian and Ubuntu keep venv apart: apt install python3-venv), or name one:' >&2; \
	echo '  make PYTHON=/path/to/python3.12 setup' >&2; exit 1; fi
endef
