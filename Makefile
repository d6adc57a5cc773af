# Every target works from a fresh clone: the environment is made and the package installed when needed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
JOBS   ?= 2
READY  := $(VENV)/.installed

.PHONY: ablate test lint bench coverage clean

ablate: $(READY)
	$(BIN)/tessella ablate $(ARGS)

test: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/pyright --pythonpath $(BIN)/python

coverage: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov --cov-report=term

bench: $(READY)
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'tessella needs Python 3.11 or newer: make PYTHON=python3.11')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info
