PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip

.PHONY: install
install: $(VENV)/.locked
	@$(UV) install -q --python $(BIN)/python --no-deps --no-build-isolation -e . --config-settings editable_mode=strict

$(VENV)/.locked: requirements/lock.txt requirements/uv.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(UV) install -q --python $(BIN)/python --require-hashes -r requirements/lock.txt
	@touch $@
