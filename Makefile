# make quickstart   the digits study, its Pareto table and front.html; again: goes on where it was
# make test         the tests
# make lint         ruff, mypy, import-linter
# make clean        removes .venv, caches and front.html; never storage/
PYTHON ?= python3
TRIALS ?= 24

BIN := .venv/bin
# Up to date when newer than what the environment is made from.
INSTALLED := .venv/.installed
STORAGE := sqlite:///storage/digits.db

.PHONY: help quickstart test lint install clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

quickstart: $(INSTALLED)
	$(BIN)/petra run digits --trials $(TRIALS) --storage $(STORAGE) --study digits
	$(BIN)/petra front --storage $(STORAGE) --study digits --html front.html >/dev/null
	@echo
	@echo "The front as a page:   front.html"
	@echo "The dashboard:         $(BIN)/petra dashboard --storage $(STORAGE)"
	@echo "More trials:           make quickstart TRIALS=60"

# Sources are compiled once, for both workers and for all processes that tests start.
test: $(INSTALLED)
	PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' || \
	  { echo "$(PYTHON) cannot make virtual environments: on Debian, apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf .venv build dist front.html *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
