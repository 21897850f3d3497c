//go:build examples

package dist_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flanneld/need"
	"flanneld/options"
)

func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	c := exec.Command(need.Program(t, name), args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "HOME="+t.TempDir(), "ANSIBLE_NOCOWS=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func TestRubyReadsTheVagrantfile(t *testing.T) {
	run(t, "examples/vagrant", "ruby", "-c", "Vagrantfile")
}

func TestAnsibleReadsThePlaybook(t *testing.T) {
	run(t, "examples/ansible", "ansible-playbook", "--inventory", "hosts.ini", "--syntax-check", "site.yml")
}

func TestTheDaemonTakesTheConfigurationThatTheAnsibleRoleWrites(t *testing.T) {
	for host, embedded := range map[string]bool{"host1": true, "host2": false} {
		file := filepath.Join(t.TempDir(), "flanneld.conf")
		run(t, "examples/ansible", "ansible", host, "--inventory", "hosts.ini", "--connection", "local", "--module-name",
			"template",
			"--args", "src=roles/flanneld/templates/flanneld.conf.j2 dest="+file, "--extra-vars",
			"@roles/flanneld/defaults/main.yml",
			"--extra-vars", "ansible_python_interpreter=/usr/bin/python3")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var environ []string
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				environ = append(environ, strings.ReplaceAll(line, "'", ""))
			}
		}
		for i, line := range environ {
			environ[i] = strings.ReplaceAll(line, "@/etc/flannel/join", "TOKEN@192.0.2.1")
		}
		o, err := options.Parse(nil, environ, io.Discard)
		if err != nil || o.EtcdEmbedded != embedded || (o.Join == "") != embedded || (o.NetworkConfig != "") != embedded ||
			!o.IPMasq {
			t.Errorf("%s: %v, %+v, from\n%s", host, err, o, text)
		}
	}
}
