package dist_test

import (
	"errors"
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
	{"-m leaves out ip-masq", "-m", usual,
		"DOCKER_OPT_BIP=\"--bip=10.5.34.1/24\"\nDOCKER_OPT_MTU=\"--mtu=1450\"\n" +
			"DOCKER_OPTS=\" --bip=10.5.34.1/24 --mtu=1450\"\n"},
	{"-k names the variable", "-c -k EXTRA_ARGS", usual, strings.Replace(all, "DOCKER_OPTS", "EXTRA_ARGS", 1)},
	{"docker masquerades when flanneld does not", "-c", strings.Replace(usual, "true", "false", 1),
		strings.Replace(all, "false", "true", 1)},
	{"nothing about masquerading in the file, nothing in the options", "", "FLANNEL_SUBNET=10.5.34.1/24\n",
		"DOCKER_OPT_BIP=\"--bip=10.5.34.1/24\"\nDOCKER_OPTS=\" --bip=10.5.34.1/24\"\n"},
	{"with -m it does not matter what the file says about masquerading", "-c -m",
		"FLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_IPMASQ=yes\n", "DOCKER_OPTS=\" --bip=10.5.34.1/24\"\n"},
	{"lines with export count", "-c", "export " +
		strings.ReplaceAll(strings.TrimSuffix(usual, "\n"), "\n", "\nexport \t") + "\n", all},
	{"the last of doubled lines counts", "-c", "FLANNEL_MTU=9000\nFLANNEL_SUBNET=nonsense\n" + usual, all},
	{"an empty file gives empty options", "", "\n", "DOCKER_OPTS=\"\"\n"},
	{"a last line without an end counts", "-c", strings.TrimSuffix(usual, "\n"), all},
	{"quotes and carriage returns are taken off", "-c",
		"FLANNEL_SUBNET=\"10.5.34.1/24\"\r\nFLANNEL_MTU='1450'\r\nFLANNEL_IPMASQ=true\r\n", all},
	{"other lines do not matter", "-c", "# FLANNEL_MTU=9\nX=1\n\n PATH=/nowhere\nIFS=.\n" + usual +
		"FLANNEL_IPV6_SUBNET=fd00:5:0:22::1/64\n", all},
	{"-6 adds the IPv6 subnet", "-c -6", usual + usual6,
		"DOCKER_OPTS=\" --bip=10.5.34.1/24 --fixed-cidr-v6=fd00:5:0:22::0/64 --ip-masq=false --ipv6 --mtu=1450\"\n"},
	{"-6 with -i", "-i -6", usual + usual6,
		"DOCKER_OPT_BIP=\"--bip=10.5.34.1/24\"\nDOCKER_OPT_FIXED_CIDR_V6=\"--fixed-cidr-v6=fd00:5:0:22::0/64\"\n" +
			"DOCKER_OPT_IPMASQ=\"--ip-masq=false\"\nDOCKER_OPT_IPV6=\"--ipv6\"\nDOCKER_OPT_MTU=\"--mtu=1450\"\n"},
	{"-6 of a small subnet", "-c -6 -m", usual + "FLANNEL_IPV6_SUBNET=fd00:5::d/126\n",
		"DOCKER_OPTS=\" --bip=10.5.34.1/24 --fixed-cidr-v6=fd00:5::c/126 --ipv6 --mtu=1450\"\n"},
	{"-6 in a network without IPv6 adds nothing", "-c -6", usual, all},
	{"without -6 a network with IPv6 adds nothing", "-c", usual + usual6, all},
	{"an IPv6 subnet that would run a command is an error", "-c -6", usual + "FLANNEL_IPV6_SUBNET=fd00::1/64;touch ran\n",
		""},
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
}

// dockerShells are those that the script is run by: with -short the one that most hosts have.
func dockerShells(t *testing.T) [][]string {
	t.Helper()
	if testing.Short() {
		return [][]string{{need.Program(t, "dash")}}
	}
	return [][]string{{need.Program(t, "dash")}, {need.Program(t, "busybox"), "sh"}, {need.Program(t, "bash"), "--posix"}}
}

// dockerScript is one run of the script, in a folder of its own, on a host whose dockerd knows the options of help.
type dockerScript struct {
	shell []string
	args  []string
	env   []string
	dir   string
	help  string
}

