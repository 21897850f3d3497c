package cloud_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flanneld/need"
)

// underlay makes a network of one machine that has the addresses of all three hosts, and a name server that knows them.
const underlay = `set -e
mount --bind "$DIR/resolv.conf" /etc/resolv.conf
ip link set lo up
for n in 1 2 3; do ip address add 192.0.2.1$n/24 dev lo; done
set --
for n in 1 2 3; do set -- "$@" --host-record=node$n.example.com,192.0.2.1$n --srv-host=_etcd-server._tcp.example.com,node$n.example.com,2380; done
dnsmasq --conf-file=/dev/null --no-hosts --no-resolv --listen-address=127.0.0.1 --bind-interfaces --pid-file= --user=root "$@"
`

// answers waits for the endpoints that flanneld is told, and prints the members of the cluster behind the first.
const answers = `
for url in $(echo $FLANNELD_ETCD_ENDPOINTS | tr , ' '); do
	curl --silent --show-error --fail --retry 300 --retry-delay 0 --retry-max-time 50 --retry-all-errors --max-time 5 --data '{}' $url/v3/maintenance/status >/dev/null
done
curl --silent --show-error --fail --data '{}' $url/v3/cluster/member/list
`

func TestTheMembersFindOneAnother(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	etcd := filepath.Join(t.TempDir(), "etcd")
	build := exec.Command("go", "build", "-o", etcd, "./lab/etcd")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, how := range members {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			script := underlay
			for n := 1; n <= 3; n++ {
				script += start(t, n, files(t, node(t, "fcos", how, n)), etcd, dir)
			}
			if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := isolated(t, script+answers, dir)
			var list struct{ Members []struct{ Name string } }
			if err == nil {
				err = json.Unmarshal([]byte(out), &list)
			}
			if err != nil || len(list.Members) != 3 {
				t.Errorf("got %v and the members %+v, want three", err, list.Members)
			}
		})
	}
}

// start returns the command that a host's unit of etcd runs, with the variables of the unit's files.
func start(t *testing.T, n int, have map[string]string, etcd, dir string) string {
	t.Helper()
	env := map[string]string{}
	script := ""
	for _, path := range []string{"/etc/cluster/members.env", "/etc/cluster/node.env"} {
		for line := range strings.Lines(have[path]) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			env[name] = value
			script += fmt.Sprintf("export %s='%s'\n", name, value)
		}
	}
	unit := strings.ReplaceAll(have["/etc/systemd/system/etcd.service"], "\\\n", "")
	_, command, _ := strings.Cut(unit, "\nExecStart=/opt/etcd/etcd ")
	command, _, ok := strings.Cut(command, "\n")
	if !ok || env["NODE_NAME"] == "" {
		t.Fatalf("no command in the unit of etcd, or no name of host %d:\n%s", n, unit)
	}
	command = strings.ReplaceAll(os.Expand(command, func(name string) string { return env[name] }), "/var/lib/etcd",
		filepath.Join(dir, env["NODE_NAME"]))
	// All members share the loopback interface here: one of them has it.
	if n > 1 {
		command = strings.ReplaceAll(command, ",http://127.0.0.1:2379", "")
	}
	return script + etcd + " " + command + " --unsafe-no-fsync --log-level=warn &\n"
}

// isolated runs a script in namespaces of its own and returns what it prints; everything that it has started ends with
// it.
func isolated(t *testing.T, script, dir string) (string, error) {
	t.Helper()
	need.Program(t, "dnsmasq")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, need.Program(t, "unshare"), "--net", "--mount", "--pid", "--fork", "--kill-child",
		"sh", "-c", script)
	c.Env = append(os.Environ(), "DIR="+dir)
	var stderr strings.Builder
	c.Stderr = &stderr
	c.WaitDelay = 5 * time.Second
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, stderr.String())
	}
	return string(out), err
}
