# Two commands on a fresh machine: `make train` and `make test`. They need Python, pip and make.
#
#   make train TRAIN_ARGS="--algo ds_td3 --env Hopper-v5 --total-steps 100000"
#   make train PYTHON=python3.12 VENV=.venv312
#   make test  PYTEST_ARGS="-m 'not slow'"
#
# PIP_ARGS reaches every `pip install`, for example to choose another build of torch.

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
PYTEST_ARGS ?=
TRAIN_ARGS ?= --algo ds_td3 --env HalfCheetah-v5 --total-steps 5000 \
	--agent.learning-starts 1000 --eval.every-steps 1000 --eval.episodes 2

BIN := $(VENV)/bin
# Editable, the way that type checkers and the symlinks in sparserl/ understand.
INSTALL := $(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt --config-settings editable_mode=compat

.DEFAULT_GOAL := help
.PHONY: help train test lint types docs clean
# Two goals may share the virtual environment: never install into it twice at once.
.NOTPARALLEL:

help:
	@echo "make train   install into $(VENV), then run: sparserl train $(TRAIN_ARGS)"
	@echo "make test    install with the development tools, then lint, types, spelling and tests"
	@echo "make lint    ruff and codespell only"
	@echo "make types   mypy only"
	@echo "make docs    build/docs/index.html: tutorials, reference, results"
	@echo "make clean   remove $(VENV), caches and build products; runs/ and results/ stay"

train: $(VENV)/.installed
	$(BIN)/sparserl train $(TRAIN_ARGS)

# One thread per process: the tests compare bit for bit, and xdist already fills two cores. A worker begins with half of
# the tests, and takes from the other one when it is done: so nearly all fixtures of modules are set up once. Bytecode is
# kept even if the environment says otherwise, or each of the many processes that tests start would compile all modules.
test: lint types
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# Needs no network; a warning, such as a link that leads nowhere, is an error.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -W -q -c docs . build/docs
	@echo "build/docs/index.html"

# A stamp is written last, so an interrupted installation is simply done again.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[dev]"
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find sparserl agents envs continual configs tests -type d -name __pycache__ -prune -exec rm -rf {} +
