# Everything is done with the tools of .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all bench check format clean help

help:
	@echo "make demo      compile the shipped model for this machine and for armv8, run it, verify it"
	@echo "make test      the test suite"
	@echo "make test-all  the test suite with its slow part"
	@echo "make bench     speed against onnxruntime and the limits of this machine"
	@echo "make check     ruff, mypy --strict"

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py

test: $(VENV)/developing
	$(BIN)/python -m pytest -n auto -m "not slow"

test-all: $(VENV)/developing
	$(BIN)/python -m pytest -n auto

bench: $(VENV)/developing
	$(BIN)/python -m tests.bench

check: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@$(PYTHON) -c "import ensurepip" 2>/dev/null || \
		{ echo "Python's ensurepip is missing: on Debian, apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/developing: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[cross,dev]"
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build dist *.egg-info out .mypy_cache .ruff_cache .pytest_cache
