# Two commands do everything: `make report` and `make test`. Both first create .venv with the pinned dependencies (once).
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
TL3 := .venv-tl3
WORKERS ?= 2
# files in order: those with the fewest tests are the longest here, and must not come last
PYTEST = -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help report test test-tl3 lint docs previews notebooks clean
help:
	@echo "make report [ARGS='...']   train the toys, measure them, write reports/conv_vs_attn/index.html"
	@echo "make test   [ARGS='...']   run the tests (ARGS go to pytest)"
	@echo "make test-tl3              the model tests on TransformerLens 3.9 (HookedTransformer), in its own environment"
	@echo "make lint                  ruff and mypy"
	@echo "make docs                  the documentation, into docs/_build/html"
	@echo "make previews              small pictures of the reports, for the gallery (needs Chromium)"
	@echo "make notebooks             run the four notebooks in experiments/notebooks and keep their outputs"
	@echo "make clean                 remove the environments and the trained runs"

report: $(READY)
	@$(PY) -m experiments.conv_vs_attn --preset quick $(ARGS)

test: $(READY) $(VENV)/.browser
	@$(PY) $(PYTEST) $(ARGS)

test-tl3: $(TL3)/.ready
	@$(TL3)/bin/python $(PYTEST) tests/models tests/faults/test_traps*.py tests/parity $(ARGS)

docs: $(VENV)/.docs
	@$(PY) -m sphinx -E -W --keep-going -q -b html docs docs/_build/html && echo "The documentation is at docs/_build/html/index.html"

previews: $(READY)
	@$(PY) docs/previews.py

notebooks: $(VENV)/.docs
	@$(PY) -m experiments.notebooks $(ARGS)

lint: $(READY)
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

clean:
	rm -rf $(VENV) $(TL3) runs

# The same pins, but for TransformerLens: one list of versions serves both environments.
$(TL3)/.ready: pyproject.toml constraints.txt
	@test -x $(TL3)/bin/python || $(PYTHON) -m venv $(TL3)
	@echo "Installing TransformerLens 3.9 and the other pinned dependencies into $(TL3) ..."
	@$(TL3)/bin/python -m pip install -q "pip>=25.1" 2>/dev/null || $(TL3)/bin/python -m pip install "pip>=25.1"
	@sed 's/^transformer-lens==.*/transformer-lens==3.9.0/' constraints.txt > $(TL3)/constraints.txt
	@$(TL3)/bin/python -m pip install -q -c $(TL3)/constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(READY)
	@echo "Installing what the documentation and the notebooks need ..."
	@$(PY) -m pip install -q -c constraints.txt -e '.[docs]'
	@touch $@

# A browser for the tests that look at pages: it says what it found, at most 120 s, and never fails.
$(VENV)/.browser: $(READY)
	@$(PY) -m tests.report.browser
	@touch $@

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("interp needs Python 3.11 or newer, this is " + sys.version.split()[0] + ". Name another with PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is incomplete: install it (on Debian: apt install python3-venv)"; exit 1; }
	@test -x $(PY) || { echo "Creating $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the pinned dependencies into $(VENV) (about 1.6 GB, a few minutes the first time) ..."
	@$(PY) -m pip install -q "pip>=25.1" 2>/dev/null || $(PY) -m pip install "pip>=25.1"
	@$(PY) -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $(READY)
