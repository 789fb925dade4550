# Everything a developer types. Each target makes its own .venv first: with uv where it is there, else with pip.

PORT ?= 8000
HOST ?= 127.0.0.1
URL ?=
ARGS ?=
UV ?= $(shell command -v uv 2>/dev/null)
PYTHON ?=
export UV PYTHON

BIN := .venv/bin
# A stamp stands for what was installed; it is older than pyproject.toml when that must be done again.
FOR_DEMO := .venv/installed-demo
FOR_DEV := .venv/installed-dev

.DEFAULT_GOAL := help
.PHONY: help demo test check bench clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(FOR_DEMO) ## Serve the demo with a worker inside (PORT=8000 HOST=127.0.0.1 URL=sqlite:///jobs.db)
	@exec $(BIN)/oncue demo --host $(HOST) --port $(PORT) $(if $(URL),--url '$(URL)') $(ARGS)

test: $(FOR_DEV) ## Run the whole suite (ARGS="-k lease", ARGS=--soak for the long ones)
	@$(BIN)/python -m pytest $(ARGS)

check: $(FOR_DEV) ## Lint, format, types, and which way imports point
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy oncue tests $(wildcard benchmarks)
	$(BIN)/lint-imports

bench: $(FOR_DEV) ## Measure how many jobs a second (ARGS=--help for its options)
	@exec $(BIN)/python benchmarks/run.py $(ARGS)

clean: ## Remove .venv, caches and builds
	rm -rf .venv dist build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(FOR_DEMO): pyproject.toml scripts/install
	@scripts/install demo
	@touch $@

$(FOR_DEV): pyproject.toml scripts/install
	@scripts/install dev
	@touch $(FOR_DEMO) $@
