# One command for each thing; `make help` lists them.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := test
STAMP := $(VENV)/.installed-$(EXTRAS)

.DEFAULT_GOAL := help
.PHONY: help demo test lint fmt bench test-aws clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: EXTRAS := demo
demo: ## embedded AWS, example app, proxy, and a sign-in through them (ONCE=1 ends after it)
	@$(MAKE) --no-print-directory setup EXTRAS=demo
	@$(BIN)/iam-auth-proxy demo $(if $(ONCE),--once)

test: ## everything that must hold: lint, types, contracts, tests with coverage
	@$(MAKE) --no-print-directory setup EXTRAS=test
	@PYTHON=$(BIN)/python sh tests/run

lint: ## ruff, mypy --strict and the import contracts alone
	@$(MAKE) --no-print-directory setup EXTRAS=test
	@PYTHON=$(BIN)/python sh tests/run lint

fmt: ## format and sort imports
	@$(MAKE) --no-print-directory setup EXTRAS=test
	@$(BIN)/ruff check --fix-only -q . ; $(BIN)/ruff format -q .

bench: ## speed and size against proxy.py, nginx and the direct path
	@$(MAKE) --no-print-directory setup EXTRAS=test
	@$(BIN)/python -m tests.bench

test-aws: ## about 40 calls against a real AWS account (ACCOUNT=its id); never run by CI
	@$(MAKE) --no-print-directory setup EXTRAS=test
	@$(BIN)/python -m tests.real_aws $(if $(ACCOUNT),--yes-create-in $(ACCOUNT))

clean: ## remove what these commands made
	rm -rf $(VENV) .venv-bench dist build *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: setup
setup:
	@sh .ci/setup "$(PYTHON)" "$(VENV)" "$(EXTRAS)"
