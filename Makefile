# Everything here runs on a fresh Debian machine with Go and make; what else is needed is installed when it is missing.
GO      ?= go
BUILD   := build
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null)
DATE    := $(shell TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)
LDFLAGS := -s -w -X flanneld/version.number=$(VERSION) -X flanneld/version.commit=$(COMMIT) -X flanneld/version.date=$(DATE)

export CGO_ENABLED ?= 0

# Every test package but the end-to-end one.
PACKAGES = $(shell $(GO) list ./... | grep -v '/lab$$')

# Suites of tests, each one the arguments of "go test"; hack/runtests runs them side by side. The end-to-end tests, some of which count lost
# packets, have the machine to themselves. A timeout ends a test that hangs; it is wide enough for a machine that does other work as well.
UNIT = "$(PACKAGES) -timeout 30m" "lab/apiserver: ./... -timeout 30m"
E2E  = "./lab -timeout 45m -parallel 6"
# A test that takes longer than this needs a reason in its comment; 0: none does. Where six run at a time on two processors, each takes about
# twice as long as alone.
SLOW ?= 60s

.PHONY: all help build deps runtests check test unit e2e test-all test-flannel test-docker test-kernels test-members test-moves race race-daemon bench bench-scale lint cross fuzz soak soak-lab demo clean
all: build

## help: this list
help:
	@sed -n 's/^## \([a-z0-9-]*\): /\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r target text; do printf '%-16s %s\n' "$$target" "$$text"; done

## build: the programs, static and stripped, in build/
build:
	@mkdir -p $(BUILD)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/flanneld ./cmd/flanneld
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/flannelctl ./cmd/flannelctl
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/flannel ./cni-plugin

## deps: install the Debian packages that tests and demo use, where they are missing
deps:
	@hack/install-packages

# What runs the tests. Built, not run by "go run": Ctrl-C has to reach it, and nothing else.
runtests: deps
	@mkdir -p $(BUILD)
	@$(GO) build -o $(BUILD)/runtests ./hack/runtests
RUNTESTS = CI=1 $(BUILD)/runtests -most $(SLOW)

## check: for daily work: unit and kernel tests with fewer repetitions, and one cluster end to end (root)
check: runtests
	$(RUNTESTS) "./lab -timeout 15m -run TestEveryBackendInEveryFamily/vxlan_over_IPv4" "$(PACKAGES) -short -timeout 30m"

## test: all tests: unit, script, kernel, end to end, packages, monitoring (root)
test: runtests
	$(RUNTESTS) $(UNIT) $(DIST)
	$(RUNTESTS) $(E2E)

## unit: unit, script and kernel tests (root)
unit: runtests
	$(RUNTESTS) $(UNIT)

## e2e: clusters of hosts in network namespaces, with a real etcd (root)
e2e: runtests
	$(RUNTESTS) $(E2E)

## test-all: all large targets one after the other, with a table of their times; continues after an interruption; SOAK=1 adds the soak (root; hours)
test-all:
	@SOAK='$(SOAK)' hack/test-all

## test-flannel: replace flannel by flanneld and back, host by host, under traffic; the first run builds flannel, for some minutes (root)
test-flannel: runtests
	hack/install-packages gcc libc6-dev
	$(RUNTESTS) -most 0 -v "./lab -tags flannel -run RealFlannel -timeout 20m"

## test-members: the embedded etcd with three members: network faults, full disk, reboot, upgrade, new certificate authority (root)
test-members: runtests
	$(RUNTESTS) -most 0 -v "./lab -tags members -run TestAMemberThatIsCutOff|TestAFullDiskOfOne|TestAllHostsThatReboot|TestAHundredRestartsOfMembers|TestMembersAreUpgraded|TestTheAuthority -timeout 60m -parallel 2"

## test-moves: change the backend of a running network under traffic, also beside an earlier version; MOVEHOSTS real hosts, SIMULATED in memory (root; half an hour)
MOVEHOSTS ?= 10
test-moves: runtests
	$(RUNTESTS) -most 0 -v "./backend/registry -run TestEveryPathIsReceived -timeout 0 -cluster.hosts $(SIMULATED) -cluster.moves 2"
	$(RUNTESTS) -most 0 -v "./lab -tags moves -run TestANetworkMovesFromBackend|TestADaemonOfTheFormerVersion -timeout 60m -parallel 1 -move.hosts $(MOVEHOSTS)"

