# The commands of CI, by name. `make setup` first.
PYTHON := .venv/bin/python

.PHONY: setup fast test lint format types architecture build package

setup:
	python3 -m venv .venv
	.venv/bin/pip install -q -c constraints.txt -e '.[dev]'

fast:
	$(PYTHON) -m pytest -q -m fast -n 3 --dist loadfile

test:
	$(PYTHON) -m pytest -q -n 3 --dist loadfile

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types:
	$(PYTHON) -m mypy

architecture:
	$(PYTHON) -m tests.support.architecture

build:
	$(PYTHON) -m build --no-isolation

package:
	.ci/package $(PYTHON)
