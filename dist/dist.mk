# Targets of dist/: what puts flanneld on real hosts. Some of its folders are modules of their own, so that the daemon's has few
# dependencies.

DIST = "dist/release: ./... -timeout 30m" "dist/cloud: ./... -timeout 30m" "hack/promcheck: ./... -timeout 30m"

.PHONY: release test-dist test-examples test-machines test-kubernetes

## release: packages, archives, image, chart, bills of materials, release notes and checksums, in build/release; VERSION names it, SIGN_KEY is the file of the key that signs checksums, rpms and repositories for apt and dnf, URL is where those are to be served
release:
	cd dist/release && $(GO) run . -root ../.. $(if $(filter-out undefined file,$(origin VERSION)),-version '$(VERSION)') $(if $(COMMIT),-commit '$(COMMIT)') $(if $(SIGN_KEY),-sign-key '$(abspath $(SIGN_KEY))') $(if $(URL),-url '$(URL)')

## test-dist: packages, images, configurations for CoreOS; alert rules and dashboard by the code of promtool (root)
test-dist: runtests
	$(RUNTESTS) $(DIST)

## test-examples: the examples are read by ansible and ruby, beside what "make test" checks (root)
test-examples: runtests
	hack/install-packages ansible-core ruby
	$(RUNTESTS) -most 0 -v "./dist -tags examples -timeout 10m -run Ansible|Ruby"

## test-machines: three booted machines with systemd, etcd, docker and our packages; on two, the documents' commands, each backend, upgrades from a former commit and back; the examples of Ansible, Vagrant and Docker Compose (root; a quarter of an hour)
test-machines: runtests
	hack/install-packages gcc libc6-dev ansible-core ruby
	$(RUNTESTS) -most 0 -v "./dist/machines -tags machines -timeout 60m"

## test-kubernetes: the manifest on a cluster of Kubernetes 1.34 with containerd, also one made by kubeadm (root; the first run builds Kubernetes, for some ten minutes)
test-kubernetes: runtests
	$(RUNTESTS) -most 0 -v "./dist/kubernetes -tags kubernetes -timeout 60m"
