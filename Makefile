# Every target is one line a person could type; `make help` prints them. The first one that needs it makes .venv.
PY := .venv/bin/python
READY := .venv/.ready
# One worker more than there are processors: many tests wait for a process that they started.
WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

.PHONY: help setup demo test test-slow lint docs bundle clean
help:             ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: $(READY)   ## make .venv and install what requirements.lock names

$(READY): requirements.lock pyproject.toml
	@test -x $(PY) || python3 -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: $(READY)    ## 2 families x 5 norms on embedded data, then runs/demo/
	@$(PY) scripts/demo.py

test: $(READY)    ## the tests that take at most 10 minutes together on 2 CPU cores
	@$(PY) -m pytest -n $(WORKERS)

test-slow: $(READY)    ## minutes each: every study at smoke scale, kills and resumes, the notebook
	@$(PY) -m pytest -n $(WORKERS) -m slow

lint: $(READY)    ## style, format, and which room may import which
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@.venv/bin/lint-imports --no-logo --no-cache

docs: $(READY)    ## the pages of docs/ as a site, strictly and without a network: build/docs/site/index.html
	@$(PY) scripts/maintain/docs.py

bundle: $(READY)  ## all results as a data set with a card and sums, without a network: build/bundle
	@$(PY) scripts/bundle.py

clean:            ## remove runs and the environment, never results/
	rm -rf .venv runs
