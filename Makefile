# Everything here works on a machine that has Python >= 3.11, make and a package index.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
RUN := .venv/.installed
DEV := .venv/.installed-dev

.PHONY: help run test install lint format conformance replicas fuzz bench lock clean

help: ## show this
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: $(RUN) ## serve on http://127.0.0.1:$(PORT) with SQLite and disk storage under ./data
	@SAASBASE_ACTOR__TRUSTED_PROXIES="$${SAASBASE_ACTOR__TRUSTED_PROXIES-127.0.0.1/32,::1/128}" $(BIN)/saasbase serve --port $(PORT)

test: $(DEV) ## run the whole test suite, on SQLite and on a real PostgreSQL
	@$(BIN)/python -m pytest -n auto

install: $(RUN) ## create .venv with the locked dependencies

lint: $(DEV) ## format check, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV) ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

conformance: $(DEV) ## black-box checks of the HTTP contract against a started server
	@bash .ci/conformance

replicas: $(DEV) ## the same against two processes behind nginx, with PgBouncer, PostgreSQL and Swift
	@$(BIN)/python -m tests.support.with_replicas $(BIN)/python tests/conformance/contract_scenarios.py

fuzz: $(DEV) ## what the OpenAPI document allows and forbids, sent to a started server by schemathesis
	@$(BIN)/python -m tests.fuzz

bench: $(DEV) ## measure beside the reference and the floor, into benchmarks/RESULTS.md (ONLY=help lists the parts; SMOKE=1 only sees that it runs)
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(REPEAT),--repeat $(REPEAT)) \
		$(if $(FOLDER),--folder $(FOLDER)) $(if $(OUTPUT),--output $(OUTPUT)) $(if $(S3),--s3) $(if $(SMOKE),--smoke)

lock: $(DEV) ## renew the lock files from pyproject.toml
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header pyproject.toml --extra otel -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header pyproject.toml --group dev -o requirements-dev.lock -c requirements.lock

clean: ## remove .venv and caches; data stays
	rm -rf .venv .reference .reference.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .venv

$(RUN): requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing locked dependencies into .venv ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): requirements-dev.lock $(RUN)
	@echo "installing locked development dependencies into .venv ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
