# Everything sets itself up: only Python 3.11 or newer, make and git are needed.
PYTHON ?= python3
# Tests wait more than they compute, so one worker more than a small machine has cores.
WORKERS ?= 3
# More for pytest: make test ARGS="-k keys -x"
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q

.PHONY: demo test lint bench torture clean
# Two installs into one environment would trip over each other under `make -j`.
.NOTPARALLEL:

demo: $(VENV)/.cli
	@$(BIN)/cachestore demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy --strict cachestore
	$(BIN)/lint-imports --no-cache --no-logo

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

torture: $(VENV)/.dev
	$(BIN)/python -m pytest -m torture -n 2 --timeout 3600 $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "No $(PYTHON) found. Install Python 3.11 or newer, or: make PYTHON=/path/to/it" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, but $(PYTHON) is `$(PYTHON) --version 2>&1`." \
			"Say: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make a virtual environment (on Debian: apt install python3-venv)" >&2; exit 1; }
	@touch $@

# Installed again when pyproject.toml changes; a hiccup of the network gets a second try.
$(VENV)/.cli: $(VENV)/.made pyproject.toml
	@echo "Installing into $(VENV), once ..."
	@$(PIP) -e '.[cli]' || { echo "pip failed; trying once more" >&2; sleep 3; $(PIP) -e '.[cli]'; }
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	@echo "Installing into $(VENV) with all that tests need, once; a minute or two ..."
	@$(PIP) -e '.[dev]' || { echo "pip failed; trying once more" >&2; sleep 3; $(PIP) -e '.[dev]'; }
	@touch $@ $(VENV)/.cli

$(VENV)/.bench: $(VENV)/.dev
	@echo "Installing the caches to compare with ..."
	@$(PIP) -e '.[bench]' || { echo "pip failed; trying once more" >&2; sleep 3; $(PIP) -e '.[bench]'; }
	@touch $@
