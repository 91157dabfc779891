# `make demo` and `make test` on a machine with Python 3.11 or newer (pip and venv) and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# without compilation of all modules: Python compiles those that are imported
INSTALL = $(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test coverage lint types docs outputs site release-check clean

demo: $(VENV)/.installed
	$(BIN)/angulus demo

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --junitxml=build/tests.xml

# the tests, and which lines they do not reach; a step of a loss takes almost half as long again
coverage:
	PYTEST_ADDOPTS=--cov=src/angulus $(MAKE) test

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# the pictures of the docs, the table of tested losses from the results of the last `make test`, the papers' tables and claims, the loops
docs: $(VENV)/.installed-dev
	$(BIN)/python docs/figures.py
	$(BIN)/python docs/tested.py build/tests.xml
	$(BIN)/angulus reproduce --table docs/reproduction.md --results docs/results
	$(BIN)/python docs/claims.py
	$(BIN)/python docs/loops.py

# runs the notebook and the console blocks of the docs, and stores what they print and draw; tests compare it
outputs: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python docs/notebook.py
	OMP_NUM_THREADS=1 $(BIN)/python docs/console.py

# the docs as a site in site/; index.html opens from disk
site: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	! grep -rlE '<(script|link rel="stylesheet"|img)[^>]+(src|href)="https?:' site # nothing is fetched from elsewhere

# builds the sdist and the wheel, checks both, and installs and runs the wheel in an environment of its own; with RELEASE=1 it
# refuses a checkout that is not a tagged release, but the files to upload are those of .ci/release-check (RELEASING.md)
release-check:
	PYTHON=$(PYTHON) RELEASE=$(RELEASE) .ci/release-check

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
