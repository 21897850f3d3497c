package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// item is one file and where it is installed.
type item struct {
	from   string // of a link: what it leads to
	link   bool
	to     string
	mode   os.FileMode
	config bool   // the administrator's changes are kept
	only   string // a format, deb or rpm; empty: all
}

// pkg is one package.
type pkg struct {
	name, summary string
	depends       []string // the other packages of this version
	recommends    []string
	items         []item
	scripts       string // folder of the maintainer scripts
}

const (
	units = "/usr/lib/systemd/system/"
	docs  = "/usr/share/doc/flanneld/"
	ours  = "/usr/lib/flannel/"
	// Programs that others than people start: the place for which the policies of SELinux know that it has programs.
	libexec = "/usr/libexec/flannel/"
)

// packages returns what is to be packed of a stage.
func packages(s stage) []pkg {
	return []pkg{
		{
			name: "flanneld", summary: "overlay network for the containers of many hosts", scripts: "dist/packages",
			recommends: []string{"iptables"},
			items:      slices.Concat(daemonItems(s), documents(s.root)),
		},
		{
			name: "flanneld-docker", summary: "docker in the subnet that flanneld has leased", depends: []string{"flanneld"},
			items: dockerItems(s), scripts: "dist/packages/docker",
		},
		{
			name: "flannel-cni-plugin", summary: "CNI plugin for containers in the subnet that flanneld has leased",
			scripts: "dist/packages/cni",
			items: []item{
				program(s.dir+"/flannel", "/opt/cni/bin/flannel"),
				plain(s.root+"/dist/cni/10-flannel.conflist", "/usr/share/flannel/cni/10-flannel.conflist"),
				plain(s.root+"/dist/cni/spec-1.1/10-flannel.conflist", "/usr/share/flannel/cni/spec-1.1/10-flannel.conflist"),
			},
		},
	}
}

func program(from, to string) item { return item{from: from, to: to, mode: 0o755} }
func plain(from, to string) item   { return item{from: from, to: to, mode: 0o644} }

func daemonItems(s stage) []item {
	dist := s.root + "/dist/"
	items := []item{
		program(s.dir+"/flanneld", "/usr/bin/flanneld"),
		program(s.dir+"/flannelctl", "/usr/bin/flannelctl"),
		{from: s.manual + "/flanneld.conf", to: "/etc/flannel/flanneld.conf", mode: 0o644, config: true},
		plain(dist+"systemd/flanneld.service", units+"flanneld.service"),
		plain(dist+"systemd/flanneld@.service", units+"flanneld@.service"),
		plain(dist+"systemd/tmpfiles.conf", "/usr/lib/tmpfiles.d/flannel.conf"),
		plain(dist+"network/sysctl.conf", "/usr/lib/sysctl.d/50-flannel.conf"),
		plain(dist+"network/80-flannel.link", "/usr/lib/systemd/network/80-flannel.link"),
		plain(dist+"network/10-flannel.network", "/usr/lib/systemd/network/10-flannel.network"),
		plain(dist+"network/networkmanager.conf", "/usr/lib/NetworkManager/conf.d/flannel.conf"),
		plain(dist+"monitoring/alerts.yml", "/usr/share/flannel/monitoring/alerts.yml"),
		plain(dist+"monitoring/dashboard.json", "/usr/share/flannel/monitoring/dashboard.json"),
	}
	// Drop-ins of the units, none of them active.
	for _, name := range []string{"extension", "ipip", "sysconfig", "udp", "udp-kernel", "wireguard"} {
		items = append(items, plain(dist+"systemd/"+name+".conf", "/usr/share/flannel/systemd/"+name+".conf"))
	}
	for _, page := range compressedPages(s.manual) {
		section := strings.TrimPrefix(filepath.Ext(strings.TrimSuffix(page, ".gz")), ".")
		items = append(items, plain(page, "/usr/share/man/man"+section+"/"+filepath.Base(page)))
	}
	for _, name := range []string{"flanneld", "flannelctl"} {
		zsh := plain(s.manual+"/_"+name, "")
		deb, rpm := zsh, zsh
		deb.to, deb.only = "/usr/share/zsh/vendor-completions/_"+name, "deb"
		rpm.to, rpm.only = "/usr/share/zsh/site-functions/_"+name, "rpm"
		items = append(items, deb, rpm,
			plain(s.manual+"/"+name+".bash", "/usr/share/bash-completion/completions/"+name),
			plain(s.manual+"/"+name+".fish", "/usr/share/fish/vendor_completions.d/"+name+".fish"))
	}
	return items
}

// compressedPages returns the manual pages as they are installed.
func compressedPages(dir string) []string {
	pages, _ := filepath.Glob(filepath.Join(dir, "*.[18].gz")) // the pattern is valid
	return pages
}

func dockerItems(s stage) []item {
	docker := s.root + "/dist/docker/"
	return []item{
		program(s.dir+"/flannel-docker", libexec+"flannel-docker"),
		program(docker+"mk-docker-opts.sh", libexec+"mk-docker-opts.sh"),
		{from: "../../libexec/flannel/flannel-docker", to: ours + "flannel-docker", link: true},
		{from: "../../libexec/flannel/mk-docker-opts.sh", to: ours + "mk-docker-opts.sh", link: true},
		plain(docker+"docker.service.d-flannel.conf", units+"docker.service.d/flannel.conf"),
		plain(docker+"docker.service.d-flannel-json.conf", "/usr/share/flannel/docker/flannel.conf"),
		plain(docker+"flannel-docker-restart.path", units+"flannel-docker-restart.path"),
		plain(docker+"flannel-docker-restart.service", units+"flannel-docker-restart.service"),
	}
}

// documents are the documentation and the licence.
func documents(root string) []item {
	items := []item{plain(root+"/LICENSE", docs+"copyright"), plain(root+"/CHANGELOG.md", docs+"CHANGELOG.md")}
	pages, _ := filepath.Glob(root + "/docs/*.md") // the pattern is valid
	for _, page := range pages {
		items = append(items, plain(page, docs+filepath.Base(page)))
	}
	return append(items, examples(root+"/dist/examples")...)
}

// examples are what sets hosts up by tools such as Ansible.
func examples(dir string) (items []item) {
	_ = fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error { // a test looks for them
		if err == nil && !d.IsDir() {
			items = append(items, plain(filepath.Join(dir, path), docs+"examples/"+path))
		}
		return err
	})
	return items
}

// of returns the items that a format has, in order.
func of(items []item, format string) (out []item) {
	for _, i := range items {
		if i.only == "" || i.only == format {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b item) int { return strings.Compare(a.to, b.to) })
	return out
}
