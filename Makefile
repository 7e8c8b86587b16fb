# Each target makes the virtual environment that it needs; nothing outside this folder is touched.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check --quiet

.PHONY: help quickstart lab digits selftest test test-all test-mesh mesh mesh-programs check clean

help:            ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

quickstart: $(VENV)/.run   ## two ResNets behind Envoy, judged: the main job
	$(PY) -m experiments run quickstart

lab: $(VENV)/.run          ## every step of the canary lab, each judged
	$(PY) -m experiments run lab

digits: $(VENV)/.run       ## the small and fast experiment
	$(PY) -m experiments run digits

selftest: $(VENV)/.run     ## break a real stack in known ways; each must be caught
	$(PY) -m experiments selftest

test: $(VENV)/.dev         ## the tests that everybody runs
	$(PY) -m pytest -m "not slow" -n 2 --dist loadscope

test-all: $(VENV)/.dev     ## the slow ones too
	$(PY) -m pytest

test-mesh: $(VENV)/.dev    ## those on a real API server and Istio, where they can run (`make mesh-programs` first)
	$(PY) -m pytest tests/mesh -rs

mesh: $(VENV)/.dev         ## a real Kubernetes API server and Istio, without containers, until Ctrl-C (Linux, root)
	$(PY) tests/mesh/up.py

mesh-programs: $(VENV)/.dev  ## build what `make mesh` and the mesh tests need, once (Go; a quarter of an hour)
	$(PY) tests/mesh/up.py --build-only

check: $(VENV)/.dev        ## lint, types, import contracts, generated files
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m experiments schema --check experiments/experiment.schema.json
	PYTHONPATH=. $(PY) docs/reference/generate.py --check

clean:                     ## remove what make has made
	rm -rf $(VENV) build *.egg-info

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1): Python 3.11, 3.12 or 3.13 is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing into $(VENV); about two minutes the first time"
	$(PIP) install -c constraints.txt -e ".[analysis,pictures,stack]"
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) install -c constraints.txt -e ".[analysis,pictures,stack,cluster,dev]"
	@touch $@
