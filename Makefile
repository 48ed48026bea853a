# Every target starts from nothing but Python 3.11 and make.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  ?= deepseek-ocr

WORKERS ?= 2

.PHONY: report test test-slow coverage validate foreign time bench lint format readme ops catalogue terms notebook images dist clean
.DEFAULT_GOAL := report

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

report: $(VENV)/.installed  ## what one prefill and one decode step of DeepSeek-OCR cost
	@$(BIN)/fxmeter report $(MODEL)

test: $(VENV)/.installed  ## the suite that CI runs
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

test-slow: $(VENV)/.installed  ## the exhaustive ones, half an hour on two cores
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist load -m slow

coverage: $(VENV)/.installed  ## every causal-LM type of transformers; writes docs/coverage.md
	$(BIN)/python -m validation.coverage
	$(BIN)/python -m validation.full_size

validate: $(VENV)/.installed  ## bytes and memory against real runs; writes docs/validation.md
	for name in peak kv io fused gpu; do $(BIN)/python -m validation.$$name || exit 1; done

time: $(VENV)/.installed  ## published timings, and this machine, beside the prediction; writes docs/validation_time*.md
	$(BIN)/python -m validation.time_published
	$(BIN)/python -m validation.time_cpu

foreign: $(VENV)/.installed  ## models of other packages against real runs; writes docs/foreign.md
	$(BIN)/python -m validation.foreign

bench: $(VENV)/.installed  ## speed beside the public tools, and of closed forms; writes docs/benchmarks*.md
	$(BIN)/python -m benchmarks.vs_public_tools --install
	$(BIN)/python -m benchmarks.closed_form
	$(BIN)/python -m benchmarks.explore --write
	$(BIN)/python -m benchmarks.cli

lint: $(VENV)/.installed  ## format, lint and types, as CI checks them
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

readme: $(VENV)/.installed  ## put the report's current output into README.md
	$(BIN)/python docs/refresh_readme.py

ops: $(VENV)/.installed  ## write the table that `fxmeter ops` prints, after a rule has changed
	$(BIN)/python docs/refresh_ops.py

catalogue: $(VENV)/.installed  ## write the table that `fxmeter models` prints, after a preset has changed
	$(BIN)/python docs/refresh_models.py

terms: $(VENV)/.installed  ## write docs/terms.md, after a figure or a term has changed
	$(BIN)/python docs/refresh_terms.py

notebook: $(VENV)/.installed  ## execute examples/notebook.ipynb, and keep what its cells show
	$(BIN)/python docs/refresh_notebook.py

images: $(VENV)/.installed  ## draw the documents' pictures again
	$(BIN)/python docs/draw_images.py

$(VENV)/.release: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[release]"
	touch $@

dist: $(VENV)/.release  ## the sdist and the wheel, checked, installed into a clean environment and run there
	.ci/dist

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache
