package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flanneld/lab"
)

// suite is a package of tests, or a part of one.
type suite struct {
	name    string
	pkg     string
	tests   string // the tests that are run, empty: all
	timeout time.Duration
	flannel bool // it runs the released flannel, too
}

// suites are run in this order. The end-to-end tests are those whose outcome depends on the kernel. Their time limits
// end what hangs, on a host that does much else as well.
var suites = []suite{
	{name: "ip", pkg: "./ip", timeout: 20 * time.Minute},
	{name: "firewall", pkg: "./firewall", timeout: 20 * time.Minute},
	{name: "vxlan", pkg: "./backend/vxlan", timeout: 15 * time.Minute},
	{name: "udp", pkg: "./backend/udp", timeout: 20 * time.Minute},
	{name: "ipip", pkg: "./backend/ipip", timeout: 15 * time.Minute},
	{name: "extension", pkg: "./backend/extension", timeout: 15 * time.Minute},
	{name: "wireguard", pkg: "./backend/wireguard", timeout: 15 * time.Minute},
	{name: "lab-kernels", pkg: "./lab", tests: "TestKernel", timeout: 90 * time.Minute},
	{name: "lab-hosts", pkg: "./lab", tests: "TestSettingsOfDistributions|TestForwardingIsOn|TestCleanupLeavesNoTrace|" +
		"TestTheBackendIsChangedHostByHost", timeout: 90 * time.Minute},
	{name: "lab-wireguard", pkg: "./lab", tests: "TestWireGuard", timeout: 60 * time.Minute},
	{name: "lab-vxlan", pkg: "./lab", tests: table("vxlan over both"), timeout: 90 * time.Minute},
	{name: "lab-host-gw", pkg: "./lab", tests: table("host-gw over both"), timeout: 90 * time.Minute},
	{name: "lab-udp", pkg: "./lab", tests: table("udp over both"), timeout: 90 * time.Minute},
	{name: "lab-udp-kernel", pkg: "./lab", tests: "TestUDP|TestPacketsOfAKernel", timeout: 60 * time.Minute},
	{name: "lab-wireguard-cases", pkg: "./lab", tests: table("wireguard over both"), timeout: 90 * time.Minute},
	{name: "lab-ipip", pkg: "./lab", tests: table("ipip"), timeout: 90 * time.Minute},
	{name: "lab-extension", pkg: "./lab", tests: table("extension"), timeout: 90 * time.Minute},
	{name: "lab-flannel", pkg: "./lab", tests: "TestHostsAreSwappedWithARealFlannel/(wireguard|ipip)",
		timeout: 90 * time.Minute, flannel: true},
}

// table is the pattern of the cases that each backend passes, for networks whose name starts like that.
func table(network string) string {
	return "TestEveryBackendInEveryFamily/" + strings.ReplaceAll(network, " ", "_")
}

// build builds the programs and tests that are run, and returns the jobs of the machine.
func build(ctx context.Context, o options) ([]job, error) {
	programs := filepath.Join(o.dir, "programs")
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(programs, 0o755); err != nil {
		return nil, err
	}
	var jobs []job
	built := map[string]bool{}
	for _, s := range suites {
		if !o.run.MatchString(s.name) {
			continue
		}
		j := s.job(root, programs, o)
		for _, program := range j.Programs {
			if !o.built && !built[program] {
				if err := s.build(ctx, root, program); err != nil {
					return nil, err
				}
				built[program] = true
			}
		}
		jobs = append(jobs, j)
	}
	return jobs, nil
}

// job returns what the machine runs for a suite.
func (s suite) job(root, programs string, o options) job {
	test := filepath.Join(programs, strings.ReplaceAll(strings.Trim(s.pkg, "./"), "/", "-")+".test")
	used := []string{test}
	if s.pkg == "./lab" {
		for name := range commands {
			used = append(used, filepath.Join(programs, name))
		}
		slices.Sort(used)
	}
	if s.flannel {
		used = append(used, filepath.Join(programs, lab.ReleasedFlannel))
	}
	return job{
		Name: s.name, Dir: filepath.Join(root, s.pkg), Timeout: s.timeout, Programs: used,
		Command: []string{test, "-test.v", "-test.timeout=" + s.timeout.String(),
			"-test.run=" + cmp.Or(o.tests, s.tests)},
		Env: []string{"CI=1", "TMPDIR=/run/tmp", "HOME=/root", "LAB_PROGRAMS=" + programs,
			"LAB_LOGS=" + share + "/logs", fmt.Sprintf("LAB_SCALE=%g", o.scale)},
	}
}

// commands are the packages of what the end-to-end tests run, by the names of their programs; apiserver is a module of
// its own.
var commands = map[string]string{"flanneld": "./cmd/flanneld", "flannelctl": "./cmd/flannelctl", "etcd": "./lab/etcd",
	"apiserver": "./lab/apiserver"}

// build builds one of the programs of a suite.
func (s suite) build(ctx context.Context, root, program string) error {
	name := filepath.Base(program)
	pkg, isCommand := commands[name]
	switch {
	case name == lab.ReleasedFlannel:
		return lab.BuildFlannel(ctx, program, filepath.Join(root, "lab", "flannel"))
	case name == "apiserver":
		return lab.BuildAPIServer(ctx, program, filepath.Join(root, "lab", "apiserver"))
	case isCommand: // the same from each commit that changes nothing of it
		return goCommand(ctx, "build", "-buildvcs=false", "-ldflags", "-X flanneld/version.number=lab", "-o", program, pkg)
	}
	return goCommand(ctx, "test", "-c", "-tags=kernels,flannel", "-o", program, s.pkg)
}

// goCommand runs the go tool without cgo.
func goCommand(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
