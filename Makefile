# The few words people type. Each does its own set-up and calls the real tool.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= python3
STAMPS := target/stamps
LIBRARY := target/debug
CFLAGS := -std=c11 -Wall -Wextra -Werror -Iinclude
LINK = -L$(LIBRARY) -larcp -lpthread -Wl,-rpath,$(CURDIR)/$(LIBRARY)

RUST := $(shell find Cargo.toml core bindings -name '*.rs' -o -name Cargo.toml)
NODE := $(shell find node -path node/node_modules -prune -o -path node/dist -prune -o -type f ! -name '*.node' -print)
C_TESTS := $(patsubst tests/c/%.c,target/c/%,$(wildcard tests/c/*.c))

# `python`, `ruff`, `maturin` and `arcp` below are those of .venv.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help demo test lint interop bench bench-python bench-search fuzz clean wheel sdist test-rust test-mutations test-corpus test-python test-wheel test-node test-c test-faults test-registry bench-registry

help: ## list these words
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s%s\n", $$1, $$2 }' Makefile

demo: $(STAMPS)/python ## an agent reads this source tree under a lease; a client watches it
	cargo build -p arcp-cli
	python examples/demo/run.py

# `test-wheel` plays all of `test-python`, from where users have it.
test: lint test-rust test-mutations test-corpus test-wheel test-node test-c test-faults test-registry interop demo ## everything a change must pass

lint: $(STAMPS)/python ## formats, lints, types, generated files
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo xtask check
	ruff format --check .
	ruff check .
	mypy
	pyright
	python -m mypy.stubtest arcp._native --allowlist tests/python/stubtest.allow

# The two bindings left out are loaded by their hosts and tested there; the harness needs every shim built, the faults
# the program.
test-rust: $(STAMPS)/tools ## the crates, the house and the surface table
	cargo test --workspace --exclude arcp-faults --exclude arcp-harness --exclude arcp-node --exclude arcp-python

test-mutations: $(STAMPS)/tools ## a broken rule of each section makes a case fail
	cargo xtask mutations

test-corpus: $(STAMPS)/python $(STAMPS)/node target/shims/c ## the shared cases, in every language
	cargo build -p arcp-cli -p arcp-shim
	cargo test -p arcp-harness

test-python: $(STAMPS)/python ## the Python package
	cargo build -p arcp-cli
	python -m pytest

# What is tried is how it installs and what it holds, so a build without optimisation will do; `make wheel` and
# `make test-wheel WHEEL=dist/arcp-...whl` try the one that ships.
test-wheel: $(STAMPS)/python ## the wheel in clean environments outside the tree; WHEEL=... names one
	@[ -n "$(WHEEL)" ] || { rm -rf target/wheel; maturin build --profile dev --out target/wheel; }
	python -m pytest tests/wheel --wheel "$${WHEEL:-$$(ls target/wheel/*.whl)}"

test-node: $(STAMPS)/node ## the npm package
	npm test --prefix node

test-c: $(C_TESTS) ## the C library
	@test -n "$^" || { echo "tests/c holds no test" >&2; exit 1; }
	for program in $^; do echo "$$program"; "$$program"; done

# One at a time: each wants the machine for itself.
test-faults: $(STAMPS)/python ## kill -9, cut links, full disks, stopped readers; ARCP_FAULTS=long for the long form
	cargo build -p arcp-cli
	cargo test -p arcp-faults -- --nocapture --test-threads=1
	[ "$${ARCP_FAULTS:-short}" != long ] || python -m pytest tests/python/test_scale.py

# REGISTRY=published plays the recorded exchanges against the server they were recorded from.
test-registry: $(STAMPS)/python $(STAMPS)/browser $(STAMPS)/node target/shims/c ## the registry from outside: recorded exchanges, the guides' examples, abuse, faults; ARCP_FAULTS=long for the long form
	cargo build -p arcp-cli -p arcp-shim
	python -m pytest tests/registry $(if $(REGISTRY),--registry $(REGISTRY) -k golden)

interop: $(STAMPS)/python ## the published Python SDK against ours, in throwaway environments
	cargo build -p arcp-cli
	python tests/interop/run.py

bench: $(STAMPS)/python-release ## ours against the raw limit, in one run
	cargo run --release -p arcp-benches

bench-python: $(STAMPS)/venv ## our wheel beside the published Python SDK, in one run; WHEEL=... names one, ARGS=--write fills README.md
	@[ -n "$(WHEEL)" ] || $(MAKE) wheel
	python benches/python/run.py --wheel "$${WHEEL:-$$(ls dist/arcp-*.whl)}" $(ARGS)

bench-search: $(STAMPS)/tools ## how well and how fast agents are found, on two judged sets; PYTHON=... may have the full model
	PYTHON=$(PYTHON) cargo run --release -p arcp-benches --bin search

bench-registry: $(STAMPS)/python ## our registry beside the published one, in one run; ARGS=--write fills README.md
	cargo build --release -p arcp-cli -p arcp-load
	python benches/registry/run.py $(ARGS)

fuzz: $(STAMPS)/tools ## an hour of random input; ARCP_FUZZ_SECONDS is the work of all targets together
	ARCP_FUZZ_SECONDS=$${ARCP_FUZZ_SECONDS:-3600} cargo test -p arcp-proto --test fuzz --test machine -- --nocapture

wheel: $(STAMPS)/venv ## the wheel that ships, for this machine, in dist/; 12 MB at most
	rm -f dist/arcp-*.whl
	maturin build --profile dist --out dist
	@[ -z "$$(find dist -name 'arcp-*.whl' -size +12000000c)" ] || { ls -l dist >&2; echo "the wheel has more than 12 MB" >&2; exit 1; }

sdist: $(STAMPS)/venv ## the source distribution, in dist/
	rm -f dist/arcp-*.tar.gz
	maturin sdist --out dist

clean: ## remove all that was built
	rm -rf target dist .venv node/node_modules node/dist node/*.node python/arcp/_native*.so

$(STAMPS)/tools:
	@cargo --version >/dev/null 2>&1 || { echo "Rust is missing: see https://rustup.rs" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Python 3.11 or newer is missing: set PYTHON=..." >&2; exit 1; }
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || { echo "Node 20 or newer is missing: see https://nodejs.org" >&2; exit 1; }
	@$(CC) --version >/dev/null 2>&1 || { echo "a C compiler is missing: set CC=..." >&2; exit 1; }
	@mkdir -p $(@D) && touch $@

# pip reads dependency groups since 25.1.
$(STAMPS)/venv: pyproject.toml $(STAMPS)/tools
	$(PYTHON) -m venv .venv
	python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	python -m pip install --quiet --group dev
	@touch $@

# One extension module lies in python/arcp, so the two builds replace each other.
$(STAMPS)/python: $(STAMPS)/venv $(RUST)
	maturin develop
	@rm -f $(STAMPS)/python-release && touch $@

$(STAMPS)/python-release: $(STAMPS)/venv $(RUST)
	maturin develop --release
	@rm -f $(STAMPS)/python && touch $@

# The guide's JavaScript runs in a real browser.
$(STAMPS)/browser: tests/registry/browser/package-lock.json $(STAMPS)/tools
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	    || { echo "Chromium is missing: install the package chromium" >&2; exit 1; }
	npm ci --prefix tests/registry/browser --no-audit --no-fund
	@touch $@

$(STAMPS)/npm: node/package-lock.json $(STAMPS)/tools
	npm ci --prefix node --no-audit --no-fund
	@touch $@

$(STAMPS)/node: $(STAMPS)/npm $(RUST) $(NODE)
	npm run build --prefix node
	@touch $@

$(STAMPS)/c: $(STAMPS)/tools $(RUST)
	cargo build -p arcp-c
	@touch $@

target/c/%: tests/c/%.c tests/c/check.h include/arcp.h $(STAMPS)/c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $< $(LINK) -o $@

target/shims/c: $(wildcard tests/shims/c/*.[ch]) include/arcp.h $(STAMPS)/c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(filter %.c,$^) $(LINK) -o $@
