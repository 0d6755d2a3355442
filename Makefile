# make up     everything from nothing: installs what is missing, builds, starts a cluster
# make test   every test, with real containers
# make help   the rest
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo v0.1.0-dev)
KUBERNETES := $(shell sed -n 's/.*Kubernetes = "\(.*\)"/\1/p' internal/version/version.go)
BIN := bin
# The product is static: one file runs on any distribution. runc enters namespaces in C, which is linked in, too.
export CGO_ENABLED := 0
# Programs and tests are compiled alike, so that one cache serves both.
export GOFLAGS := -trimpath -buildvcs=false
LDFLAGS := -s -w -X skiff.dev/skiff/internal/version.Skiff=$(VERSION)
# What the built-in kubectl says of itself.
LDFLAGS += $(addprefix -X k8s.io/component-base/version.,gitVersion=$(KUBERNETES) gitMajor=1 gitMinor=$(word 2,$(subst ., ,$(KUBERNETES))))
GOBUILD := go build -ldflags '$(LDFLAGS)'

PROGRAMS := skiff containerd-shim-runc-v2 runc skiff-cni pause skiff-web skiff-ingress
.PHONY: up down build deps test-deps test test-unit test-cluster compare ui bench lint clean help $(PROGRAMS)

up: deps build ## install what is missing, build, start a cluster in the foreground
	@exec $(BIN)/skiff up

down: ## remove what the cluster left on this host
	@$(BIN)/skiff down

test-deps: ## install what tests need besides: a browser, and Node.js to build the web UI afresh
	@build/deps test

deps: ## install what building and testing need (Debian, Ubuntu); asks nothing
	@build/deps

build: $(PROGRAMS) ## build everything into bin/

ui: ## build the web UI, if its sources have changed (needs Node.js and npm then)
	@build/ui

skiff: ui
	@build/progress "[1/7] skiff" $(GOBUILD) -o $(BIN)/skiff ./cmd/skiff
containerd-shim-runc-v2: skiff
	@build/progress "[2/7] containerd-shim-runc-v2" $(GOBUILD) -tags no_grpc -o $(BIN)/ github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
runc: containerd-shim-runc-v2
	@CGO_ENABLED=1 build/progress "[3/7] runc" $(GOBUILD) -ldflags '$(LDFLAGS) -extldflags -static' -tags seccomp,urfave_cli_no_docs,netgo,osusergo -o $(BIN)/runc github.com/opencontainers/runc
skiff-cni: runc
	@build/progress "[4/7] skiff-cni" $(GOBUILD) -o $(BIN)/skiff-cni ./cmd/skiff-cni
skiff-web: skiff-cni
	@build/progress "[5/7] skiff-web" $(GOBUILD) -o $(BIN)/skiff-web ./cmd/skiff-web
skiff-ingress: skiff-web
	@build/progress "[6/7] skiff-ingress" $(GOBUILD) -o $(BIN)/skiff-ingress ./cmd/skiff-ingress
pause: skiff-ingress
	@build/progress "[7/7] pause" gcc -Os -static -s -Wall -Wextra -o $(BIN)/pause cmd/pause/pause.c

test: test-deps build test-unit test-cluster ## every test

test-unit: ## the packages' own tests
	@SKIFF_BIN_DIR=$(CURDIR)/$(BIN) go test -timeout 15m ./cmd/... ./internal/...

test-cluster: test-deps ## whole clusters: the real binary, real containers
	@SKIFF_BIN_DIR=$(CURDIR)/$(BIN) go test -timeout 25m -count 1 ./test/...

compare: ## ask kube-scheduler what Skiff's scheduler was asked in a thousand random clusters, and show where they differ; compiles it, which takes a while
	@mkdir -p $(BIN)
	@go test -count 1 -run TestLikeTheReference ./internal/scheduler/class -args -cases 1000 -record $(CURDIR)/$(BIN)/decisions
	@go test -count 1 -run TestLikeASlowLook ./internal/scheduler/preempt -args -cases 5000 -record $(CURDIR)/$(BIN)/preemptions
	@cd test/upstream && go run . $(CURDIR)/$(BIN)/decisions $(CURDIR)/$(BIN)/preemptions

bench: build ## run the benchmarks and print their medians
	@SKIFF_BIN_DIR=$(CURDIR)/$(BIN) go run ./bench

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l cmd internal test bench)" || { gofmt -l cmd internal test bench; exit 1; }
	@go vet ./...
	@go tool staticcheck ./...

clean: ## remove what was built
	rm -rf $(BIN)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
