# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-fast test-latest test-oldest lint format reproduce clean

demo: $(READY)
	$(BIN)/foveate demo --out demo

# one thread to a worker: two workers fill two cores
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --no-skips

test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

# the fast tests with the newest release of every dependency (but torch), and with the oldest that pyproject.toml allows
test-latest: test-oldest
	$(call environment,.venv-latest)
	.venv-latest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -e ".[dev]" $(TORCH)
	OMP_NUM_THREADS=1 .venv-latest/bin/python -m pytest -n 2 -m "not slow"

test-oldest:
	$(call environment,.venv-oldest)
	$(PYTHON) tools/oldest.py > .venv-oldest/requirements.txt
	.venv-oldest/bin/python -m pip install --quiet -r .venv-oldest/requirements.txt $(TORCH)
	.venv-oldest/bin/python -m pip install --quiet --no-deps -e .
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 -m "not slow"

TORCH = $(shell grep '^torch==' constraints.txt)
define environment
$(PYTHON) -m venv $(1)
$(1)/bin/python -m pip install --quiet --upgrade pip
$(1)/bin/python -m pip install --quiet $(TORCH)
endef

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch comes first and alone, at the pinned version: resolved together with the rest, pip may choose a CUDA build. "all" is
# every package that a test is about
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,all]"
	touch $(READY)

# every experiment of docs/results.md, hours of it; goes on where it was stopped. DATA: a folder of its corpora
reproduce: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python experiments/reproduce.py --out runs $(if $(DATA),--data $(DATA))

clean:
	rm -rf $(VENV) .venv-latest .venv-oldest demo build dist
