# Paths are relative, so that a checkout may lie in a folder whose name has a space.
PYTHON := .venv/bin/python
SYNC := --extra host --extra android

.PHONY: help run test lint bench long torch peers clean
.SILENT:

help:
	echo "make run     set up, then measure this machine and the simulated bench"
	echo "make test    set up, then run the tests (ARGS='-k name' for some)"
	echo "make lint    ruff, mypy, import-linter"
	echo "make bench   the figures, each beside its alternative (ONLY=topic, JSON=1)"
	echo "make long    the slow tests and benchmarks"
	echo "make torch   PyTorch for the CPU and transformers, for the engine of that name; its tests skip without"
	echo "make peers   as root: the real programs that some tests talk to, and skip without"
	echo "make clean   remove what these made; runs/ stays"

.venv/.synced: pyproject.toml uv.lock tools/setup
	tools/setup $(SYNC)
	touch $@

# Tools that only benchmarks compare with.
.venv/.bench: .venv/.synced
	tools/setup $(SYNC) --group bench --inexact
	touch $@

run: .venv/.synced
	.venv/bin/joulelab run

test: .venv/.synced
	$(PYTHON) -m coverage erase
	$(PYTHON) -m coverage run -m pytest -n 2 --dist loadfile -m "not long and not alone" $(ARGS) || [ $$? = 5 ]
	$(PYTHON) -m coverage run -m pytest -m alone $(ARGS) || [ $$? = 5 ] # 5: none of that name
	$(PYTHON) -m coverage combine --quiet
	echo "coverage: $$($(PYTHON) -m coverage report --format=total) %"

lint: .venv/.synced
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	.venv/bin/lint-imports --no-logo

bench: .venv/.bench
	$(PYTHON) -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json)

long: .venv/.bench
	$(PYTHON) -m pytest -m long $(ARGS)
	$(PYTHON) -m benchmarks --long $(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json)

# PyTorch's own index has the build for CPUs; the one on PyPI brings gigabytes of CUDA.
torch: .venv/.torch
.venv/.torch: .venv/.synced
	$(PYTHON) -m ensurepip >/dev/null
	$(PYTHON) -m pip install --quiet --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu \
		torch==2.13.0 'transformers>=5.17'
	touch $@

peers:
	tools/peers

clean:
	rm -rf .venv .tools .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist htmlcov
