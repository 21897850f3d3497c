# Targets of dist/: what puts flanneld on real hosts. Some of its folders are modules of their own, so that the daemon's has few
# dependencies.

.PHONY: release test-dist test-monitoring test-machines test-kubernetes

## release: packages, archives, image, bills of materials and checksums, in build/release
release:
	cd dist/release && $(GO) run . -root ../..

test: test-dist test-monitoring

test-dist: deps
	cd dist/release && CI=1 $(GO) test -timeout 10m ./...
	cd dist/cloud && CI=1 $(GO) test -timeout 5m ./...

## test-monitoring: alert rules and dashboard, by the code of promtool
test-monitoring:
	cd hack/promcheck && $(GO) test -timeout 5m ./...

## test-machines: three booted machines with systemd, etcd, docker and our packages; the documents' commands on two (root; a few minutes)
test-machines: deps
	hack/install-packages gcc libc6-dev
	CI=1 $(GO) test -tags machines -timeout 20m -v ./dist/machines

## test-kubernetes: the manifest on a cluster of Kubernetes 1.34 with containerd (root; the first run builds Kubernetes, for some ten minutes)
test-kubernetes: deps
	CI=1 $(GO) test -tags kubernetes -timeout 60m -v ./dist/kubernetes
