# Targets of dist/: what puts flanneld on real hosts. The modules in its folders are apart so that the daemon's has few dependencies.

.PHONY: release test-release

## release: packages, archives, image, bills of materials and checksums, in build/release
release:
	cd dist/release && $(GO) run . -root ../..

test: test-release

test-release: deps
	cd dist/release && CI=1 $(GO) test -timeout 10m ./...