## test-kernels: tests that depend on the kernel, on Debian's 6.1 and 6.12 in qemu without KVM; SUITES and TESTS select; continues after an interruption, unless AGAIN=1 (root; hours)
KERNELS ?= 6.1 6.12
test-kernels: deps
	hack/install-packages qemu-system-x86 kmod xz-utils
	@mkdir -p $(BUILD)
	@$(GO) build -o $(BUILD)/kernels-tool ./hack/kernels
	$(BUILD)/kernels-tool -run '$(SUITES)' -tests '$(TESTS)' $(if $(AGAIN),-again) $(KERNELS)

## test-docker: containers of docker 29 on two hosts, with its iptables and its nftables firewall; the first run builds docker, for some minutes (root)
test-docker: runtests
	$(RUNTESTS) -most 0 -v "./lab -tags docker -run NewDocker -timeout 60m"

## race: unit and kernel tests, and the daemon on a cluster, under the race detector (root)
race: race-daemon
	CGO_ENABLED=1 $(RUNTESTS) -most 0 "$(PACKAGES) -race -timeout 20m"

## race-daemon: the daemon on a cluster, under the race detector (root)
race-daemon: runtests
	hack/install-packages gcc libc6-dev
	$(RUNTESTS) -most 0 "./lab -tags raced -run TheDaemonHasNoDataRaces -timeout 30m"

## bench: benchmarks on a real kernel (root)
bench: deps
	$(GO) test -run '^$$' -bench . -benchmem -timeout 30m ./...

## bench-scale: cost of a start, an event and an idle minute with up to SCALE hosts; up to SIMULATED hosts in one process, with SIMULATED_BACKEND and SIMULATED_FLAGS (root)
SCALE ?= 10000
SIMULATED ?= 1000
SIMULATED_BACKEND ?= vxlan
bench-scale: deps
	$(GO) test -tags simulated ./ip -run TestSimulatedHostsShareObjects
	$(GO) test -tags simulated -run '^$$' -bench Scale -benchtime 1x -timeout 6h ./lab -scale $(SCALE) -simulated $(SIMULATED) -simulated-backend $(SIMULATED_BACKEND) $(SIMULATED_FLAGS)

## lint: gofmt, govet, staticcheck, errorlint, unparam, misspell, over all modules and build tags
lint:
	hack/lint

## cross: build for every architecture; run what depends on it, and the arm64 packages, under qemu-user
cross: runtests
	hack/install-packages qemu-user-static
	hack/cross
	$(RUNTESTS) -most 0 -v "dist/release: . -tags cross -run AnotherArchitecture -timeout 20m"

## fuzz: every fuzz target for FUZZTIME
FUZZTIME ?= 20s
fuzz:
	hack/fuzz $(FUZZTIME)

## soak: simulations of the lease protocol, with SCHEDULES random sequences of faults
SCHEDULES ?= 1000000
soak:
	$(GO) test -timeout 0 ./subnet/keeper -run TestNoOrderOfSingleDecisions -v -steps.schedules $(SCHEDULES)
	$(GO) test -timeout 0 ./subnet/keeper -run TestNoScheduleOfFaults -v -sim.schedules $(SCHEDULES)

## soak-lab: random faults on a cluster of 20 hosts for SOAKTIME, while all pods ping; SEED repeats a run (root)
SOAKTIME ?= 1h
SEED ?= 0
SOAKBACKEND ?= vxlan
soak-lab: runtests
	$(RUNTESTS) -most 0 -v "./lab -tags soak -run TestSoak -timeout 0 -soak.time $(SOAKTIME) -soak.seed $(SEED) -soak.backend $(SOAKBACKEND)"

## demo: three hosts on this machine: pings, a repair, flannelctl status, the loss of an etcd member (root); HOLD=1 keeps it running
demo: build
	@hack/install-packages iproute2 iptables
	$(GO) build -o $(BUILD)/demo ./lab/demo
	$(BUILD)/demo -flanneld $(BUILD)/flanneld -flannelctl $(BUILD)/flannelctl $(if $(HOLD),-hold)

clean:
	rm -rf $(BUILD)

-include dist/dist.mk
