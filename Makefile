# One command to the table, one to the tests. Everything is installed into .venv, once, and again when what it needs changes.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: ablation grid test check docs bench bench-long crash nodes long hangs stress fuzz coverage tables statements surrogate clean
.DELETE_ON_ERROR:

ablation: $(INSTALLED)
	$(BIN)/python sweeps/visdial_ablation.py --preset laptop $(ARGS)

grid: $(INSTALLED)
	$(BIN)/python sweeps/visdial_ablation.py --preset laptop --methods all --trials 0 $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -c pyproject.toml -r analysis cluster ilql sweeps benchmarks .ci
	$(BIN)/python .ci/audit.py

# The pages as a site: build/site/index.html. A link that leads nowhere fails.
docs: $(INSTALLED)
	$(BIN)/python -m mkdocs --quiet build --strict $(ARGS)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks $(ARGS)

bench-long: $(INSTALLED)
	$(BIN)/python -m benchmarks --long $(ARGS)

# Two hours and more. Goes on where it was: the file of results says what is done.
crash: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python tests/crash/matrix.py --kills 60 --out build/crash.jsonl $(ARGS)

# Some ten minutes: several Ray nodes on this machine, nodes and heads killed, visual dialogue as a job.
nodes: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "long or not long" tests/cluster/test_nodes.py tests/cluster/test_launch.py $(ARGS)

# All tests that are left out of `test` because they run for minutes, those of `nodes` among them.
long: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long $(ARGS)

# Two hours. Goes on where it was, as `crash` does.
hangs: $(INSTALLED)
	OMP_NUM_THREADS=1 PYTHONPATH=tests/crash $(BIN)/python tests/hangs/many.py --sweeps 50 --out build/hangs.jsonl $(ARGS)

# Eight processes vie for 100,000 cells: none lost, none doubled.
stress: $(INSTALLED)
	$(BIN)/python -m benchmarks.store $(ARGS)

# So many accidents for each reader; the few of the tests take a minute, 200 about ten.
EXAMPLES ?= 200
fuzz: $(INSTALLED)
	FUZZ_EXAMPLES=$(EXAMPLES) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/bad_input/test_fuzz.py $(ARGS)

# All of docs/statistics.md's coverage, an hour and more. Goes on where it was, as above; each half is a target, too.
coverage: tables statements

tables: $(INSTALLED)
	OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python tests/coverage/grid.py --out build/coverage.jsonl --all $(ARGS)

statements: $(INSTALLED)
	OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python tests/coverage/sensitivity_regions.py --out build/statements.jsonl $(ARGS)

# Two minutes: what tiny sweeps of the bandit give, as the table that tests of whole sweeps take it from.
surrogate: $(INSTALLED)
	OMP_NUM_THREADS=1 PYTHONPATH=.:tests/asking $(BIN)/python tests/surrogate/record_bandit.py $(ARGS)

# torch first and alone: asked for as a dependency, an installer may take the newest, with two gigabytes of CUDA.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
