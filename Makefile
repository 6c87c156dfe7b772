# The two commands of the README are `make demo` and `make test`; the rest is what they are made of.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CLUSTER ?= local
MODE ?= canary
PEERS ?= flagger argo-rollouts
REPETITIONS ?= 1
FIRST ?= 1000
PY := .venv/bin
export CLUSTER

help: ## Print this help.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup images cluster-up ## Show the main job on a real cluster; MODE=shadow, bluegreen or abtest shows another one.
	e2e/cluster/cluster enter env PYTHONPATH=e2e $(PY)/python -m demo $(MODE)

test: check unit images cluster-up e2e ## Run every test, those on a real cluster included.

setup: .venv/installed ## Make the virtual environment from the exact lock file.

.venv/installed: requirements-dev.lock pyproject.toml
	python3 -m venv .venv
	$(PY)/pip install --quiet --require-hashes -r requirements-dev.lock
	$(PY)/pip install --quiet --no-deps --editable .
	touch $@

check: setup ## Format, lint, types, import contracts, generated files.
	$(PY)/ruff format --check .
	$(PY)/ruff check .
	$(PY)/mypy
	$(PY)/lint-imports
	$(PY)/python -m modelrollout.api.crd --check crds charts/modelrollout/crds
	$(PY)/python docs/generate.py --check

fmt: setup ## Format, and mend what can be mended.
	$(PY)/ruff format .
	$(PY)/ruff check --fix .

unit: setup cluster-build ## Tests that need no running cluster.
	$(PY)/python -m pytest tests -m "not cluster" --numprocesses auto --dist loadfile --durations 10

e2e: setup ## Tests on the running cluster.
	e2e/cluster/cluster enter $(PY)/python -m pytest tests e2e -m cluster --durations 20

e2e-gitops: setup cluster-build ## A GitOps tool that applies manifests all the time while a rollout runs; the last part on the running cluster.
	$(PY)/python -m pytest tests/contract/test_gitops.py tests/unit/test_gitops_health.py
	e2e/cluster/cluster enter $(PY)/python -m pytest e2e/test_gitops.py -m cluster

crds: setup ## Write what is generated: the CRD from its types, and docs/api.md and docs/state-machine.md.
	$(PY)/python -m modelrollout.api.crd crds charts/modelrollout/crds
	$(PY)/python docs/generate.py

docs: setup ## Build the documents' site into site/; warnings are errors.
	$(PY)/python docs/publish.py

captures: setup ## Draw what the documents show of the terminal, from simulated rollouts.
	$(PY)/python docs/captures.py

report-example: setup ## Photograph the report that the documents show, of a simulated rollout (needs Chromium).
	$(PY)/python docs/report_example.py

krew: setup ## Pack the kubectl plugin for krew into dist/; URI= is where the archive will be.
	rm -f dist/modelrollout_operator-*.whl
	$(PY)/pip wheel --quiet --no-deps --wheel-dir dist .
	$(PY)/python plugins/pack.py dist/modelrollout_operator-*.whl $(URI) dist

lock: ## Pin all dependencies anew, with hashes.
	uv pip compile pyproject.toml --quiet --generate-hashes --no-emit-index-url --python-version 3.11 \
	  --custom-compile-command "make lock" --extra comparator --output-file operator/requirements.lock
	uv pip compile pyproject.toml --quiet --generate-hashes --no-emit-index-url --python-version 3.11 \
	  --custom-compile-command "make lock" --extra comparator --group dev --constraint operator/requirements.lock --output-file requirements-dev.lock

sbom: setup ## Print what the operator's image is made of, as CycloneDX.
	@$(PY)/python docs/sbom.py

audit: ## Ask whether a dependency has a known vulnerability (needs the internet).
	python3 -m venv build/audit
	build/audit/bin/pip install --quiet pip-audit==2.10.1
	build/audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement operator/requirements.lock

bench: setup ## Print the benchmarks' figures.
	for each in tests/bench/bench_*.py; do $(PY)/python $$each; done

bench-users: setup ## What users feel of a mirror, of a rollout and of a fault, on the running cluster; nothing else may run (15 minutes).
	for each in mirror users_path reaction; do e2e/cluster/cluster enter env PYTHONPATH=e2e $(PY)/python e2e/bench_$$each.py; done

bench-decisions: setup ## Compare the engine with the rules that people use, in the same worlds (about 15 minutes).
	PYTHONPATH=tests $(PY)/python -m bench.decision_quality

bench-peers: setup cluster-up ## Flagger and Argo Rollouts beside this operator on the real cluster (25 minutes); WHAT="burst idle", REPETITIONS and PEERS choose.
	for each in $(PEERS); do e2e/peers/build $$each || exit; done
	e2e/cluster/cluster enter env PYTHONPATH=e2e $(PY)/python -m peers $(WHAT) --repetitions $(REPETITIONS) $(PEERS:%=--peer %)

dialects: setup cluster-build ## The contract with Prometheus, asked of VictoriaMetrics; builds it, once (about 5 minutes).
	VICTORIA_METRICS=$$(tests/dialects/build) $(PY)/python -m pytest tests/dialects/victoria_metrics.py

bench-scale: setup ## Measure how the operator grows with its fleet, on a real API server and a real Prometheus; ARGUMENTS='--sizes 100,300' and others (about 10 minutes, alone).
	$(PY)/python tests/bench/bench_scale.py $(ARGUMENTS)

chaos: setup ## Run rollouts of every strategy through every fault, and a sample of all points; writes docs/faults.md.
	PYTHONPATH=tests $(PY)/python -m chaos

chaos-full: setup ## The same with every write and every call of every rollout (hours).
	PYTHONPATH=tests $(PY)/python -m chaos --full

chaos-api: setup cluster-build ## Eight minutes of sequences from number FIRST on, on a real API server; adds a row to docs/faults.md.
	PYTHONPATH=tests $(PY)/python -m chaos.real_sequences $(FIRST)

cluster-build: ## Build what the local cluster is made of; cached by version.
	e2e/cluster/cluster build

images: cluster-build ## Build the images of the operator and of the model servers.
	e2e/images

cluster-up: images ## Start the cluster, or repair it.
	e2e/cluster/cluster up
	e2e/images load

cluster-down: ## End the cluster; nothing of it stays behind.
	e2e/cluster/cluster down

cluster-status: ## Say how the cluster is.
	e2e/cluster/cluster status

cluster-load-image: ## Load IMAGE=name:tag into the cluster.
	e2e/cluster/cluster load-image $(IMAGE)

.PHONY: help demo dialects test setup check fmt unit e2e e2e-gitops crds report-example docs lock sbom audit bench bench-scale bench-decisions bench-peers chaos chaos-full chaos-api cluster-build images cluster-up cluster-down cluster-status cluster-load-image
