# Every target works in a fresh clone: scripts/bootstrap.sh installs what is missing, once.
# PYTHON=python3.12 chooses the interpreter; PYTEST_ARGS="-k token -x" is handed to pytest.

.POSIX:

VENV = .venv/bin
# Tests start kgen many hundred times: it is compiled but once, also where the environment says otherwise.
PYTEST = PYTHONDONTWRITEBYTECODE= $(VENV)/python -m pytest
# Two workers; tests that weigh a verdict come last, one by one, with the host to themselves (tests/workers.py).
WORKERS = -n 2

.PHONY: help verify test check soak bench systems clean

help:
	@echo 'make verify   install what is missing, ask the question on QEMU/TCG, then on KVM where there is one'
	@echo 'make test     unit, golden, replay and boot tests'
	@echo 'make check    ruff, mypy --strict, then the same tests'
	@echo 'make soak     the long tests'
	@echo 'make bench    print how fast things are here'
	@echo 'make systems  verify and test in a fresh clone on each of several distributions; some hours'
	@echo 'make clean    remove everything that git does not track and make can rebuild'

verify:
	@PYTHON='$(PYTHON)' sh scripts/bootstrap.sh run
	@sh scripts/verify.sh

test:
	@PYTHON='$(PYTHON)' sh scripts/bootstrap.sh test
	@$(PYTEST) $(WORKERS) $(PYTEST_ARGS)

check:
	@PYTHON='$(PYTHON)' sh scripts/bootstrap.sh dev
	$(VENV)/python -m ruff check .
	$(VENV)/python -m ruff format --check .
	$(VENV)/python -m mypy
	@$(PYTEST) $(WORKERS) $(PYTEST_ARGS)

soak:
	@PYTHON='$(PYTHON)' sh scripts/bootstrap.sh test
	@$(PYTEST) -m soak --timeout 3600 tests/soak tests/unit tests/boot $(PYTEST_ARGS)

bench:
	@PYTHON='$(PYTHON)' sh scripts/bootstrap.sh run
	@$(VENV)/python tests/benchmarks/run.py $(BENCH_ARGS)

systems:
	@python3 scripts/systems.py $(SYSTEMS_ARGS)

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
