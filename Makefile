# The verbs a user learns. UNTIL=YYYY-MM-DD stops the clock of `make run` there; SCALE is how many times the customers `make bench` takes,
# PROCESSES how many tests run at a time (2; a file is one process's).
PYTHON ?= python3.11
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
ENGINES ?= $(HOME)/.cache/pipeline-assets
engine = $(ENGINES)/$(1)-$(shell sha256sum requirements-$(1).lock | cut -c1-12)
DBT_SOURCES := $(shell find dbt -name '*.sql' -o -name '*.yml' | grep -v dbt/target)

.PHONY: setup run test check dev serve bench chaos soak lock servers engines engines-snowflake engines-spark engines-postgres

setup: .venv/.installed dbt/target/manifest.json

run: setup
	$(BIN)/pipeline-assets run $(if $(UNTIL),--until $(UNTIL))

test: setup
	$(BIN)/python -m pytest -n $(or $(PROCESSES),2) --dist loadfile

check: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

dev: setup
	$(BIN)/pipeline-assets dev

serve: setup
	$(BIN)/python -O -m pipeline_assets.serving

bench: setup
	$(BIN)/python -m benchmarks.scale --scale $(or $(SCALE),1) && $(BIN)/python -m benchmarks.report

chaos: setup # needs root, or sudo without a password, for a disk that becomes full
	$(BIN)/python -W ignore -m pipeline_assets_tests.chaos && $(BIN)/python -m pytest pipeline_assets_tests/chaos

soak: setup # an hour with everything switched on and nobody touching it; MINUTES=6 is a look
	$(BIN)/python -m benchmarks.soak $(if $(MINUTES),--minutes $(MINUTES) --out /tmp/soak)

servers: setup # real Redis, PostgreSQL, Prometheus, Alertmanager, wrk: Debian packages that .ci/run installs
	$(BIN)/python -m pytest -n $(or $(PROCESSES),2) --dist loadfile pipeline_assets_tests/servers

lock: # needs uv
	{ echo '# Every package pinned with hashes, for Python 3.11 on Linux. Written by `make lock` (CONTRIBUTING.md).'; uv pip compile -q --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links --no-header --extra sample --extra test pyproject.toml; } > requirements.lock.new && mv requirements.lock.new requirements.lock

# Engines whose packages do not go with ours: an environment each, made from its own lock and kept until the lock changes.
engines: engines-snowflake engines-spark engines-postgres

engines-snowflake: $(call engine,snowflake)/.installed
	$(<D)/bin/python -m pytest pipeline_assets_tests/sources/test_source_contract.py

# Marts on other engines, equal to DuckDB's. FIRST and LAST choose the days, WRITE=--write keeps the figures; LAKE takes rows that were validated already.
portable = $(BIN)/python -W ignore -m pipeline_assets_tests.engines.portable_marts $(if $(FIRST),--first $(FIRST)) $(if $(LAST),--last $(LAST)) $(if $(LAKE),--lake $(LAKE)) $(WRITE)

engines-spark: setup $(call engine,spark)/.installed
	$(portable) spark --environment $(dir $(call engine,spark)/.)

engines-postgres: setup
	$(portable) postgres

$(ENGINES)/%/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements-$(firstword $(subst -, ,$*)).lock
	touch $@

# pip compiles bytecode as it installs; the second line compiles what the API imports under -O (its start takes seconds less).
.venv/.installed: requirements.lock setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	$(BIN)/python -O -c "import pipeline_assets.serving.app, feast, uvicorn, lightgbm"
	touch $@

dbt/target/manifest.json: .venv/.installed $(DBT_SOURCES)
	cd dbt && DO_NOT_TRACK=1 ../$(BIN)/dbt parse --quiet
