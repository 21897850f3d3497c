package dist_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/need"
)

const usual = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"

const usual6 = "FLANNEL_IPV6_NETWORK=fd00:5::/48\nFLANNEL_IPV6_SUBNET=fd00:5:0:22::1/64\n"

const (
	each = "DOCKER_OPT_BIP=\"--bip=10.5.34.1/24\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=false\"\nDOCKER_OPT_MTU=\"--mtu=1450\"\n"
	all  = "DOCKER_OPTS=\" --bip=10.5.34.1/24 --ip-masq=false --mtu=1450\"\n"
)

var dockerOptions = []struct {
	name string
	args string
	env  string
	want string // what is written; empty: nothing, and exit code 1
}{
	{"without -i and -c, both forms are written", "", usual, each + all},
	{"-i writes one variable an option", "-i", usual, each},
	{"-c writes one variable for all", "-c", usual, all},
	{"-i with -c is both", "-i -c", usual, each + all},
	{"-m leaves out ip-masq", "-m", usual, "DOCKER_OPT_BIP=\"--bip=10.5.34.1/24\"\nDOCKER_OPT_MTU=\"--mtu=1450\"\nDOCKER_OPTS=\" --bip=10.5.34.1/24 --mtu=1450\"\n"},
	{"-k names the variable", "-c -k EXTRA_ARGS", usual, strings.Replace(all, "DOCKER_OPTS", "EXTRA_ARGS", 1)},
	{"docker masquerades when flanneld does not", "-c", strings.Replace(usual, "true", "false", 1), strings.Replace(all, "false", "true", 1)},
	{"docker masquerades when the file says nothing", "-c", "FLANNEL_SUBNET=10.5.34.1/24\n", "DOCKER_OPTS=\" --bip=10.5.34.1/24 --ip-masq=true\"\n"},
	{"a last line without an end counts", "-c", strings.TrimSuffix(usual, "\n"), all},
	{"quotes and carriage returns are taken off", "-c", "FLANNEL_SUBNET=\"10.5.34.1/24\"\r\nFLANNEL_MTU='1450'\r\nFLANNEL_IPMASQ=true\r\n", all},
	{"other lines do not matter", "-c", "# FLANNEL_MTU=9\nX=1\n\n PATH=/nowhere\nIFS=.\n" + usual + "FLANNEL_IPV6_SUBNET=fd00:5:0:22::1/64\n", all},
	{"-6 adds the IPv6 subnet", "-c -6", usual + usual6, strings.Replace(all, "1450", "1450 --ipv6 --fixed-cidr-v6=fd00:5:0:22::0/64", 1)},
	{"-6 with -i", "-i -6", usual + usual6, each + "DOCKER_OPT_IPV6=\"--ipv6\"\nDOCKER_OPT_FIXED_CIDR_V6=\"--fixed-cidr-v6=fd00:5:0:22::0/64\"\n"},
	{"-6 of a small subnet", "-c -6", usual + "FLANNEL_IPV6_SUBNET=fd00:5::d/126\n", strings.Replace(all, "1450", "1450 --ipv6 --fixed-cidr-v6=fd00:5::c/126", 1)},
	{"-6 in a network without IPv6 adds nothing", "-c -6", usual, all},
	{"without -6 a network with IPv6 adds nothing", "-c", usual + usual6, all},
	{"an IPv6 subnet that would run a command is an error", "-c -6", usual + "FLANNEL_IPV6_SUBNET=fd00::1/64;touch ran\n", ""},
	{"an IPv6 subnet that is none is an error", "-c -6", usual + "FLANNEL_IPV6_SUBNET=$(touch ran)\n", ""},
	{"a subnet that would run a command is an error", "-c", "FLANNEL_SUBNET=$(touch ran)\n", ""},
	{"a command behind a subnet is an error", "-c", "FLANNEL_SUBNET=10.5.34.1/24;touch ran\n", ""},
	{"backquotes are an error", "-c", "FLANNEL_SUBNET=10.5.34.1/24`touch ran`\n", ""},
	{"a second option in a value is an error", "-c", "FLANNEL_SUBNET=\"10.5.34.1/24 --privileged\"\n", ""},
	{"a pattern as a value is an error", "-c", "FLANNEL_SUBNET=*\n", ""},
	{"an MTU that is no number is an error", "-c", "FLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450;touch ran\n", ""},
	{"ip-masq that is no truth value is an error", "-c", "FLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_IPMASQ=yes\n", ""},
	{"a name of a variable that would be a command is an error", "-c -k A=$(touch${IFS}ran)", usual, ""},
	{"an unknown option is an error", "-x", usual, ""},
	{"an argument is an error", "-c more", usual, ""},
}

func TestDockerOptionsAreMadeFromTheSubnetFile(t *testing.T) {
	script, err := filepath.Abs("docker/mk-docker-opts.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, shell := range [][]string{{need.Program(t, "dash")}, {need.Program(t, "busybox"), "sh"}, {need.Program(t, "bash"), "--posix"}} {
		for _, c := range dockerOptions {
			t.Run(filepath.Base(shell[0])+": "+c.name, func(t *testing.T) {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "subnet.env"), []byte(c.env), 0o644); err != nil {
					t.Fatal(err)
				}
				args := append(shell[1:], script, "-f", "subnet.env", "-d", "out/docker env")
				run := exec.Command(shell[0], append(args, strings.Fields(c.args)...)...)
				run.Dir = dir
				out, err := run.CombinedOutput()
				got, readErr := os.ReadFile(filepath.Join(dir, "out/docker env"))
				switch {
				case c.want == "" && (run.ProcessState.ExitCode() != 1 || readErr == nil || len(out) == 0):
					t.Errorf("exit %d, wrote %q, said %q; want 1, nothing, the reason", run.ProcessState.ExitCode(), got, out)
				case c.want != "" && (err != nil || len(out) > 0):
					t.Errorf("%v: %s", err, out)
				}
				if diff := cmp.Diff(c.want, string(got)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				left, _ := filepath.Glob(filepath.Join(dir, "*"))
				if ran := filepath.Join(dir, "ran"); len(left) > 2 {
					t.Errorf("left behind: %v; a command of the file was run if %s is there", left, ran)
				}
			})
		}
	}
}

func TestDockerOptionsNeedASubnetFile(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "docker.env")
	if err := os.WriteFile(old, []byte("OLD=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(need.Program(t, "dash"), "docker/mk-docker-opts.sh", "-f", filepath.Join(dir, "none"), "-d", old).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "is flanneld running") {
		t.Errorf("got %v, %q; want an error with a hint", err, out)
	}
	if got, _ := os.ReadFile(old); string(got) != "OLD=1\n" {
		t.Errorf("the old file is %q now, want it left alone", got)
	}
}

func TestDockerOptionsCanGoToStandardOutput(t *testing.T) {
	env := filepath.Join(t.TempDir(), "subnet.env")
	if err := os.WriteFile(env, []byte(usual), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := exec.Command(need.Program(t, "dash"), "docker/mk-docker-opts.sh", "-f", env, "-d", "/dev/stdout", "-c").Output()
	if err != nil || string(got) != all {
		t.Errorf("got %q, %v; want %q", got, err, all)
	}
	if _, err := os.Stat("/dev/stdout"); err != nil {
		t.Error(err)
	}
}
