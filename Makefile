# make help lists what people do here; every target does its own set-up.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UP     ?=

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/run.stamp: requirements/run.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Say: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	@echo "==> installing the programs into $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt requirements/dashboards.txt $(VENV)/run.stamp
	@echo "==> installing what tests, linters and benchmarks need (once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@# without its dependencies, which want Kerberos' C libraries for a part that we don't use
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dashboards.txt
	@touch $@

run: $(VENV)/run.stamp ## start everything: Kafka, PostgreSQL, five services, the monitor, demo orders
	@exec $(BIN)/order-services up $(UP)

test: $(VENV)/dev.stamp ## run all tests, fast ones first
	@exec $(BIN)/pytest --numprocesses=2 $(PYTEST)

test-heavy: $(VENV)/dev.stamp ## run the tests that take minutes each and that make test leaves out
	@exec $(BIN)/pytest -m heavy --numprocesses=2 $(PYTEST)

check: $(VENV)/dev.stamp ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dashboards: $(VENV)/dev.stamp ## rebuild the dashboards' JSON from its YAML
	@$(BIN)/python -m dashboards

requirements: $(VENV)/dev.stamp ## pin the newest versions, with hashes
	@for set in "run.txt requirements/run.in" "dev.txt --extra otlp --extra msk requirements/run.in requirements/dev.in"; do \
	  set -- $$set; out=$$1; shift; \
	  $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-annotate --custom-compile-command "make requirements" \
	    --extra local --output-file requirements/$$out pyproject.toml "$$@"; done
	@$(BIN)/uv pip compile --quiet --upgrade --no-deps --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make requirements" \
	  --output-file requirements/dashboards.txt requirements/dashboards.in
	@# the image's set: the same versions, without the embedded broker and database
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make requirements" \
	  --constraint requirements/run.txt --extra services --extra otlp --output-file requirements/services.txt pyproject.toml requirements/run.in

bench: $(VENV)/dev.stamp ## measure what we claim; BENCH="order_crash --quick" runs one
	@set -e; if [ -n "$(BENCH)" ]; then exec $(BIN)/python -m benchmarks.$(BENCH); fi; \
	for file in benchmarks/monitor_poll.py benchmarks/monitor_large.py benchmarks/monitor_scrape.py benchmarks/monitor_api.py benchmarks/monitor_page.py benchmarks/monitor_time_lag.py benchmarks/scaling_simulation.py benchmarks/order_*.py; do \
	  name=$$(basename $$file .py); echo "==> make bench BENCH=$$name"; $(BIN)/python -m benchmarks.$$name; done

kubernetes: $(VENV)/dev.stamp ## rebuild what the manifests and the chart have from alerts, dashboards and roles
	@$(BIN)/python -m scripts.kubernetes

docs: $(VENV)/dev.stamp ## write docs/{metrics,alerts,api,configuration,states,versions}.md from the declarations
	@$(BIN)/python -m monitor.exposition.docs > docs/metrics.md
	@$(BIN)/python -m tests.support.alert_table > docs/alerts.md
	@$(BIN)/python -m scripts.configuration > docs/configuration.md
	@$(BIN)/python -m scripts.api > docs/api.md
	@$(BIN)/python -m tests.states.table > docs/states.md
	@$(BIN)/python -m tests.support.versions > docs/versions.md

pictures: $(VENV)/dev.stamp ## draw the pictures of the README from a running system (needs chromium)
	@$(BIN)/python -m scripts.page_pictures
	@$(BIN)/python -m scripts.pictures

clean-data: ## forget the topics, orders and logs of `make run`
	rm -rf .local/data .local/logs

.PHONY: help run test test-heavy check format dashboards kubernetes requirements bench docs pictures clean-data
