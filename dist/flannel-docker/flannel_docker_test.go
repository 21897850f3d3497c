package main_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	env4 = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
	env6 = "FLANNEL_IPV6_NETWORK=fd00:5::/48\nFLANNEL_IPV6_SUBNET=fd00:5:0:22::1/64\nFLANNEL_MTU=1430\n" +
		"FLANNEL_IPMASQ=false\n"
)

// build returns the program.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "flannel-docker")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

const set4 = "\"bip\": \"10.5.34.1/24\",\n    \"mtu\": 1450,\n    \"ip-masq\": false\n}\n"

var configs = []struct {
	name, env, old, want string // want is empty for an error, which leaves the file as it is
	args                 []string
}{
	{"a missing file is made", env4, "", "{\n    " + set4, nil},
	{"what is there stays, in its order and as it is written", env4,
		`{"zeta": 1.50, "log-opts": {"max-size": "10m", "a": [1, 2]}, "big": 12345678901234567890, "u": "\u00e4<>"}`,
		"{\n    \"zeta\": 1.50,\n    \"log-opts\": {\n        \"max-size\": \"10m\",\n        \"a\": [\n            1,\n" +
			"            2\n        ]\n    },\n" +
			"    \"big\": 12345678901234567890,\n    \"u\": \"\\u00e4<>\",\n    " + set4, nil},
	{"old values of ours are replaced in place", env4, `{"mtu": 1500, "debug": true, "bip": "10.5.1.1/24"}`,
		"{\n    \"mtu\": 1450,\n    \"debug\": true,\n    \"bip\": \"10.5.34.1/24\",\n    \"ip-masq\": false\n}\n", nil},
	{"a network with IPv6 sets docker's IPv6 keys too", "FLANNEL_SUBNET=10.5.34.1/24\n" + env6, `{}`,
		"{\n    \"bip\": \"10.5.34.1/24\",\n    \"mtu\": 1430,\n    \"ip-masq\": true,\n    \"ipv6\": true,\n" +
			"    \"fixed-cidr-v6\": \"fd00:5:0:22::/64\"\n}\n", nil},
	{"a file that differs in blanks only is not touched", env4,
		"{\"bip\":\"10.5.34.1/24\",\"mtu\":1450,\n\"ip-masq\":false}",
		"{\"bip\":\"10.5.34.1/24\",\"mtu\":1450,\n\"ip-masq\":false}", nil},
	{"-remove takes out our keys only", env4, `{"mtu": 1450, "debug": true, "bip": "10.5.34.1/24"}`,
		"{\n    \"debug\": true\n}\n", []string{"-remove"}},
	{"half a file is an error", env4, `{"debug": true`, "", nil},
	{"no object is an error", env4, `[1]`, "", nil},
	{"something behind the object is an error", env4, `{} {}`, "", nil},
	{"a key that stands there twice is an error", env4, `{"a": 1, "a": 2}`, "", nil},
	{"a comment is an error", env4, "// docker\n{}", "", nil},
	{"a subnet file that makes no sense is an error", "FLANNEL_SUBNET=10.5\n", `{}`, "", nil},
	{"a network without IPv4 is an error", env6, `{}`, "", nil},
}

