# make demo   everything on this machine: broker, worker, a shop, shoppers, live lists, a first model
# make test   every test, on every broker that can be had
# make check  lint, format, types, import contracts
# make bench  the figures of the README (ARGS=stream, latency, storm, storefront, restore, swap, quality …)
# make help   this list

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Tests wait for brokers more than they compute: one process more than the smallest machine has cores.
PROCESSES ?= 3

.PHONY: help demo test check format bench clean
help:
	@sed -n 's/^# make/make/p' Makefile

$(VENV)/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("mmrec-stream needs Python 3.11 or newer: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev,bench]'
	@touch $@

demo: $(VENV)/.run
	$(BIN)/mmrec demo $(ARGS)

test: $(VENV)/.dev
# Pages are tested in a process of their own: the browser's driver keeps an event loop running beside the tests. Files
# go out in the order of their names, as those with the fewest tests, which would come last, take the longest.
ifeq ($(strip $(ARGS)),)
	$(BIN)/pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder --ignore=tests/storefront/browser
	$(BIN)/pytest --numprocesses $(PROCESSES) --dist loadfile tests/storefront/browser
else
	$(BIN)/pytest $(ARGS)
endif

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) var build dist
