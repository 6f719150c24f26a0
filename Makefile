# Everything starts here. `make` alone lists the targets.
PYTHON ?= python3.11
BIN := .venv/bin
LOCUST := .cache/locust/bin/locust
# A file's tests stay together: they share a database. At most four at a time: several start servers.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile
# Each is a thread; more of them would only wait for each other.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full lint type format bench bench-load eval eval-gate writer lock prompts-lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv from the lock file
	@$(PYTHON) requirements/setup.py

demo: setup ## From nothing to printed profiles on MovieLens-100K
	@$(BIN)/limner demo --setup-report .venv/setup.json

test: setup ## Unit, contract, property and integration tests, one with a real engine
	@$(TESTS) -m "not slow" $(PARALLEL)

test-full: setup ## All tests, also the long ones
	@$(TESTS) $(PARALLEL)

lint: setup ## ruff and the arrows between the packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

type: setup ## mypy, strict
	@$(BIN)/mypy

format: setup ## Format the code
	@$(BIN)/ruff format .

bench: setup ## Figures, each beside its baseline (after `make demo`)
	@$(BIN)/python -m tests.benchmarks.run --out .limner/bench.json

bench-load: setup ## Reads that the server answers in a second (after `make demo`)
	@test -x $(LOCUST) || { $(PYTHON) -m venv .cache/locust && .cache/locust/bin/pip install -q locust==2.47.0; }
	@$(BIN)/python -m tests.benchmarks.load --locust $(LOCUST) --out .limner/load.json

eval: setup ## Measure the verifier on labelled sentences
	@$(BIN)/limner eval verifier tests/verifier/heldout

eval-gate: setup ## A small evaluation on MovieLens-100K against the committed figures
	@$(BIN)/python -m tests.gate.run

writer: setup ## Teach the small writer by the committed recipe (hours on two cores)
	@bash agent/adapters/limner-135m.sh

lock: ## Pin the versions of the present environment
	@$(BIN)/python requirements/freeze.py > requirements/cpu.lock

prompts-lock: ## Note the hashes of the prompt files (a released version never changes)
	@$(BIN)/python -c 'import hashlib, json, pathlib; p = pathlib.Path("prompts"); (p / "lock.json").write_text(json.dumps({f"{f.parent.name}/{f.stem}": hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(p.glob("*/v*.md"))}, indent=2) + "\n")'

clean: ## Remove what the tools leave behind (not .venv, not .limner)
	@rm -rf .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