// dockerd makes this host's docker daemon one that knows some options.
func dockerd(t *testing.T, options string) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "dockerd"), "#!/bin/sh\n[ \"$*\" = --help ] && echo '"+options+"'\n")
	if err := os.Chmod(filepath.Join(dir, "dockerd"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestDockersConfigurationAllowsDirectRoutingWhereDockerKnowsIt(t *testing.T) {
	program, dir := build(t), t.TempDir()
	file, env := filepath.Join(dir, "daemon.json"), filepath.Join(dir, "subnet.env")
	write(t, env, env4)
	const allowed = "{\n    \"bip\": \"10.5.34.1/24\",\n    \"mtu\": 1450,\n    \"ip-masq\": false,\n" +
		"    \"allow-direct-routing\": true\n}\n"
	for _, c := range []struct{ name, options, want string }{
		{"docker 28", "--bip --allow-direct-routing --mtu", allowed},
		{"an older docker, after a downgrade", "--bip --mtu", "{\n    " + set4},
	} {
		dockerd(t, c.options)
		if out, err := exec.Command(program, "daemon-json", "-subnet-file", env, "-file", file).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c.name, err, out)
		}
		got, _ := os.ReadFile(file)
		if diff := cmp.Diff(c.want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestDockersConfigurationKeepsWhatIsThere(t *testing.T) {
	program := build(t)
	dockerd(t, "--bip --mtu")
	for _, c := range configs {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			file, env := filepath.Join(dir, "daemon.json"), filepath.Join(dir, "subnet.env")
			write(t, env, c.env)
			if c.old != "" {
				write(t, file, c.old)
			}
			out, err := exec.Command(program,
				append([]string{"daemon-json", "-subnet-file", env, "-file", file}, c.args...)...).CombinedOutput()
			want := c.want
			if want == "" {
				want = c.old
			}
			if failed := err != nil; failed != (c.want == "") {
				t.Errorf("error %v: %s", err, out)
			}
			got, _ := os.ReadFile(file)
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDockersConfigurationOfOurKeysAloneGoesWithThem(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	write(t, file, `{"mtu": 1450, "allow-direct-routing": true}`)
	for range 2 { // the second time there is nothing to do
		if out, err := exec.Command(build(t), "daemon-json", "-remove", "-file", file).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("the file is still there: %v", err)
		}
	}
}

func TestDockersConfigurationKeepsItsModeAndItsLink(t *testing.T) {
	dir := t.TempDir()
	file, link, env := filepath.Join(dir, "real.json"), filepath.Join(dir, "daemon.json"), filepath.Join(dir, "subnet.env")
	write(t, env, env4)
	write(t, file, `{}`)
	if err := os.Symlink("real.json", link); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(build(t), "daemon-json", "-subnet-file", env, "-file", link).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if target, err := os.Readlink(link); err != nil || target != "real.json" {
		t.Errorf("the link leads to %q (%v), want real.json", target, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 || info.Size() < 10 {
		t.Errorf("got %v, %v; want mode 0640 and our keys", info, err)
	}
}

func TestWaitSaysWhyAndEndsWithTheSubnet(t *testing.T) {
	dir := t.TempDir()
	env, stamp := filepath.Join(dir, "subnet.env"), filepath.Join(dir, "stamp")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	wait := exec.CommandContext(ctx, build(t), "wait", "-subnet-file", env, "-stamp", stamp)
	said, err := wait.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := wait.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(),
		"waiting for a subnet: flanneld has not written its subnet file yet") {
		t.Errorf("first line: %q, want the reason", lines.Text())
	}
	write(t, env, env6)
	if !lines.Scan() || !strings.Contains(lines.Text(), "names no IPv4 subnet") {
		t.Errorf("second line: %q, want the new reason", lines.Text())
	}
	write(t, env, env4)
	if err := wait.Wait(); err != nil {
		t.Errorf("wait: %v", err)
	}
	if got, _ := os.ReadFile(stamp); string(got) != env4 {
		t.Errorf("stamp: %q, want the subnet file", got)
	}
}

func TestChangedComparesWithWhatDockerWasStartedWith(t *testing.T) {
	program, dir := build(t), t.TempDir()
	env, stamp := filepath.Join(dir, "subnet.env"), filepath.Join(dir, "stamp")
	check := func(want int) {
		t.Helper()
		err := exec.Command(program, "changed", "-subnet-file", env, "-stamp", stamp).Run()
		var exit *exec.ExitError
		got := 0
		if errors.As(err, &exit) {
			got = exit.ExitCode()
		}
		if got != want {
			t.Errorf("exit code %d, want %d", got, want)
		}
	}
	check(1)
	write(t, env, env4)
	check(1)
	write(t, stamp, env4)
	check(1)
	write(t, env, "DOCKER_OPTS=\" --bip=10.5.34.1/24\"\n"+env4) // what others write there is nothing to docker
	check(1)
	write(t, env, strings.Replace(env4, "10.5.34.1", "10.5.35.1", 1))
	check(0)
}

func TestAWrongCommandIsAUsageError(t *testing.T) {
	program := build(t)
	for _, args := range [][]string{nil, {"what"}, {"wait", "-what"}, {"wait", "more"}} {
		c := exec.Command(program, args...)
		if _ = c.Run(); c.ProcessState.ExitCode() != 2 {
			t.Errorf("%v: exit code %d, want 2", args, c.ProcessState.ExitCode())
		}
	}
}
