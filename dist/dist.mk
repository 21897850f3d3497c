# Targets of dist/: what puts flanneld on real hosts. Some of its folders are modules of their own, so that the daemon's has few
# dependencies.

DIST = "dist/release: ./... -timeout 30m" "dist/cloud: ./... -timeout 30m" "hack/promcheck: ./... -timeout 30m"

.PHONY: release test-dist test-examples test-machines test-kubernetes

## release: packages, archives, image, chart, bills of materials, release notes and checksums, in build/release; VERSION, SIGN_KEY and URL: docs/packages.md
release:
	cd dist/release && $(GO) run . -root ../.. $(if $(filter-out undefined file,$(origin VERSION)),-version '$(VERSION)') $(if $(COMMIT),-commit '$(COMMIT)') $(if $(SIGN_KEY),-sign-key '$(abspath $(SIGN_KEY))') $(if $(URL),-url '$(URL)')

## test-dist: packages, images, configurations for CoreOS; alert rules and dashboard by the code of promtool (root)
test-dist: runtests
	$(RUNTESTS) $(DIST)

## test-examples: syntax and configuration of the examples, by ansible and ruby (root)
test-examples: runtests
	hack/install-packages ansible-core ruby
	$(RUNTESTS) -most 0 -v "./dist -tags examples -timeout 10m -run Ansible|Ruby"

## test-machines: booted machines with systemd, etcd and docker: packages, commands of the documents, each backend, upgrades, a read-only system, the examples of Ansible, Vagrant and Docker Compose (root; a quarter of an hour)
test-machines: runtests
	hack/install-packages gcc libc6-dev ansible-core ruby
	$(RUNTESTS) -most 0 -v "./dist/machines -tags machines -timeout 60m"

## test-kubernetes: clusters of Kubernetes 1.34 with containerd, one of them made by kubeadm (root; the first run builds Kubernetes, for some ten minutes)
test-kubernetes: runtests
	$(RUNTESTS) -most 0 -v "./dist/kubernetes -tags kubernetes -timeout 60m"
