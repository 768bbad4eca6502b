# The two commands that matter: `make demo` and `make test`. Everything runs from .venv.
BIN := .venv/bin
PYTEST_JOBS ?= 2

.PHONY: help setup demo test unit interop e2e fuzz sim lint format bench lock peers clean

help:
	@echo "make demo [ONCE=1]  federate two datacenters through Envoy gateways, and prove it"
	@echo "make test           all tests and checks"
	@echo "make setup          .venv with the locked dependencies (the others run it first)"
	@echo "make fuzz SECONDS=n every decoder of bytes from outside, with random seeds"
	@echo "make sim RUNS=n     Raft in n simulated worlds of faults; SEED=n is the first one's"
	@echo "make lint bench lock peers format clean"

setup:
	@scripts/setup

demo: setup
	@scripts/get-network-tools
	@$(BIN)/proconsul dev $(if $(ONCE),-once) $(ARGS)

test: lint unit interop e2e

unit: setup
	$(BIN)/python -m pytest -n $(PYTEST_JOBS) -q --ignore=tests/interop --ignore=tests/e2e $(ARGS)

interop: setup peers
	scripts/test-with-peers -n $(PYTEST_JOBS) --dist loadfile --no-loadscope-reorder -p no:randomly \
	  tests/interop $(ARGS)

# What needs the network namespaces and the cores for itself runs alone, afterwards
e2e: setup peers
	scripts/test-with-peers -p no:xdist -p no:randomly tests/e2e $(ARGS)

# All decoders, for so many seconds, with random seeds, which a failure shows; FUZZ_SEED=n repeats one
SECONDS ?= 300
fuzz: setup
	FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -p no:xdist -q tests/property/test_fuzz_decoders.py $(ARGS)

# Raft under faults, in virtual time. Seeds are random unless SEED is given, and shown on failure
RUNS ?= 5000
SEED ?= $$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')
sim: setup
	PROCONSUL_SIM_RUNS=$(RUNS) PROCONSUL_SIM_SEED=$(SEED) \
	  $(BIN)/python -m pytest -n $(PYTEST_JOBS) -q tests/sim/test_raft_sim.py -k safety $(ARGS)

lint: setup
	@# Modules beside tests are imported by their bare name, so that name must be the only one
	@! find tests -name '*.py' -printf '%f\n' | sort | uniq -d | grep -v '^__init__.py$$'
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry src
	$(BIN)/vulture
	$(BIN)/codespell src tests bench docs scripts Makefile *.md
	$(BIN)/flake8-async $$(git ls-files 'src/*.py')

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup peers
	$(BIN)/python -m bench.federation $(ARGS)

lock:
	scripts/lock

# 75: a registry cannot be reached. Tests whose peer is missing skip, and say so; in CI they fail
peers:
	@scripts/get-peers >/dev/null || test $$? = 75 -o -z "$$CI" || exit 1

clean:
	rm -rf .venv .peers build dist
