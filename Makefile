# What a person or CI runs. `make help` lists the targets.
SHELL := /bin/bash
CARGO ?= cargo
TOOLS := $(CURDIR)/target/tools
DENY := $(TOOLS)/bin/cargo-deny

# Most tests wait for something most of the time: more of them than cores.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $(CORES) + 1)))

.DEFAULT_GOAL := help
.PHONY: help build image test test-operator e2e e2e-image cluster-up cluster-down tools lint charts audit bench crds manifests clean

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

build: ## Build the release program: target/release/bellhop
	$(CARGO) build --release

image: ## Build the image without a Docker daemon: target/image/bellhop.tar (Linux, buildah)
	@image/build

test: tools e2e-image ## Run every test; builds the foreign programs they need the first time
	E2E=yes PROMTOOL=$(TOOLS)/bin/promtool $(CARGO) test --features planted-bugs

test-operator: tools ## Only those on a real API server; BELLHOP_KUBERNETES=1.30 takes the oldest one
	$(CARGO) test --features planted-bugs --test it -- cluster::

e2e: tools e2e-image ## Only the tests on a cluster with real pods (Linux, root; or E2E_CONTEXT=name of yours)
	E2E=yes $(CARGO) test --features planted-bugs --test e2e -- $(E2E_ARGS)

# Where that cluster can run; elsewhere its tests say why not.
e2e-image: tools
	@[ -n "$(E2E_CONTEXT)" ] || ! tests/cluster/check >/dev/null || image/build

cluster-up: tools ## Start that cluster, of one node, and leave it running
	@tests/cluster/up $(wildcard target/image/bellhop.tar)

cluster-down: ## End it
	@tests/cluster/down

tools: ## Build or install the foreign programs of the tests into target/tools
	@tests/tools/install.sh $(TOOLS)

lint: $(DENY) ## Formatting, lints, licences and sources of dependencies
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --features planted-bugs -- -D warnings
	$(DENY) check bans licenses sources

charts: tools ## Lint, render and validate the charts, their alerts and dashboard
	PROMTOOL=$(TOOLS)/bin/promtool $(CARGO) test --test it charts::

audit: $(DENY) ## Known vulnerabilities of dependencies; needs the internet
	$(DENY) check advisories

$(DENY):
	@echo "installing cargo-deny into target/tools (minutes the first time) ..."
	$(CARGO) install --quiet --locked --root $(TOOLS) cargo-deny@0.20.2

bench: tools ## Measure everything, about 40 minutes; writes target/bench/ and docs/performance.md
	$(CARGO) bench --bench journey -- $(BENCH_ARGS)

CRD := bellhop.dev_webhooksubscriptions.yaml
KEEP := '  annotations:' '    helm.sh/resource-policy: keep' \
	'    {{- with .Values.annotations }}' '    {{- toYaml . | nindent 4 }}' '    {{- end }}'

crds: ## Write crds/, its chart, docs/resource.md and docs/conditions.md anew from the types
	$(CARGO) run --quiet -- crd > crds/$(CRD)
	printf '%s\n' $(KEEP) | sed '/^metadata:$$/r /dev/stdin' crds/$(CRD) > charts/bellhop-crds/templates/$(CRD)
	$(CARGO) run --quiet -- crd --reference > docs/resource.md
	$(CARGO) run --quiet -- crd --conditions > docs/conditions.md

manifests: tools ## Write deploy/ anew from the charts
	deploy/render.sh $(TOOLS)/bin/helm > $(TOOLS)/bellhop.yaml
	mv $(TOOLS)/bellhop.yaml deploy/bellhop.yaml
	deploy/rights.sh > $(TOOLS)/rbac.yaml
	mv $(TOOLS)/rbac.yaml deploy/rbac.yaml

clean: ## Remove all that was built; ends the cluster first
	@[ ! -d target/cluster ] || tests/cluster/down
	$(CARGO) clean
