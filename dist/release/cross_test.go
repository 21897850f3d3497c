//go:build cross

package main_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flanneld/need"
)

// TestThePackagesOfAnotherArchitectureRun builds the release of arm64 and runs its programs on this machine, by
// qemu-user.
func TestThePackagesOfAnotherArchitectureRun(t *testing.T) {
	qemu := need.Program(t, "qemu-aarch64-static")
	program, out := filepath.Join(t.TempDir(), "release"), filepath.Join(t.TempDir(), "out")
	output(t, "go", "build", "-o", program, ".")
	if text, err := exec.Command(program, "-root", "../..", "-o", out, "-arch", "arm64", "-version", describe, "-kinds",
		"deb,rpm").CombinedOutput(); err != nil {
		t.Fatalf("release: %v\n%s", err, text)
	}
	root := t.TempDir()
	for _, name := range []string{"flanneld", "flanneld-docker", "flannel-cni-plugin"} {
		deb := match(t, out, name+"_*_arm64.deb")
		if got := output(t, "dpkg-deb", "--field", deb, "Architecture"); got != "arm64\n" {
			t.Errorf("%s is for %q", deb, got)
		}
		if got := output(t, "rpm", "-qp", "--nosignature", "--queryformat", "%{ARCH}",
			match(t, out, name+"-1*.aarch64.rpm")); got != "aarch64" {
			t.Errorf("rpm of %s is for %q", name, got)
		}
		output(t, "dpkg-deb", "--extract", deb, root)
	}
	run := func(stdin, path string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, qemu, append([]string{filepath.Join(root, path)}, args...)...)
		c.Env, c.Stdin = append(os.Environ(), "CNI_COMMAND=VERSION"), strings.NewReader(stdin)
		text, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%s %v: %v\n%s", path, args, err, text)
		}
		return string(text)
	}
	wants := func(got string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
	}
	wants(run("", "usr/bin/flanneld", "-version"), describe)
	wants(run("", "usr/bin/flannelctl", "--help"), "doctor", "leases")
	wants(run(`{"cniVersion": "1.0.0"}`, "opt/cni/bin/flannel"), `"supportedVersions"`)
	leased := daemon(t, qemu, filepath.Join(root, "usr/bin/flanneld"))
	wants(leased, "FLANNEL_NETWORK=10.5.0.0/16", "FLANNEL_SUBNET=10.5.")
	subnet, file := filepath.Join(root, "subnet.env"), filepath.Join(root, "daemon.json")
	if err := os.WriteFile(subnet, []byte(leased), 0o644); err != nil {
		t.Fatal(err)
	}
	run("", "usr/lib/flannel/flannel-docker", "daemon-json", "-subnet-file", subnet, "-file", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wants(string(text), `"bip": "10.5.`)
}

// daemon runs flanneld with a store of its own in an empty network namespace, until it has leased a subnet, and returns
// what it writes.
func daemon(t *testing.T, qemu, flanneld string) string {
	t.Helper()
	const script = `set -e
ip link set lo up
ip link add eth0 type veth peer name eth1
ip address add 192.0.2.1/24 dev eth0
ip link set eth0 up
ip link set eth1 up
"$QEMU" "$FLANNELD" -iface eth0 -etcd-embedded -etcd-embedded-insecure -iptables-forward-rules=false -subnet-file "$DIR/run/subnet.env" -state-dir "$DIR/state" \
	-network-config '{"Network": "10.5.0.0/16", "Backend": {"Type": "alloc"}}' >"$DIR/log" 2>&1 &
while ! cat "$DIR/run/subnet.env" 2>/dev/null; do kill -0 $! || { cat "$DIR/log"; exit 1; }; sleep 0.1; done
`
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	c := exec.CommandContext(ctx, need.Program(t, "unshare"), "--net", "--pid", "--fork", "--kill-child", "sh", "-c",
		script)
	c.Env = append(os.Environ(), "QEMU="+qemu, "FLANNELD="+flanneld, "DIR="+dir)
	out, err := c.Output()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		t.Fatalf("%v\n%s%s", err, out, log)
	}
	return string(out)
}
