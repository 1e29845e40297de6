# `make` alone lists what there is. Every target sets up what it needs first.
.DEFAULT_GOAL := help
.PHONY: help setup setup-tests setup-long run test unit spark integration faults long soak e2e check format wheel lock clean

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
ARGS ?=
MINUTES ?= 60
KILLS ?= 50

help:  ## list what there is to run
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## make .venv: packages, jars, the project (skipped while nothing changed)
	@bash scripts/setup.sh

setup-tests: setup  ## the same, and database servers for the tests
	@bash scripts/setup.sh tests

setup-long: setup  ## the same, and Azure's storage emulator for `make long` (wants Node.js)
	@bash scripts/setup.sh tests long

run: setup  ## broker, streams, 100,000 events, reconcile, audit, summary (ARGS="--events 20000")
	@$(BIN)/headwater run $(ARGS)

test: setup-tests  ## all tests, cheapest first, and all checks beside the first of them
	@$(MAKE) --no-print-directory check > .venv/check.log 2>&1 & check=$$!; \
	$(PYTEST) $(ARGS); tests=$$?; wait $$check; checks=$$?; cat .venv/check.log; exit $$((tests | checks))

unit: setup  ## tests without a JVM, in seconds
	@$(PYTEST) -m unit $(ARGS)

spark: setup  ## tests on one shared Spark session
	@$(PYTEST) -m spark $(ARGS)

integration: setup-tests  ## tests against a real broker and real databases
	@$(PYTEST) -m integration $(ARGS)

faults: setup-tests  ## tests that kill what runs (all of them: ARGS="-m 'long or not long' tests/faults")
	@$(PYTEST) -m faults $(ARGS)

long: setup-long  ## what `make test` has not the time for: most faults, and more
	@$(PYTEST) -m long $(ARGS)

soak: setup-tests  ## an hour under fire, load with 50 kills and all faults; a report (MINUTES=5 KILLS=3)
	@$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) --kills $(KILLS) $(ARGS)

e2e: setup-tests  ## the whole way, as a user goes it
	@$(PYTEST) -m e2e $(ARGS)

check: setup  ## ruff, strict mypy, contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@$(BIN)/headwater contracts check

format: setup  ## ruff's fixes and format
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

wheel: setup  ## dist/headwater-*.whl
	@$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist . && ls dist/*.whl

lock: setup  ## requirements/*.lock from requirements/*.in (needs uv on the PATH)
	@for name in build local producer spark; do \
	  uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	    --no-emit-index-url --no-emit-find-links requirements/$$name.in -o requirements/$$name.lock > /dev/null; \
	done

clean:  ## remove .venv and build leftovers; the data folder stays
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
