# Everything stays inside this folder: the virtual environment, temporary files and the demo's database.
VENV    := .venv
PYTHON  ?= python3
BIN     := $(VENV)/bin
DATA    ?=
export TMPDIR := $(CURDIR)/.tmp
export PIP_CACHE_DIR ?= $(CURDIR)/.tmp/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1

ENGINE  := $(wildcard core/candlemill/engine/*.py) core/candlemill/exchanges/binance/kline_csv.py
BUILT   := $(VENV)/.built
RELEASE := .release
CLOCKS  := 2026-12-31T23:58 2028-02-29T12:00 2031-06-01T00:00
EXTRAS  := embedded,functions,feed,gateway,test,bench,dataframes

# Images: `make images BUILDER=podman` (or buildah) where docker's buildx is not at hand. All build the same bits from
# the same commit: files are as old as it is.
BUILDER ?= docker
IMAGES  := gateway split execute aggregate feed db
PREFIX  ?= dev.local/candlemill
TAG     ?= dev
EPOCH   := $(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)
BASE     = $(shell sed -n 's/^ARG BASE=//p' images/Dockerfile)
BUILD-docker  := docker buildx build --output type=docker,rewrite-timestamp=true
BUILD-podman  := podman build --timestamp $(EPOCH)
BUILD-buildah := buildah build --layers --timestamp $(EPOCH)
LOCK    := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
# What the three functions behind the Broker have no use for.
LEAN    := --no-emit-package tqdm --no-emit-package tabulate --no-emit-package isal

.PHONY: help install demo demo-live test test-clocks lint simulate loadtest scaling bench bench-compare schemas reference pictures images pin locks release clean

help:
	@echo "make demo [DATA=folder]  from nothing to a backtest's result"
	@echo "make demo-live           an exchange full of faults, simulated, and a feed that keeps the store complete"
	@echo "make test                lint, types and all tests, on the compiled and the pure engine"
	@echo "make test-clocks         the tests that read the clock, at the end of 2026, on 29 February 2028 and in 2031"
	@echo "make simulate [MINUTES=10] the functions in a world where everything fails, by seed"
	@echo "make loadtest [HOST=URL]  users over REST and by events, a feed: a page of latencies, errors and costs"
	@echo "make scaling             what a sweep's parts cost, a prediction up to 10,000 executors: docs/scaling.md"
	@echo "make install             .venv with candlemill and all that use, tests and benchmarks need"
	@echo "make bench               the engine beside C, numba and vectorbt"
	@echo "make bench-compare WHEEL=FILE the tree beside the wheel of an earlier release, in turns"
	@echo "make schemas             write schema/events from the code"
	@echo "make reference           write docs/cli.md from the program; make pictures: those of the docs, with Chromium"
	@echo "make images              an image for each function; make pin: is their base the newest?"
	@echo "make locks               write images/*.txt, the hashes of their libraries"
	@echo "make release [AUDIT=skip] sdist and wheel, twice the same bits, with a bill of materials, after an audit: dist/"
	@echo "make clean               remove what the others made"

install: $(BUILT)

# The engine is compiled here, so a changed source is never shadowed by an old extension.
$(BUILT): pyproject.toml setup.py $(ENGINE)
	@mkdir -p $(TMPDIR)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@rm -rf build && find core -name '*.so' -delete
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

demo: install
	@$(BIN)/python examples/demo.py $(DATA)

demo-live: install
	@$(BIN)/python -m loadtests.exchange_simulator.demo

test: install lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -rs --named-skips tests/skips.txt

# What reads the clock, at other times; chDB's clock stays where it is. Needs faketime (Debian) and GNU date.
test-clocks: install
	@set -e; command -v faketime >/dev/null || { echo "test-clocks: not run, faketime is not installed"; exit 0; }; \
	for at in $(CLOCKS); do \
		shift=$$(printf '%+d' $$(($$(date -u -d $$at +%s) - $$(date +%s)))); \
		echo "at $$at UTC, $$shift s from now:"; \
		PYTHONPATH=$(CURDIR)/tests/faketime FAKETIME_DONT_FAKE_MONOTONIC=1 faketime -f $${shift}s \
			$(BIN)/python -m pytest -m clock -n 2 --dist loadfile -rs --named-skips tests/skips.txt; \
	done

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

simulate: install
	@$(BIN)/python -m loadtests.fault_simulation $(if $(MINUTES),--minutes $(MINUTES))

# locust is for these alone. Its extra is read from pyproject.toml: installing it by name would compile the engine again.
LOADED  := $(VENV)/.loaded
$(LOADED): $(BUILT)
	@$(BIN)/python -c "import tomllib; \
		print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['load'], sep='\n')" \
		> $(TMPDIR)/load.txt
	$(BIN)/python -m pip install --quiet --requirement $(TMPDIR)/load.txt
	@touch $@

loadtest: install $(LOADED)
	@$(BIN)/python -m loadtests $(if $(HOST),gateway --host $(HOST))

scaling: install $(LOADED)
	@$(BIN)/python -m loadtests.scaling

bench: install
	$(BIN)/python benchmarks/bench.py

# The tree beside the wheel of an earlier release: `make release` at its tag makes one.
bench-compare: install
	@test -n "$(WHEEL)" || { echo "name the wheel of an earlier release: make bench-compare WHEEL=dist/candlemill-….whl"; exit 2; }
	python3 -m venv $(RELEASE)/compare
	$(RELEASE)/compare/bin/pip install -q "$(WHEEL)[embedded]"
	$(BIN)/python benchmarks/compare.py $(RELEASE)/compare/bin/python

schemas: install
	$(BIN)/python schema/generate.py

reference: install
	$(BIN)/python -m candlemill.cli.reference > docs/cli.md

pictures: install
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/order_pictures.py

images:
	@mkdir -p $(TMPDIR)
	@set -e; for image in $(IMAGES); do \
		$(BUILD-$(BUILDER)) --file images/Dockerfile --target $$image --build-arg SOURCE_DATE_EPOCH=$(EPOCH) \
			--build-arg BASE=$(BASE) --tag $(PREFIX)/$$image:$(TAG) .; \
	done

pin:
	@echo "pinned: $(BASE)"
	@echo "newest: $$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' $(firstword $(subst @, ,$(BASE))))"

# Needs uv. Of the functions only the gateway makes tables and reports.
locks:
	$(LOCK) --allow-unsafe images/build.in -o images/build.txt
	$(LOCK) pyproject.toml $(LEAN) --extra functions --extra tracing -o images/functions.txt
	$(LOCK) pyproject.toml --extra gateway --extra report --extra tracing -o images/gateway.txt
	$(LOCK) pyproject.toml --extra feed -o images/feed.txt
	$(LOCK) pyproject.toml --extra embedded -o images/db.txt

# The tools have an environment of their own: the wheel is built with what images/build.txt pins by hash. Licences are
# read from the environment that the tests run in.
$(RELEASE)/.made: pyproject.toml images/build.txt
	@mkdir -p $(TMPDIR)
	@rm -rf $(RELEASE) && $(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --require-hashes --requirement images/build.txt
	@$(RELEASE)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["release"], sep="\n")' > $(TMPDIR)/release.in
	$(RELEASE)/bin/python -m pip install --quiet --requirement $(TMPDIR)/release.in
	@touch $@

release: install $(RELEASE)/.made
ifeq ($(AUDIT),skip)
	@echo "release: NOT AUDITED, as was asked for" >&2
else
	@$(RELEASE)/bin/python -m release.audit
endif
	@$(RELEASE)/bin/python -m release.build dist
	@$(RELEASE)/bin/pip-licenses --python $(BIN)/python --from mixed --with-system --format json > $(TMPDIR)/licences.json
	@$(RELEASE)/bin/python -m release.sbom $(TMPDIR)/licences.json dist
	@cd dist && sha256sum *.whl *.tar.gz *.json LICENCES.txt > SHA256SUMS && cat SHA256SUMS

clean:
	rm -rf $(VENV) $(RELEASE) dist .tmp .demo build core/*.egg-info
	find core -name '*.so' -delete
