# Lectern's commands; `make help` lists them.

SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python

#: Debian packages that tests use and that pip cannot bring.
SYSTEM_PACKAGES := mariadb-server g++

#: Servers that Lectern is measured against, and the Debian packages that they need.
PEERS := transformers vllm llamacpp
PEER_PACKAGES := cmake g++ libnuma1 libtcmalloc-minimal4

.DEFAULT_GOAL := help
.PHONY: help run test lint test-native-sanitized test-tpu setup system-packages peers clean

help: ## show this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1 \2/p' $(MAKEFILE_LIST) | while read -r name text; do printf '  make %-24s %s\n' "$$name" "$$text"; done

run: $(VENV)/ready-to-run ## set up what is missing and serve; flags go into ARGS="…", see make run ARGS=--help
	@$(PYTHON) serveapi.py $(ARGS)

test: lint ## set up what is missing, check the form of everything and run every test
	$(PYTHON) -m pytest $(ARGS)

lint: $(VENV)/ready-to-test ## check format, lint and types
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy .

test-native-sanitized: $(VENV)/ready-to-test ## run the native step's C++ under the address and undefined-behaviour sanitizers
	@$(PYTHON) -m scripts.test_native_sanitized

test-tpu: $(VENV)/ready-to-test ## set up the Sophon TPU's compiler and simulator (Python 3.10, 7 GB in var/tpu) and run the tests on them
	@bash scripts/tpu_environment.sh
	TPU_SIMULATOR=required $(PYTHON) -m pytest tests/tpu $(ARGS)

setup: $(VENV)/ready-to-test ## set up everything that running and testing need

system-packages: ## install the Debian packages that tests use (through sudo unless you are root)
	@bash scripts/install_system_packages.sh $(SYSTEM_PACKAGES)

peers: ## install the servers that benchmarks/serve.py measures Lectern against, into var/peers (takes half an hour)
	@bash scripts/install_system_packages.sh $(PEER_PACKAGES)
	@for peer in $(PEERS); do bash benchmarks/peers/install.sh $$peer || failed="$$failed $$peer"; done; \
	[ -z "$$failed" ] || { echo "not installed:$$failed" >&2; exit 1; }

clean: ## remove the environment and caches; models and the catalogue stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/ready-to-run: requirements.txt
	@bash scripts/setup_venv.sh $(VENV) $<
	@$(PYTHON) -m engine.executors.native.build
	@touch $@

$(VENV)/ready-to-test: requirements-dev.txt requirements.txt
	@bash scripts/setup_venv.sh $(VENV) $<
	@$(PYTHON) -m engine.executors.native.build
	@touch $@ $(VENV)/ready-to-run
