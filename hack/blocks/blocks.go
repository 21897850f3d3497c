// Package blocks reads the commands of the documents. Each block of shell names the place where it is run ("```sh
// host"); a test of that place runs it as it stands.
package blocks

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Place is where commands are run, and by which test.
type Place string

// The places.
const (
	Source     Place = "source"     // the source tree (lab)
	First      Place = "first"      // 192.0.2.1, on which nothing runs yet (lab)
	Other      Place = "other"      // 192.0.2.2, while 192.0.2.1 holds the store of a network (lab)
	TLS        Place = "tls"        // the same with a store that speaks TLS (lab)
	Member     Place = "member"     // 192.0.2.1 with a secured embedded store that runs (lab)
	Joins      Place = "joins"      // 192.0.2.2, beside that; TOKEN is one of it (lab)
	Etcd       Place = "etcd"       // 192.0.2.1 with an empty etcd and its programs (lab)
	Host       Place = "host"       // 192.0.2.2, a host of a healthy network with pods (lab)
	Butane     Place = "butane"     // a machine with butane, and folders of this tree (dist/cloud)
	Kubernetes Place = "kubernetes" // a machine with kubectl and a cluster (dist/kubernetes)
	// the same, with the Kubernetes API as the store and the manifest applied (dist/kubernetes)
	Cluster Place = "cluster"
	// the same, with a manifest of kube-flannel that has to be removed before ours is applied (dist/kubernetes)
	KubeFlannel Place = "kube-flannel"
	Machine     Place = "machine" // a booted machine with systemd, our packages, etcd and docker (dist/machines)
	Flannel     Place = "flannel" // one with a running flannel and our package (dist/machines)
	Never       Place = "never"   // nowhere: the table of exceptions says why
)

// Places are all of them.
var Places = []Place{Source, First, Other, TLS, Member, Joins,
	Etcd, Host, Butane, Kubernetes, Cluster, KubeFlannel, Machine, Flannel, Never}

// Command is shell of a document.
type Command struct {
	File   string // from the root
	Place  Place  // empty if the document, or for inline commands the table, names none
	Inline bool
	Text   string
	Run    string // what is run: the text, but for words that stand for something
}

var fence = regexp.MustCompile("(?ms)^ *```([^\n]*)\n(.*?)^ *```$")

// Read returns all blocks of shell of the documents below a root, and all inline commands with arguments. Translations
// are left out: a test compares their blocks with those of the original.
func Read(root string) ([]Command, error) {
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, isTranslation)
	var out []Command
	for _, file := range append(files, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return nil, err
		}
		out = append(out, read(name, string(text))...)
	}
	return covered(out), nil
}

func isTranslation(file string) bool { return strings.HasSuffix(file, ".zh.md") }

func read(file, text string) (out []Command) {
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		kind, place, _ := strings.Cut(m[1], " ")
		if kind == "sh" || kind == "bash" || kind == "shell" || kind == "console" || kind == "" &&
			looksLikeCommand(strings.TrimSpace(m[2])) {
			out = append(out, Command{File: file, Place: Place(place), Text: m[2], Run: runnable(m[2])})
		}
	}
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		if looksLikeCommand(m[1]) && !slices.Contains(notCommands, m[1]) {
			i := inline[m[1]]
			out = append(out, Command{File: file, Place: i.place, Inline: true, Text: m[1], Run: cmp.Or(i.run, m[1])})
		}
	}
	return out
}

// runnable replaces the lines of a block that cannot be run where it is.
func runnable(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		out.WriteString(strings.ReplaceAll(cmp.Or(instead[trimmed], trimmed), "TOKEN@", "$(cat /root/token)@") + "\n")
	}
	return out.String()
}

// covered drops inline commands that have no place of their own and that a block runs, perhaps with more arguments, and
// those that stand in several documents but once.
func covered(all []Command) []Command {
	lines := map[string]bool{}
	for _, c := range all {
		if !c.Inline {
			for line := range strings.Lines(c.Text) {
				lines[strings.TrimSpace(line)+" "] = true
			}
		}
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(c Command) bool {
		if !c.Inline {
			return false
		}
		if seen[c.Text] {
			return true
		}
		seen[c.Text] = true
		for line := range lines {
			if c.Place == "" && strings.HasPrefix(line, c.Text+" ") {
				return true
			}
		}
		return false
	})
}

// At returns the commands of one place.
func At(root string, place Place) ([]Command, error) {
	all, err := Read(root)
	return slices.DeleteFunc(all, func(c Command) bool { return c.Place != place }), err
}

// programs are what a line begins with that is to be typed.
var programs = strings.Fields("flanneld flannelctl mk-docker-opts.sh flannel-docker etcd etcdctl etcdutl systemctl " +
	"systemd-analyze journalctl docker ctr " +
	"nft iptables ip bridge firewall-cmd nmcli sysctl ping curl make go apt-get dnf rpm dpkg tar kubectl butane skopeo " +
	"cp rm mv cat echo install sudo")

// looksLikeCommand reports whether a text is a program with arguments, perhaps with variables before it.
func looksLikeCommand(text string) bool {
	words := strings.Fields(text)
	for len(words) > 0 && regexp.MustCompile(`^[A-Z_]+=\S*$`).MatchString(words[0]) {
		words = words[1:]
	}
	return len(words) > 1 && slices.Contains(programs, filepath.Base(words[0])) && words[1][0] < 0x80
}
