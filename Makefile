# make run: the whole pipeline on a small synthetic market. make test: lint and tests. Both install into .venv first, once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := run
.PHONY: run test lint slow bench install clean

run: install
	@$(BIN)/rlaif pipeline --scale smoke

test: lint
	@$(BIN)/python -m pytest -q

lint: install
	@$(BIN)/ruff check --quiet .
	@$(BIN)/pyright --pythonpath $(BIN)/python

# What takes minutes: learning curves, calibration, kill loops. One file: `.venv/bin/pytest -m slow tests/<file>`.
slow: install
	@$(BIN)/python -m pytest -q -m slow

bench: install
	@$(BIN)/python -m benchmarks.peers
	@$(BIN)/python -m benchmarks.all

install: $(INSTALLED)

# torch goes first and alone, so that the build which suits the machine (say, a CPU wheel from PIP_FIND_LINKS) is the one
# that all the rest is resolved against.
# granite-tsfm 0.3.11 pins torch<2.12 and scikit-learn<1.8 but runs with ours; resolving it would fall back to 0.3.2, which
# downgrades transformers. Hence --no-deps, and by hand the three of its dependencies that nothing else brings.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python 3.11 or later is needed; $(PYTHON) is {sys.version.split()[0]}. Try make PYTHON=...")'
	@echo "installing into $(VENV): some minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) torch==2.13.0
	@$(PIP) -c constraints.txt --editable '.[dev]' datasets deprecated einops
	@$(PIP) --no-deps granite-tsfm==0.3.11
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
