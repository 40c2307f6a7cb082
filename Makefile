# Two commands: `make demo` shows the main job, `make test` proves it. Each sets up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_DIR ?= runs/demo
TEST_PROCESSES ?= 2
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM := false
# Freed memory otherwise stays scattered over one arena per thread.
export MALLOC_ARENA_MAX ?= 2

.PHONY: demo demo-quick browser test test-slow lint docs benchmarks clean

$(VENV)/.installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[all,test]" -c constraints.txt
	touch $@

demo: $(VENV)/.installed ## simulate, convert, train, decode 200 sentences, report (about 5 minutes)
	$(BIN)/bit-speech demo --output_dir $(DEMO_DIR)

demo-quick: $(VENV)/.installed ## the same road with a short training
	$(BIN)/bit-speech demo --quick --output_dir $(DEMO_DIR)-quick

browser: ## Chromium for the tests of the page, where it is missing and can be had; they are skipped without it
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing Chromium for the tests of the page"; \
		export DEBIAN_FRONTEND=noninteractive; install="apt-get install -y -qq --no-install-recommends chromium"; \
		$$install >/dev/null 2>&1 || { timeout 120 apt-get update -qq && $$install; } >/dev/null 2>&1 && exit 0; \
	fi; \
	echo "No Chromium: the tests of the page will be skipped. To run them: apt-get install chromium"

test: $(VENV)/.installed browser ## the default tests, offline
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

test-slow: $(VENV)/.installed ## the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed ## formatting, lint, spelling, types
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]" -c constraints.txt
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy

docs: $(VENV)/.installed ## the documentation, in build/site: open index.html there
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[docs]" -c constraints.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean

benchmarks: $(VENV)/.installed ## every table of docs/benchmarks.md that this machine can make
	$(BIN)/python -m benchmarks.run_all

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
