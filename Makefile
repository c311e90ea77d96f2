# Every target is one line a person could type. The first one that needs it makes .venv.
PY := .venv/bin/python
READY := .venv/.ready

.PHONY: setup demo test test-slow lint docs clean
setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@test -x $(PY) || python3 -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: $(READY)    ## 2 families x 4 norms on embedded data, then results/demo/
	@$(PY) scripts/demo.py

test: $(READY)    ## at most 10 minutes on 2 CPU cores
	@$(PY) -m pytest

test-slow: $(READY)    ## minutes each: every study at smoke scale, kills and resumes
	@$(PY) -m pytest -m slow

lint: $(READY)
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

docs: $(READY)    ## the pages of docs/ as a site, strictly and without a network: build/docs/site/index.html
	@$(PY) scripts/maintain/docs.py

clean:            ## removes runs and the environment, never results/
	rm -rf .venv runs
