PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint clean

demo: $(STAMP)  ## train, export, embed and evaluate on the synthetic world
	$(BIN)/sa-deploy demo --out out/demo

test: $(STAMP) lint  ## linters, types, floors, doctests and tests
	$(BIN)/pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[cpu,train,export,dev]'
	touch $@

clean:
	rm -rf $(VENV) out runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
