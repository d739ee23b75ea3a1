# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-fast lint format reproduce clean

demo: $(READY)
	$(BIN)/foveate demo --out demo

# one thread to a worker: two workers fill two cores
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch comes first and alone, at the pinned version: resolved together with the rest, pip may choose a CUDA build
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(READY)

# every experiment of docs/results.md, hours of it; goes on where it was stopped. DATA: a folder of its corpora
reproduce: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python experiments/reproduce.py --out runs $(if $(DATA),--data $(DATA))

clean:
	rm -rf $(VENV) demo build dist
