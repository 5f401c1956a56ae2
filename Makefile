# Everything runs in .venv, which the first target that needs it makes. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup run mlflow test check chaos bench growth clean
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0
# where it is set, each of the many processes of a start compiles all of Ray anew: 3 s of a core each
unexport PYTHONDONTWRITEBYTECODE

PY := .venv/bin/python
READY := .venv/ready

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 14

setup: $(READY)  ## make .venv with everything in it

$(READY): uv.lock pyproject.toml
	@.ci/setup && touch $@

run: $(READY)  ## start everything; Ctrl-C stops it
	@exec .venv/bin/crm up --foreground

mlflow: $(READY)  ## open MLflow's page on the running service's store; Ctrl-C ends it
	@exec .venv/bin/crm mlflow

test: $(READY)  ## the whole test suite
	@$(PY) -m pytest tests --servers=both

check: lint  ## lint, types, import contracts, unit tests
	@$(PY) -m pytest tests/unit

lint: $(READY)  ## lint, types, import contracts
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports

chaos: $(READY)  ## the long fault experiments, real data in two time zones, searches from all seeds
	@$(PY) -m pytest tests/chaos tests/e2e/test_two_time_zones.py \
	  tests/integration/test_bustabit_clusters.py tests/integration/test_planted_groups.py --fire=long

bench: $(READY)  ## the benchmarks, each beside its reference; writes docs/benchmarks.md
	@$(PY) -m bench

growth: $(READY)  ## how cost grows with owners, players and events; the same page
	@$(PY) -m bench growth

clean:  ## remove .venv, the caches and build output; var/ (your data) stays
	@rm -rf .venv .venv-mlflow .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
