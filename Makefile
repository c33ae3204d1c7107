# Stockcast. `make help` says what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python
STAMP := .venv/.installed

.PHONY: help setup demo live screenshots test fuzz test-quick lint format bench soak nightly lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## virtual environment, jars, console script

$(STAMP): requirements.lock setup.cfg pyproject.toml conf/ivy/ivy.xml conf/ivy/jars.sha256 conf/spark-defaults.conf conf/log4j2.properties
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(RUN) || { echo "creating .venv ..."; $(PYTHON) -m venv .venv; }
	@echo "installing the pinned Python packages (a few minutes the first time) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@$(RUN) -m pipelines.operations.jars
	@touch $@

demo: setup ## a fresh chain, from events to forecasts, flags and orders; ends by itself
	@$(BIN)/stockcast demo

live: setup ## the same chain kept running with its dashboard, until Ctrl-C; orders worth more than APPROVAL=300 wait
	@$(BIN)/stockcast live --set orders.approval_value=$(or $(APPROVAL),300)

screenshots: setup ## of every page, from the dashboard on the home of `make live` or `make demo`; to docs/images
	@$(RUN) -m docs.screenshots

nightly: setup ## what the scheduler calls: aggregate, train, promote, plan
	@$(RUN) jobs/nightly.py

test: setup ## all tests, with a real broker, Spark and MLflow
	@$(BIN)/pytest tests

fuzz: setup ## mutated messages through the ingest code: MESSAGES=200000 SEED=1
	@FUZZ_MESSAGES=$(or $(MESSAGES),200000) FUZZ_SEED=$(or $(SEED),1) $(BIN)/pytest tests/unit/test_fuzz_ingest.py

test-quick: setup ## the tests that need neither Spark nor a broker
	@$(BIN)/pytest tests/unit

crash-test: setup ## kill -9 at every named point, then faults that must be found; KILLS=200 SEED=7
	@$(RUN) -m tests.crash $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

lint: setup ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: setup ## let ruff mend what it can
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: setup ## measure against the peers; tables go to bench/RESULTS.md
	@$(RUN) -m bench

soak: setup ## MINUTES=30 RATE=500 SEED=1: a steady load with restarts; time, memory, disk must stay bounded
	@$(RUN) -m tests.soak --minutes $(or $(MINUTES),30) --rate $(or $(RATE),500) --seed $(or $(SEED),1)

lock: ## pin the packages named in setup.cfg anew (needs uv)
	@uv pip compile setup.cfg --extra dev --override conf/lock-overrides.txt --generate-hashes --universal --python-version 3.11 --no-header --no-annotate -o requirements.lock
	@sed -i '1i # Every package of the runtime and of development, pinned and hashed. Made by `make lock` from setup.cfg.' requirements.lock

clean: ## remove what setup and the demo made
	@rm -rf .venv .jars .stockcast build *.egg-info
