# make demo        segments a short clip that comes along; results in demo_output/
# make docs        builds the site of docs/ into build/site; warnings are errors
# make notebooks   runs the notebooks of examples/ again and keeps what they print and draw
# make page        builds the page of s3 annotate from page/src (needs Node.js)
# make test        style, types, and the tests of every room, in minutes
# make test-slow   the other tests: kills, processes, a browser, gradients of whole networks, ...
# make test-versions   a quick set of tests with the oldest and the newest versions of all packages
# All but page set up a virtual environment in .venv first; they need Python 3.11 or newer and nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Python keeps what it compiled, even where the environment says otherwise: tests start many processes.
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
# uv takes a fifth of pip's time, but does not read pip's settings: where those name an index, pip installs.
	@{ ! $(BIN)/python -m pip config list | grep '\.index-url=' >/dev/null && \
	  $(PIP) install "$$(grep -o '^uv==[0-9.]*' requirements.txt)" && \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt; } || \
	  { echo "pip installs the packages: it has an index of its own, or uv failed"; $(PIP) install -r requirements.txt; }
	$(PIP) install --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	touch $@

clean:
	rm -rf $(VENV) .cache build demo_output *.egg-info