func (r dockerScript) run(t *testing.T) (stdout, stderr string, code int) {
	t.Helper()
	script, err := filepath.Abs("docker/mk-docker-opts.sh")
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut strings.Builder
	bin := t.TempDir()
	writeFile(t, filepath.Join(bin, "dockerd"),
		"#!/bin/sh\n[ \"$*\" = --help ] && echo '      --bip string   IPv4 address\n"+r.help+"'\n")
	if err := os.Chmod(filepath.Join(bin, "dockerd"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(r.shell[0], append(append(r.shell[1:], script, "-j", "daemon.json"), r.args...)...)
	cmd.Dir, cmd.Env = r.dir, append([]string{"PATH=" + bin + ":" + os.Getenv("PATH")}, r.env...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// Slow: every shell that there is reads each of some dozens of files, in processes of its own.
func TestDockerOptionsAreMadeFromTheSubnetFile(t *testing.T) {
	for _, shell := range dockerShells(t) {
		for _, c := range dockerOptions {
			t.Run(filepath.Base(shell[0])+": "+c.name, func(t *testing.T) {
				dir := t.TempDir()
				writeFile(t, filepath.Join(dir, "subnet.env"), c.env)
				args := append([]string{"-f", "subnet.env", "-d", "out/docker env"}, strings.Fields(c.args)...)
				_, said, code := dockerScript{shell: shell, args: args, dir: dir}.run(t)
				got, readErr := os.ReadFile(filepath.Join(dir, "out/docker env"))
				switch {
				case c.want == "" && (code != 1 || readErr == nil || said == ""):
					t.Errorf("exit %d, wrote %q, said %q; want 1, nothing, the reason", code, got, said)
				case c.want != "" && (code != 0 || said != ""):
					t.Errorf("exit %d: %s", code, said)
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

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// dockerCallers are what callers put into the environment and on the command line. A reason is said, and the exit code
// is 0: systemd ends flanneld if the script is its ExecStartPost and fails.
var dockerCallers = []struct {
	name string
	args string // " ": an empty argument
	vars []string
	file string // the subnet file; empty: there is none
	want string
	says string
}{
	{"the caller's own options come first", "-c", []string{"DOCKER_OPTS=--debug -H fd://"}, usual,
		strings.Replace(all, `="`, `="--debug -H fd:// `, 1), ""},
	{"the caller's own options under another name", "-c -k EXTRA", []string{"EXTRA=--debug", "DOCKER_OPTS=-x"}, usual,
		strings.Replace(all, `DOCKER_OPTS="`, `EXTRA="--debug `, 1), ""},
	{"more options of the caller", "", []string{"DOCKER_OPT_DNS=--dns 192.0.2.1", "DOCKER_OPT_Z=-z", "XDOCKER_OPT_A=-a"},
		usual,
		"DOCKER_OPT_BIP=\"--bip=10.5.34.1/24\"\nDOCKER_OPT_DNS=\"--dns 192.0.2.1\"\n" +
			"DOCKER_OPT_IPMASQ=\"--ip-masq=false\"\nDOCKER_OPT_MTU=\"--mtu=1450\"\nDOCKER_OPT_Z=\"-z\"\n" +
			"DOCKER_OPTS=\" --bip=10.5.34.1/24 --dns 192.0.2.1 --ip-masq=false --mtu=1450 -z\"\n", ""},
	{"what the subnet file says comes before the environment", "-i",
		[]string{"DOCKER_OPT_MTU=--mtu=9000", "FLANNEL_SUBNET=10.9.9.1/24"}, usual, each, ""},
	{"what the subnet file does not say comes from the environment", "-i",
		[]string{"DOCKER_OPT_MTU=--mtu=9000", "FLANNEL_IPMASQ=true"},
		"FLANNEL_SUBNET=10.5.34.1/24\n", strings.Replace(each, "1450", "9000", 1), ""},
	{"the caller's own masquerading with -m", "-c -m", []string{"DOCKER_OPT_IPMASQ=--ip-masq=true"}, usual,
		strings.Replace(all, "false", "true", 1), ""},
	{"quotes and what a shell would run stay as they are", "-i",
		[]string{"DOCKER_OPT_X=--log-opt tag=\"a\\b$(touch ran)`touch ran`\""}, "X=1\n",
		"DOCKER_OPT_X=\"--log-opt tag=\\\"a\\\\b\\$(touch ran)\\`touch ran\\`\\\"\"\n", ""},
	{"a line of a value that looks like a variable is none", "-i", []string{"Y=a\nDOCKER_OPT_FAKE=-x"}, usual, each, ""},
	{"an empty argument for the key", "-c -k  ", nil, usual, all, "-k has no name"},
	{"an empty variable for the key in a unit", "-c -k -d out", nil, usual, all, "-k has no name"},
	{"an empty variable for the key, options together", "-ck -d out", nil, usual, all, "-k has no name"},
	{"an argument more", "-c more", nil, usual, all, "more at the end is ignored"},
	{"no subnet file yet", "", []string{"DOCKER_OPTS=--debug"}, "", "DOCKER_OPTS=\"--debug \"\n", "is flanneld running"},
	{"no subnet file yet, and nothing of the caller", "-i", nil, "", "", "is flanneld running"},
}

// Slow: every shell that there is reads each of some dozens of files, in processes of its own.
func TestDockerOptionsOfTheCallerStay(t *testing.T) {
	for _, shell := range dockerShells(t) {
		for _, c := range dockerCallers {
			t.Run(filepath.Base(shell[0])+": "+c.name, func(t *testing.T) {
				dir := t.TempDir()
				if c.file != "" {
					writeFile(t, filepath.Join(dir, "subnet.env"), c.file)
				}
				writeFile(t, filepath.Join(dir, "out"), "OLD=1\n")
				args := []string{"-f", "subnet.env", "-d", "out"}
				args = append(args, strings.Fields(c.args)...)
				if strings.HasSuffix(c.args, "  ") {
					args = append(args, "")
				}
				_, said, code := dockerScript{shell: shell, args: args, env: c.vars, dir: dir}.run(t)
				got, _ := os.ReadFile(filepath.Join(dir, "out"))
				if code != 0 || !strings.Contains(said, c.says) || (said == "") != (c.says == "") {
					t.Errorf("exit %d, said %q; want 0, %q", code, said, c.says)
				}
				if diff := cmp.Diff(c.want, string(got)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
					t.Error("a value was run by the shell")
				}
			})
		}
	}
}

func TestDockerOptionsAllowDirectRoutingWhereDockerKnowsIt(t *testing.T) {
	const help = "      --allow-direct-routing   Allow remote access to published ports on container IP addresses"
	const allowed = "DOCKER_OPT_ALLOW_DIRECT_ROUTING=\"--allow-direct-routing\"\n" + each +
		"DOCKER_OPTS=\" --allow-direct-routing " +
		"--bip=10.5.34.1/24 --ip-masq=false --mtu=1450\"\n"
	for _, shell := range dockerShells(t) {
		for _, c := range []struct{ name, help, json, env, want string }{
			{"docker 28 and later", help, "{}\n", usual, allowed},
			{"without a configuration file", help, "", usual, allowed},
			{"an older docker", "", "{}\n", usual, each + all},
			{"the configuration file says it", help, "{\n  \"allow-direct-routing\": true\n}\n", usual, each + all},
			{"no subnet yet", help, "", "X=1\n", "DOCKER_OPTS=\"\"\n"},
		} {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "subnet.env"), c.env)
			if c.json != "" {
				writeFile(t, filepath.Join(dir, "daemon.json"), c.json)
			}
			_, said, code := dockerScript{shell: shell, args: []string{"-f", "subnet.env", "-d", "out"}, dir: dir,
				help: c.help}.run(t)
			if got, _ := os.ReadFile(filepath.Join(dir, "out")); code != 0 || said != "" || string(got) != c.want {
				t.Errorf("%v, %s: exit %d, %q, wrote:\n%s", shell, c.name, code, said, got)
			}
		}
	}
}

func TestDockerOptionsInTheSubnetFileKeepItsLines(t *testing.T) {
	for _, shell := range dockerShells(t) {
		file := filepath.Join(t.TempDir(), "subnet.env")
		writeFile(t, file, "# by hand\nX=1\n"+usual)
		for range 2 {
			_, said, code := dockerScript{shell: shell, args: []string{"-f", file, "-d", file}}.run(t)
			if got, _ := os.ReadFile(file); code != 0 || said != "" || string(got) != "# by hand\nX=1\n"+usual+each+all {
				t.Errorf("%v: exit %d, %q, wrote:\n%s", shell, code, said, got)
			}
		}
	}
}

func TestDockerOptionsDoNotReplaceDevicesAndLinks(t *testing.T) {
	for _, shell := range dockerShells(t) {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "subnet.env"), usual)
		out := filepath.Join(dir, "out")
		writeFile(t, filepath.Join(dir, "real"), "OLD=1\n")
		r := dockerScript{shell: shell, dir: dir}
		// As /dev/stdout is: a link to whatever the standard output is, a file here.
		for target, to := range map[string]string{"/proc/self/fd/1": "", "real": filepath.Join(dir, "real"),
			"later": filepath.Join(dir, "later")} {
			if err := os.Symlink(target, out); err != nil {
				t.Fatal(err)
			}
			r.args = []string{"-f", "subnet.env", "-d", "out", "-c"}
			got, said, code := r.run(t)
			if to != "" {
				text, _ := os.ReadFile(to)
				got = string(text)
			}
			if now, err := os.Readlink(out); code != 0 || said != "" || got != all || now != target {
				t.Errorf("%v, a link to %s: exit %d, %q, wrote %q, the link is %q now, %v", shell, target, code, said, got, now,
					err)
			}
			if err := os.Remove(out); err != nil {
				t.Fatal(err)
			}
		}
		// The standard output is a regular file, so that the script cannot know the device by what it leads to.
		file, err := os.Create(filepath.Join(dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if err := os.Symlink("/proc/self/fd/1", out); err != nil {
			t.Fatal(err)
		}
		script, _ := filepath.Abs("docker/mk-docker-opts.sh")
		// A file that sets the option itself: what dockerd this host has does not matter.
		writeFile(t, filepath.Join(dir, "daemon.json"), `{"allow-direct-routing": true}`)
		cmd := exec.Command(shell[0], append(append(shell[1:], script, "-j", "daemon.json"), r.args...)...)
		cmd.Dir, cmd.Stdout = dir, file
		err = cmd.Run()
		got, _ := os.ReadFile(file.Name())
		if now, _ := os.Readlink(out); err != nil || string(got) != all || now == "" {
			t.Errorf("%v: %v, wrote %q, the link is %q now", shell, err, got, now)
		}
	}
}
