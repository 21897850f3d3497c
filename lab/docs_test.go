package lab_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"flanneld/lab"
)

// block is a piece of shell in a document.
type block struct {
	text string
	run  bool // marked "sh run": must succeed on a host of a cluster
}

// blocks returns all shell of a document.
func blocks(t *testing.T, file string) []block {
	t.Helper()
	text := must[[]byte](t)(os.ReadFile(file))
	var out []block
	for _, m := range regexp.MustCompile("(?ms)^ *```sh( run)?\n(.*?)^ *```$").FindAllStringSubmatch(string(text), -1) {
		out = append(out, block{m[2], m[1] != ""})
	}
	return out
}

// documents returns all of docs/ and the files beside it.
func documents(t *testing.T) []string {
	t.Helper()
	files := must[[]string](t)(filepath.Glob("../docs/*.md"))
	return append(files, "../README.md", "../CONTRIBUTING.md")
}

func TestCommandsInTheDocumentsRun(t *testing.T) {
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(2)
	c.startAll(hosts, e)
	c.pods(hosts...)
	c.healthy(hosts[0])
	path := filepath.Dir(binaries.Flannelctl) + ":" + os.Getenv("PATH")
	ran := 0
	for _, file := range documents(t) {
		for _, b := range blocks(t, file) {
			if !b.run {
				continue
			}
			ran++
			_, err := hosts[0].Exec(c.ctx, "env", "PATH="+path, "FLANNELD_SUBNET_FILE="+hosts[0].SubnetFile(), "FLANNELD_STATE_DIR="+hosts[0].StateDir(),
				"sh", "-euc", b.text)
			if err != nil {
				t.Errorf("%s:\n%s%v", file, b.text, err)
			}
		}
	}
	if ran < 10 {
		t.Errorf("%d blocks ran, want those of all documents", ran)
	}
}

// TestEveryFlannelctlCommandInTheDocumentsExists checks commands and flags of lines that cannot be run as they stand.
func TestEveryFlannelctlCommandInTheDocumentsExists(t *testing.T) {
	checked := map[string]bool{}
	for _, file := range documents(t) {
		for _, b := range blocks(t, file) {
			for line := range strings.Lines(b.text) {
				words := strings.Fields(line)
				if len(words) < 2 || words[0] != "flannelctl" {
					continue
				}
				if err := knows(words[1:], checked); err != nil {
					t.Errorf("%s: %s: %v", file, strings.TrimSpace(line), err)
				}
			}
		}
	}
	if len(checked) < 10 {
		t.Errorf("%d commands checked, want those of all documents", len(checked))
	}
}

// knows reports what flannelctl does not know of a command line: its commands and flags must be named in its help.
func knows(words []string, checked map[string]bool) error {
	var commands, flags []string
	options := false // values may follow from here on
	for _, w := range words {
		switch {
		case strings.HasPrefix(w, "--"):
			flags, options = append(flags, strings.SplitN(w, "=", 2)[0]), true
		case strings.HasPrefix(w, "-"), options:
			options = true
		case regexp.MustCompile(`^[a-z]+$`).MatchString(w):
			commands = append(commands, w)
		}
	}
	help, err := exec.Command(binaries.Flannelctl, append(commands, "--help")...).Output()
	if err != nil {
		return err
	}
	if len(commands) > 0 && commands[0] != "completion" && !strings.Contains(string(help), "flannelctl "+strings.Join(commands, " ")) {
		return fmt.Errorf("no command %q", commands)
	}
	for _, f := range flags {
		if !strings.Contains(string(help), f) {
			return fmt.Errorf("%q has no flag %s", commands, f)
		}
	}
	checked[strings.Join(commands, " ")] = true
	return nil
}

func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	for _, file := range documents(t) {
		text := string(must[[]byte](t)(os.ReadFile(file)))
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`).FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", file, m[1])
			}
		}
	}
	index := string(must[[]byte](t)(os.ReadFile("../docs/README.md")))
	for _, file := range must[[]string](t)(filepath.Glob("../docs/*.md")) {
		if name := filepath.Base(file); name != "README.md" && !strings.Contains(index, "]("+name+")") {
			t.Errorf("docs/README.md does not name %s", name)
		}
	}
}

// TestADaemonWithLeastRights runs with the role that docs/security.md describes.
func TestADaemonWithLeastRights(t *testing.T) {
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	c.ok(authorize(c, e, "flannel", map[string]bool{"/": false, "/subnets/": true, "/claims/": true}))
	hosts := c.hosts(2)
	var daemons []*lab.Daemon
	for _, h := range hosts {
		daemons = append(daemons, c.start(h, e, "-etcd-username", "flannel", "-etcd-password", "secret"))
	}
	c.ok(lab.Ready(c.ctx, daemons...))
	c.healthy(hosts[0])
	c.refused(hosts[0], 1, "permission denied", "network", "set", `{"Network":"10.5.0.0/16","SubnetMin":"10.5.16.0","Backend":{"Type":"vxlan"}}`, "--force")
}
