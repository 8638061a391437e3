# `make demo` and `make test` are the whole set-up. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test everything fuzz real quick changed lint format config validity clean help

help: ## Show what there is.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.run ## Install, then train and draw the helpfulness/safety front on the embedded default.
	$(BIN)/python -m alignlab --config-name w_front

test: $(VENV)/.dev ## Install the tools too, then lint, check types and run every test.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

everything: $(VENV)/.all ## Every test, also those that take minutes each.
	ALIGNLAB_ALL=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

fuzz: $(VENV)/.dev ## Try 500 broken command lines.
	ALIGNLAB_FUZZ=500 $(BIN)/python -m pytest -n 2 tests/config/test_fuzz.py

real: $(VENV)/.dev ## A sweep on SmolLM2-135M, in the folder that ALIGNLAB_SMOLLM2 names (made there if it is not).
	ALIGNLAB_SMOLLM2=$${ALIGNLAB_SMOLLM2:-$(CURDIR)/$(VENV)/smollm2}; $(BIN)/python -m benchmarks.smollm2 $$ALIGNLAB_SMOLLM2 \
		&& ALIGNLAB_SMOLLM2=$$ALIGNLAB_SMOLLM2 $(BIN)/python -m pytest tests/real

quick: $(VENV)/.dev ## Lint, types and the tests that train nothing.
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	$(BIN)/python -m pytest -n 2 -m "not slow" tests/stats tests/io tests/front tests/rewards tests/config/hydra tests/test_layout.py

changed: $(VENV)/.dev ## The tests of the packages that differ from the main branch.
	$(BIN)/python -m pytest -n 2 tests/test_layout.py $$(git diff --name-only main \
		| sed -nE 's,^(alignlab|tests)/(.*)/[^/]*$$,tests/\2,p' | sort -u | while read -r d; do [ ! -d $$d ] || echo $$d; done)

lint: $(VENV)/.dev ## Lint and type check only.
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(VENV)/.dev ## Format the code.
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

config: $(VENV)/.run ## Write the flattened default config, which is committed so that a changed default shows.
	echo '# Every setting with its default, written by `make config`; a changed default shows here.' > docs/default_config.yaml
	$(BIN)/python -m alignlab --cfg job >> docs/default_config.yaml

validity: $(VENV)/.run ## Three seeds of the whole front against the exact one, written to docs/validity.md.
	$(BIN)/python -m benchmarks.validity

clean: ## Remove the environment; runs/ and the cache stay.
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alignlab needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

# torch first, by its exact version: a pinned wheel that pip already knows is taken before anything else asks for torch.
$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,parallel,slurm,ray,wandb,nf4]'
	touch $@

$(VENV)/.all: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[publish,trackio,tensorboard]'
	touch $@
