# Each target sets up what it needs: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
DEMO := outputs/demo

.PHONY: help setup demo test lint tensorboard clean

help:
	@echo "make setup        the virtual environment .venv, everything from PyPI"
	@echo "make demo         transfer between digits, no data to download: four strategies, three seeds, one table"
	@echo "make test         all tests"
	@echo "make lint         ruff and mypy"
	@echo "make tensorboard  curves and pictures of all runs in outputs/"
	@echo "make clean        remove outputs/demo and the caches of the tools"

setup: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,export]'
	@touch $@

demo: setup
	@rm -rf $(DEMO)
	$(BIN)/python train.py experiment=digits_source hydra.run.dir=$(DEMO)/source
	$(BIN)/python train.py -m experiment=digits_target backbone.weights=$(DEMO)/source \
		strategy=frozen,finetune,gradual,scratch seed=1,2,3 hydra.sweep.dir=$(DEMO)/target

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

tensorboard: setup
	$(BIN)/tensorboard --logdir outputs

clean:
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache
