# Every target prepares what it needs first (scripts/setup.sh); nothing else has to be installed by hand.
.DEFAULT_GOAL := help
PY := .venv/bin/python
SOURCES := app core fuse net tests bench
UV_COMPILE := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-annotate --no-header

# Compiled modules are kept, whatever the environment says: every daemon of a test is a process of its own.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test soak lint format bench screenshots lock

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## install what is missing and make .venv/bin/realize
	@scripts/setup.sh

demo: setup ## two peers on this machine: the dashboard on a terminal, a narrated check without one
	@.venv/bin/realize demo

lint: setup ## style, types and import contracts
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/mypy --strict $(SOURCES)
	.venv/bin/lint-imports

test: lint ## lint, then every test: three at a time, then those that measure time by themselves
	$(PY) -m pytest -n 3 --dist worksteal -m "not timed" $(ARGS)
	$(PY) -m pytest -m timed $(ARGS)

soak: setup ## simulated households and real kills, by turns: HOURS=1 or MINUTES=10
	$(PY) -m tests.soak --minutes $(or $(MINUTES),$(shell expr $(or $(HOURS),1) \* 60))

format: setup ## format the sources
	.venv/bin/ruff format $(SOURCES)
	.venv/bin/ruff check --fix $(SOURCES)

bench: setup ## measure the table of the README; SIZE=small takes seconds, ARGS=--json for machines
	@$(PY) -m bench --size $(or $(SIZE),full) $(ARGS)

screenshots: setup ## make screenshots/*.svg from the demo household
	@$(PY) -m app.demo screenshots

lock: setup ## resolve the dependencies anew, within pyproject.toml
	$(UV_COMPILE) $(ARGS) --group dev pyproject.toml --output-file requirements.lock
	$(UV_COMPILE) $(ARGS) --constraints requirements.lock --group build --output-file requirements-build.lock
