# Every recipe sets up what it needs in .venv; only Python 3.11+, its venv module and make are assumed.
PYTHON ?= python3
BIN := .venv/bin
COMMA := ,

WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)# one more than cores: tests wait for disks and processes
SCRATCH := $(if $(shell test -w /dev/shm && echo yes),/dev/shm,/tmp)# tests make thousands of small databases
PYTEST := TMPDIR=$${TMPDIR:-$(SCRATCH)} $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal
TRIES :=# --reruns 1: a second try is named in the summary; more than three fail the run
UNUSED := --snapshot-warn-unused# some snapshots belong to tests of other parts; test-all is strict
unexport PYTHONDONTWRITEBYTECODE # workers and the processes of tests start twice as fast with it

.PHONY: help demo demos ratchets test test-sample test-all lint lowest check bench curves spark faults coverage demo-soak docs lock bom advisories clean

help: ## list the recipes
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# uv takes a third of pip's time and asks the index that pip is set to; where it can't, pip installs.
# Tests look for yanked versions in what the installer says.
define install
	@echo "Installing into .venv: about a minute"
	@$(PYTHON) -m venv .venv
	@index=$$($(BIN)/python -m pip config get global.index-url 2>/dev/null); index=$${PIP_INDEX_URL:-$$index}; \
	{ $(BIN)/python -m pip install --quiet --disable-pip-version-check uv && \
	  $(BIN)/uv pip install --compile-bytecode $${index:+--default-index "$$index"} -c constraints.txt -e '.[$(1)]'; } \
	  2>.venv/install-warnings.txt || \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]' \
	  2>>.venv/install-warnings.txt || { cat .venv/install-warnings.txt; exit 1; }
endef

.venv/demo: pyproject.toml constraints.txt
	$(call install,demo)
	@touch $@

.venv/dev: pyproject.toml constraints.txt
	$(call install,dev$(COMMA)demo)
	@touch $@ .venv/demo

demo: .venv/demo ## play the mail room, write its report to rollout-demo/, prepare the live demo there
	$(BIN)/rollout demo --out rollout-demo
	$(BIN)/python -m api.demo rollout-demo

test: .venv/dev ## the fast tests, to run while you work: at most five minutes on two cores
	$(PYTEST) -m fast $(UNUSED) $(TRIES)

test-sample: .venv/dev ## of the other parts what this commit draws: at most ten minutes
	ROLLOUT_TEST_SAMPLE=$${ROLLOUT_TEST_SAMPLE:-$$(git rev-parse HEAD)} $(PYTEST) -m "not fast" $(UNUSED) $(TRIES)

test-all: TRIES := --reruns 1
test-all: .venv/dev ## every part: both engines, exhaustive walks, simulations, browser, faults
	$(PYTEST) $(TRIES)

lint: .venv/dev ## ruff, mypy, import contracts, names, measured outcomes older than the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_names.py
	$(BIN)/python tools/ratchets.py >/dev/null
	$(BIN)/python -m tests.faults.outcomes

lowest: ## the fast tests on the oldest versions that pyproject.toml allows, in an environment of their own
	$(PYTHON) -m venv .venv/lowest
	.venv/lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	@index=$$(.venv/lowest/bin/python -m pip config get global.index-url 2>/dev/null); index=$${PIP_INDEX_URL:-$$index}; \
	.venv/lowest/bin/uv pip install --python .venv/lowest/bin/python --quiet $${index:+--default-index "$$index"} --resolution lowest-direct -e '.[dev]'
	$(subst $(BIN),.venv/lowest/bin,$(PYTEST)) -m fast -W ignore::DeprecationWarning --ignore tests/tools/test_dependencies.py

check: lint test-all ## everything, to run before an issue is called resolved

bench: .venv/dev ## run the benchmarks, about 20 minutes, into build/bench.md and bench.json
	$(BIN)/python benchmarks/run.py --out build

curves: .venv/dev ## measure how costs grow with size, about 5 minutes and 0.8 GB of disk, into build/curves.json
	$(BIN)/python benchmarks/curves.py --out build

spark: .venv/dev ## count on Spark, which takes 500 MB and needs a Java runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pyspark>=4'
	ROLLOUT_TEST_SPARK=1 $(BIN)/python -m pytest -q -n 0 -m slow tests/features/lake/test_spark.py

faults: .venv/dev ## disks, servers, networks and clocks fail, processes are killed, then every point fails once (hours)
	$(BIN)/python -m tests.faults.cases
	$(BIN)/python -m tests.faults.mends
	$(BIN)/python -m tests.faults.kills --write
	$(BIN)/python -m tests.faults.campaign

coverage: .venv/dev ## how often intervals cover what is true, as a table (docs/long-runs.toml)
	PYTHONPATH=. $(BIN)/python benchmarks/coverage.py

demo-soak: .venv/dev ## ten minutes signed in to the live demo (docs/long-runs.toml)
	$(BIN)/python -m tests.first_hour.soak

ratchets: .venv/dev ## print every count of tools/ratchets.toml beside its limit
	PYTHONPATH=. $(BIN)/python tools/ratchets.py --run

demos: .venv/dev ## ten seeds of each example, then the tables in docs/examples (12 minutes of CPU)
	$(BIN)/python -m tests.examples.seeds
	$(BIN)/python -m tests.examples.pages

docs: .venv/dev ## build the site of docs/ in out/site: open out/site/index.html
	PYTHONPATH=. $(BIN)/zensical build --strict

lock: ## write constraints.txt anew, for all platforms, without hosts
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-header --no-annotate --all-extras --upgrade pyproject.toml -o constraints.txt

bom: .venv/dev ## what is installed, as a CycloneDX bill of materials: out/bom.json
	$(BIN)/python tools/bill_of_materials.py out/bom.json

advisories: ## are locked versions vulnerable or yanked? Asks services on the network: not in .ci/run
	$(PYTHON) -m venv .venv/audit && mkdir -p out
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	.venv/audit/bin/python -m pip install --dry-run --no-deps --ignore-installed -r constraints.txt >out/resolved.txt 2>&1
	! grep -i 'yanked version' out/resolved.txt
	.venv/audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt

clean: ## remove the environment and what tests leave behind
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis rollout-demo
