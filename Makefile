# Everything here runs on a fresh Debian machine with Go and make; what else is needed is installed when it is missing.
GO      ?= go
BUILD   := build
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)

export CGO_ENABLED ?= 0

# Every test package but the end-to-end one, which has the machine to itself.
PACKAGES = $(shell $(GO) list ./... | grep -v '/lab$$')

.PHONY: all build deps test unit e2e test-flannel race bench bench-scale lint cross fuzz soak demo clean
all: build

## build: the programs, static and stripped, in build/
build:
	@mkdir -p $(BUILD)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/flanneld ./cmd/flanneld
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/flannelctl ./cmd/flannelctl
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/flannel ./cni-plugin

## deps: install the Debian packages that tests and demo use, where they are missing
deps:
	@hack/install-packages

## test: all tests: unit, script, kernel, end to end (root)
test: deps unit e2e

unit: deps
	CI=1 $(GO) test -timeout 10m $(PACKAGES)

## e2e: clusters of hosts in network namespaces, with a real etcd (root)
e2e: deps
	CI=1 $(GO) test -timeout 18m -parallel 4 ./lab

## test-flannel: hosts are swapped with the released flannel and back; builds it first, which takes minutes (root)
test-flannel: deps
	hack/install-packages gcc libc6-dev
	CI=1 $(GO) test -tags flannel -run 'RealFlannel' -timeout 20m -v ./lab

## race: unit tests under the race detector
race: deps
	CGO_ENABLED=1 CI=1 $(GO) test -race -timeout 20m $(PACKAGES)

## bench: benchmarks on a real kernel (root)
bench: deps
	$(GO) test -run '^$$' -bench . -benchmem -timeout 30m ./...

## bench-scale: clusters of up to SCALE hosts, simulated ones of up to CROWD with CROWD_BACKEND: what a start, an event and an idle minute cost (root)
SCALE ?= 10000
CROWD ?= 1000
CROWD_BACKEND ?= vxlan
bench-scale: deps
	$(GO) test -run '^$$' -bench Scale -benchtime 1x -timeout 6h ./lab -scale $(SCALE) -crowd $(CROWD) -crowd-backend $(CROWD_BACKEND)

## lint: gofmt, govet, staticcheck, errorlint, unparam, misspell
lint:
	hack/lint

## cross: build for every architecture, and run what depends on it, and the packages of arm64, under qemu-user
cross:
	hack/install-packages qemu-user-static
	hack/cross
	cd dist/release && CI=1 $(GO) test -tags cross -run AnotherArchitecture -timeout 20m -v .

## fuzz: every fuzz target for FUZZTIME
FUZZTIME ?= 20s
fuzz:
	hack/fuzz $(FUZZTIME)

## soak: the simulation of the lease protocol over SCHEDULES random schedules of faults
SCHEDULES ?= 1000000
soak:
	$(GO) test -timeout 0 ./subnet -run TestNoScheduleOfFaults -v -sim.schedules $(SCHEDULES)

## demo: three hosts on one overlay, from nothing to a ping between pods (root); HOLD=1 keeps it up
demo: build
	@hack/install-packages iproute2 iptables
	$(GO) build -o $(BUILD)/demo ./lab/demo
	$(BUILD)/demo -flanneld $(BUILD)/flanneld $(if $(HOLD),-hold)

clean:
	rm -rf $(BUILD)

-include dist/dist.mk
