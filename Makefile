# make demo: train and evaluate on a made-up world (minutes). make test: the whole test suite. Both install first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test test-newest lint docs clean

demo: .venv/installed
	$(BIN)/python quickstart.py

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# The newest versions that the bounds of pyproject.toml allow, in an environment of their own.
test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --upgrade --editable '.[dev]'
	.venv-newest/bin/python -m pytest --numprocesses auto --dist worksteal

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The pages of docs/ as a site in runs/docs; links and anchors that lead nowhere stop it.
docs:
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet 'mkdocs-material>=9.7,<10'
	.venv-docs/bin/mkdocs build --strict

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-newest .venv-docs runs
