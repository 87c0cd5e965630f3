# Everything stays inside this folder: the virtual environment, temporary files and the demo's database.
VENV    := .venv
PYTHON  ?= python3
BIN     := $(VENV)/bin
DATA    ?=
export TMPDIR := $(CURDIR)/.tmp
export PIP_CACHE_DIR ?= $(CURDIR)/.tmp/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1

ENGINE  := $(wildcard core/candlemill/engine/*.py)
BUILT   := $(VENV)/.built
EXTRAS  := embedded,functions,feed,test,bench,dataframes

.PHONY: help install demo demo-live test lint simulate bench schemas clean

help:
	@echo "make demo [DATA=folder]  from nothing to a backtest's result"
	@echo "make demo-live           an exchange full of faults, simulated, and a feed that keeps the store complete"
	@echo "make test                lint, types and all tests, on the compiled and the pure engine"
	@echo "make simulate [MINUTES=10] the functions in a world where everything fails, by seed"
	@echo "make install             .venv with candlemill and all that use, tests and benchmarks need"
	@echo "make bench               the engine beside C, numba and vectorbt"
	@echo "make schemas             write schema/events from the code"
	@echo "make clean               remove what the others made"

install: $(BUILT)

# The engine is compiled here, so a changed source is never shadowed by an old extension.
$(BUILT): pyproject.toml setup.py $(ENGINE)
	@mkdir -p $(TMPDIR)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@rm -rf build core/*.so core/candlemill/engine/*.so
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

demo: install
	@$(BIN)/python benchmarks/demo.py $(DATA)

demo-live: install
	@$(BIN)/python -m loadtests.exchange.demo

test: install lint
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/python -m mypy

simulate: install
	@$(BIN)/python -m loadtests.simulation $(if $(MINUTES),--minutes $(MINUTES))

bench: install
	$(BIN)/python benchmarks/bench.py

schemas: install
	$(BIN)/python schema/generate.py

clean:
	rm -rf $(VENV) .tmp .demo build core/*.egg-info core/*.so core/candlemill/engine/*.so
