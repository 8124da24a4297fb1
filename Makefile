# make demo, make test: each enough on a bare machine with Python 3.11+ and a package index.
PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo demo-large demo-proof bench-align bench-codes bench-pairs bench-ranker load harden harden-http audit docs test \
  test-browser lint setup clean
.DEFAULT_GOAL := demo

demo: setup
	$(BIN)/qarm demo --out runs/demo

demo-large: setup
	$(BIN)/qarm demo --size large --out runs/demo-large

demo-proof: setup
	$(BIN)/python benchmarks/demo_proof.py --out runs/demo-proof

bench-align: setup
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt "torch==2.13.0" -e ".[bench]"
	$(BIN)/python benchmarks/align.py

bench-codes: setup
	$(BIN)/python benchmarks/codes.py
	$(BIN)/python benchmarks/codes_scale.py

bench-ranker: setup
	$(BIN)/python benchmarks/ranker.py

bench-pairs: setup
	$(BIN)/python benchmarks/pairs.py

docs: setup
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt "torch==2.13.0" -e ".[docs]"
	$(BIN)/python benchmarks/reference.py
	$(BIN)/zensical build --clean --strict

load: setup
	$(BIN)/python benchmarks/load.py --run runs/demo

harden: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/harden.py

harden-http: setup
	$(BIN)/python benchmarks/hostile.py --run runs/demo

audit: setup
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements-ci.txt

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-browser: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(STAMP)

PIP := $(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_FLAGS)
INSTALL := $(PIP) -c constraints.txt "torch==2.13.0" -e ".[demo,report,serve,dev]"
ifdef LOCKED  # as CI does: nothing but torch that requirements-ci.txt does not name by its hash
INSTALL := $(PIP) --no-deps --require-hashes -r requirements-ci.txt && \
  $(PIP) -c constraints.txt "torch==2.13.0" && $(PIP) --no-deps --no-build-isolation -e .
endif

$(STAMP): pyproject.toml constraints.txt $(if $(LOCKED),requirements-ci.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "need Python 3.11 or newer, got $$($(PYTHON) --version); try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv is missing; install it, on Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL)
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_FLAGS) --no-deps --upgrade \
	  --target $(VENV)/torchvision "torchvision==0.28.0"  # for one test, and not where it would be imported
	@touch $(STAMP)

clean:
	rm -rf $(VENV) runs dist site .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
