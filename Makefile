# make demo   trains on the embedded sample images   make docs       builds an API page into build/docs
# make test   lints and runs every test              make promises   writes tests/README.md
# make lint   runs Ruff and mypy                     make clean      removes what the others made
# make fuzz   tests every reader of files with random inputs for an hour
# make test-addons   runs the tests of the environment with TensorFlow 2.15 and TensorFlow Addons

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ADDONS_VENV := .venv-addons
# The names of the test files, without test_ and .py. test_addons.py trains, evaluates and exports; the
# other files test single parts.
ADDONS_TESTS := addons augment compat decode evaluation header_graph packaging parity pipeline \
	precision predict reference_ops store
DEMO_FLAGS ?= --data_dir=sample --weights=none --image_size=48 --epochs=12 --batch_size=32 \
	--lr=1e-3 --schedule=one_cycle --schedule_per_step --augment_strength=0.5

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: demo test test-addons addons-tests browser lint docs promises fuzz clean

demo: $(VENV)/.installed
	$(BIN)/seedtf train $(DEMO_FLAGS)

# Processes of pytest, on two cores; one more than the cores, because some tests only wait.
TEST_PROCESSES ?= 3

# The tests start many Python processes. Without bytecode, each would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

test: lint browser
	$(BIN)/python -m compileall -q seedtf
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal

# TensorFlow Addons has no wheels for Python above 3.11.
test-addons:
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then \
	  echo "make test-addons: skipped: TensorFlow Addons needs Python 3.10 or 3.11 and" \
	    "$$($(PYTHON) --version) is too new; pass PYTHON=python3.11"; \
	else $(MAKE) --no-print-directory addons-tests; fi

addons-tests: $(ADDONS_VENV)/.installed
	$(ADDONS_VENV)/bin/python -m pytest -n $(TEST_PROCESSES) --dist worksteal $(ADDONS_TESTS:%=tests/test_%.py)

# The tests of HTML pages open them in headless Chromium; without it they are skipped with a message.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	  apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1; } || \
	echo "Chromium is not installed and cannot be: the tests of pages will be skipped."

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# pdoc imports what it documents. It stops at the __all__ of a package, so every module is named.
DOCUMENTED = seedtf $(sort $(subst /,.,$(basename $(shell find seedtf -name '[!_]*.py'))))

docs: $(VENV)/.installed-docs
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/pdoc --docformat google --output-directory build/docs $(DOCUMENTED)
	@echo "Open build/docs/index.html in a browser."

promises: $(VENV)/.installed
	$(BIN)/python tests/write_readme.py

# Each fuzz target runs for an equal part of FUZZ_SECONDS. atheris has wheels for Linux only.
FUZZ_TARGETS := header decode table layout archive
FUZZ_SECONDS ?= 3600

fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet 'atheris>=2.3,<4'
	@for target in $(FUZZ_TARGETS); do \
	  echo "fuzzing $$target"; \
	  $(BIN)/python tests/fuzz.py $$target \
	    -max_total_time=$$(($(FUZZ_SECONDS) / $(words $(FUZZ_TARGETS)))) -verbosity=0 || exit 1; \
	done

clean:
	rm -rf $(VENV) $(ADDONS_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find seedtf tests scripts -name __pycache__ -prune -exec rm -rf {} +

# The installation is editable, so it is repeated only if setup.py or pyproject.toml changes.
$(VENV)/.installed: setup.py pyproject.toml
	$(call make_venv,$(VENV))
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: setup.py pyproject.toml
	$(call make_venv,$(VENV))
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: setup.py pyproject.toml
	$(call make_venv,$(VENV))
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@ $(VENV)/.installed

$(ADDONS_VENV)/.installed: setup.py pyproject.toml
	$(call make_venv,$(ADDONS_VENV))
	$(ADDONS_VENV)/bin/python -m pip install --quiet --editable '.[addons,test]'
	@touch $@

# Makes a virtual environment, unless one that works exists already.
define make_venv
@command -v $(PYTHON) >/dev/null || \
	{ echo "make: $(PYTHON) was not found; install Python 3.10 to 3.13 or pass PYTHON=…" >&2; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	{ echo "make: $$($(PYTHON) --version) will not do; pass PYTHON=… with Python 3.10 to 3.13" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "make: $(PYTHON) lacks venv; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
@$(1)/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	$(PYTHON) -m venv --clear $(1)
@echo "Installing seedtf into $(1); the first time this takes a minute or two."
endef
