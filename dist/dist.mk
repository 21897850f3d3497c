# Targets of dist/: what puts flanneld on real hosts. The modules in its folders are apart so that the daemon's has few dependencies.

.PHONY: release test-release test-monitoring

## release: packages, archives, image, bills of materials and checksums, in build/release
release:
	cd dist/release && $(GO) run . -root ../..

test: test-release

test-release: deps
	cd dist/release && CI=1 $(GO) test -timeout 10m ./...

test: test-monitoring

## test-monitoring: alert rules and dashboard, by the code of promtool
test-monitoring:
	cd hack/promcheck && $(GO) test -timeout 5m ./...
