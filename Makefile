# What a person or CI runs. `make help` lists the targets.
SHELL := /bin/bash
CARGO ?= cargo
TOOLS := $(CURDIR)/target/tools
DENY := $(TOOLS)/bin/cargo-deny

.DEFAULT_GOAL := help
.PHONY: help build test tools lint audit bench crds clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

build: ## Build the release program: target/release/bellhop
	$(CARGO) build --release

test: tools ## Run every test; builds the foreign programs they need the first time
	PROMTOOL=$(TOOLS)/bin/promtool $(CARGO) test --features planted-bugs

tools: ## Build or install the foreign programs of the tests into target/tools
	@tests/tools/install.sh $(TOOLS)

lint: $(DENY) ## Formatting, lints, licences and sources of dependencies
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --features planted-bugs -- -D warnings
	$(DENY) check bans licenses sources

audit: $(DENY) ## Known vulnerabilities of dependencies; needs the internet
	$(DENY) check advisories

$(DENY):
	@echo "installing cargo-deny into target/tools (minutes the first time) ..."
	$(CARGO) install --quiet --locked --root $(TOOLS) cargo-deny@0.20.2

bench: tools ## Measure everything, about 40 minutes; writes target/bench/ and docs/performance.md
	$(CARGO) bench --bench journey -- $(BENCH_ARGS)

crds: ## Write crds/, docs/resource.md and docs/conditions.md anew from the types
	$(CARGO) run --quiet -- crd > crds/bellhop.dev_webhooksubscriptions.yaml
	$(CARGO) run --quiet -- crd --reference > docs/resource.md
	$(CARGO) run --quiet -- crd --conditions > docs/conditions.md

clean: ## Remove all that was built
	$(CARGO) clean
