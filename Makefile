# Each target sets up what it needs: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
DEMO := outputs/demo
# For `make bench`: the folder that holds hymenoptera_data, and SqueezeNet 1.0's weights.
DATA ?= data
WEIGHTS ?= squeezenet1_0.pth

.PHONY: help setup demo test torture lint bench tensorboard clean

help:
	@echo "make setup        the virtual environment .venv, everything from PyPI"
	@echo "make demo         transfer between digits, no data to download: four strategies, three seeds, one table"
	@echo "make test         all tests"
	@echo "make torture      break trainings and files thousands of times (hours)"
	@echo "make lint         pip check, ruff and mypy"
	@echo "make bench        seconds against the tutorial's loop, Lightning and fastai: DATA=FOLDER WEIGHTS=FILE; an hour"
	@echo "make tensorboard  curves and pictures of all runs in outputs/"
	@echo "make clean        remove outputs/demo and the caches of the tools"

setup: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,export,heif,stream,sweeps]'
	@touch $@

demo: setup
	@rm -rf $(DEMO)
	$(BIN)/python train.py experiment=digits_source hydra.run.dir=$(DEMO)/source
	$(BIN)/python train.py -m experiment=digits_target backbone.weights=$(DEMO)/source \
		strategy=frozen,finetune,gradual,scratch seed=1,2,3 hydra.sweep.dir=$(DEMO)/target

# One thread each: two processes of as many threads as there are cores would wait for each other.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

torture: setup
	$(BIN)/python benchmarks/torture.py
	THAW_EVERY_VALUE=1 $(BIN)/python -m pytest tests/test_every_option.py

lint: setup
	$(BIN)/python -m pip check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup .venv-fastai/.installed
	$(BIN)/python benchmarks/training.py --data $(DATA) --squeezenet $(WEIGHTS) --fastai .venv-fastai/bin/python
	$(BIN)/python benchmarks/growth.py --data $(DATA)/hymenoptera_data --weights $(WEIGHTS)

.venv-fastai/.installed:
	$(PYTHON) -m venv .venv-fastai
	.venv-fastai/bin/python -m pip install --quiet 'fastai>=2.8'
	@touch $@

tensorboard: setup
	$(BIN)/tensorboard --logdir outputs

clean:
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache
