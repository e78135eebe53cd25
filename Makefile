PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
# Bytecode is written as modules are imported: most of torch never is.
INSTALL := $(BIN)/pip install -q --no-compile -c constraints.txt

.PHONY: demo test together lint clean

demo: $(RUN)  ## train, export, embed and evaluate on the synthetic world
	$(BIN)/sa-deploy demo --out out/demo

test: $(DEV)  ## linters, types, floors, doctests and tests
	$(MAKE) -j2 lint together
	$(BIN)/pytest -m alone $$(grep -rl pytest.mark.alone tests)

together: $(DEV)  ## two tests at a time, a thread each
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone and not soak"

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

$(RUN): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[cpu,train,export]'
	touch $@

$(DEV): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[cpu,train,export,dev]'
	touch $(RUN) $@

clean:
	rm -rf $(VENV) out runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
