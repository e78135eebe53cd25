PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
# Bytecode is written as modules are imported: most of torch never is. Without it every process that
# the tests start would compile torch again, seconds each time.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/pip install -q --no-compile -c constraints.txt
# What tests of several sessions share, made by the first of them.
export SA_DEPLOY_MADE := $(CURDIR)/out/made
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0
# Tests that neither train nor export: seconds, not minutes.
FAST := tests/runtime tests/cli/test_app.py tests/cli/test_options.py tests/cli/test_embed.py \
	tests/test_project.py tests/test_public_names.py runtime sa_deploy \
	--ignore tests/runtime/tensorrt --ignore tests/runtime/runners --ignore tests/runtime/bench \
	--ignore tests/runtime/service --ignore tests/runtime/gallery --ignore tests/runtime/linking \
	--ignore tests/runtime/outputs/test_stores.py --ignore tests/runtime/sources/test_live.py --ignore tests/runtime/retrieval/test_evaluation.py \
	--ignore tests/runtime/retrieval/test_report_attention.py --ignore tests/runtime/retrieval/test_product.py --ignore tests/runtime/retrieval/test_stored.py

.PHONY: help demo unmade test together quick fast lowest lint format docs coverage dist soak promtool clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## */make \1\t/p' Makefile | expand -t 16

demo: $(RUN)  ## train, export, embed and evaluate on the synthetic world (minutes)
	$(BIN)/sa-deploy demo --out out/demo

unmade:
	rm -rf $(SA_DEPLOY_MADE)

test: $(DEV)  ## everything that continuous integration runs: lint and all tests
	$(MAKE) -j2 lint together
	$(BIN)/pytest -m "alone and not soak" $$(grep -rl pytest.mark.alone tests)

together: $(DEV) unmade
	$(PYTEST) -m "not alone and not soak" --ignore tests/runtime/tensorrt
	$(PYTEST) -m "not alone and not soak" tests/runtime/tensorrt

quick: $(DEV)  ## lint and the fast tests, in less than a minute
	$(MAKE) -j2 lint fast

fast: $(DEV) unmade
	$(PYTEST) -q --durations=0 --durations-min=2 -m "not slow and not alone and not soak" $(FAST)

lowest:  ## the tests that need no torch, with the lowest versions that are promised
	$(PYTHON) -m venv out/lowest
	out/lowest/bin/pip install -q -c constraints-lowest.txt '.[cpu]' hypothesis pillow pytest pytest-xdist scikit-learn
	out/lowest/bin/pytest -m "not slow and not alone and not gpu and not soak" tests/runtime \
		--ignore tests/runtime/tensorrt --ignore tests/runtime/service

lint: $(DEV)  ## style, import directions, types, and a strict build of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(DEV)  ## put every file into the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV)  ## build the documentation into out/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

coverage: $(DEV) unmade  ## run all tests but those that measure time, and say what they reach
	$(PYTEST) -m "not alone and not soak" --cov --cov-report=term:skip-covered --cov-report=xml:out/coverage.xml

dist: $(DEV)  ## build the wheel and the source archive into dist/
	rm -rf dist
	$(BIN)/python -m build

soak: $(DEV) unmade  ## trials of minutes, each in short among the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -m soak

promtool: $(DEV)  ## the checker of Prometheus' files, out of Debian's package, beside the environment
	mkdir -p out/promtool && cd out/promtool && apt-get -qq download prometheus
	dpkg -x out/promtool/prometheus_*.deb out/promtool
	cp out/promtool/usr/bin/promtool $(BIN)/ && rm -r out/promtool

clean:  ## remove the environment and all that was built
	rm -rf $(VENV) out runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*

$(RUN): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[cpu,train,export]'
	touch $@

$(DEV): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[cpu,train,export,dev]'
	touch $(RUN) $@
