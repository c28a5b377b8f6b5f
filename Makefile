# Every recipe sets up what it needs in .venv; only Python 3.11+, its venv module and make are assumed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test lint check bench faults lock clean

help: ## list the recipes
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-6s %s\n", $$1, $$2}'

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

.venv/dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,demo]'
	@touch $@ .venv/demo

demo: .venv/demo ## play the mail room and write its report to rollout-demo/
	$(BIN)/rollout demo --out rollout-demo

test: .venv/dev ## all tests
	$(BIN)/python -m pytest -q -n auto --dist loadfile

lint: .venv/dev ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## everything that CI runs

bench: .venv/dev ## the table of benchmarks/
	$(BIN)/python benchmarks/run.py

faults: .venv/dev ## every point of the service fails, one by one, on both engines (half an hour)
	$(BIN)/python -m tests.faults.campaign

lock: ## write constraints.txt anew, for all platforms, without hosts
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-header --no-annotate --all-extras --upgrade pyproject.toml -o constraints.txt

clean: ## remove the environment and what tests leave behind
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis rollout-demo
