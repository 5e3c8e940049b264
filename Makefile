# make demo        segments a short clip included in the package; results in demo_output/
# make docs        builds the site of docs/ into build/site; warnings are errors
# make notebooks   runs the notebooks in examples/ again and saves their outputs
# make page        builds the page of s3 annotate from page/src (needs Node.js)
# make test        checks style and types, then runs the fast tests: a few minutes
# make test-slow   runs the slow tests: killed runs, several processes, a browser, gradients of whole networks
# make test-versions   runs quick tests with the oldest and the newest supported versions of all packages
# All targets except page set up a virtual environment in .venv first; they need only Python 3.11 or newer.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Let Python save bytecode even if the environment forbids it, because tests start many processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: docs notebooks page demo test test-slow test-versions lint setup clean

demo: setup
	$(BIN)/python -m tools.demo $(if $(VIDEO),--video=$(VIDEO)) $(if $(MASK),--mask=$(MASK)) \
	  $(if $(CHECKPOINT),--checkpoint=$(CHECKPOINT)) $(if $(OUTPUT),--output=$(OUTPUT))

test: lint
	$(PYTEST) -m "not slow"

test-slow: setup
	$(PYTEST) -m slow

test-versions: setup
	$(BIN)/python -m tools.check_versions

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers $(JOBS) s3_jax tools configs tests

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file .ci/mkdocs.yml

notebooks: setup
	$(BIN)/jupyter execute --inplace examples/*.ipynb

page:
	cd page && npm ci && npm run build

setup: $(VENV)/installed

$(VENV)/installed: requirements.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it with PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
# uv takes a fifth of pip's time but ignores pip's settings: if they name an index, pip installs instead.
	@{ ! $(BIN)/python -m pip config list | grep '\.index-url=' >/dev/null && \
	  $(PIP) install "$$(grep -o '^uv==[0-9.]*' requirements.txt)" && \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt; } || \
	  { echo "pip installs the packages: it has an index of its own, or uv failed"; $(PIP) install -r requirements.txt; }
	$(PIP) install --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	touch $@

clean:
	rm -rf $(VENV) .cache build demo_output *.egg-info
