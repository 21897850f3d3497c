// Package machines boots whole machines, with systemd as their first process, in containers of systemd-nspawn: the
// nearest thing to three real hosts that fits on one. It needs root, debootstrap and systemd-container.
package machines

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const suite = "bookworm"

// included are the packages of every machine beside the minimal system. docker brings containerd and ctr; rpm is there
// to try our packages of its kind; Ansible needs Python.
const (
	included = "systemd,systemd-sysv,udev,dbus,iproute2,iptables,nftables,iputils-ping,procps,netbase"
	added    = "docker.io docker-compose network-manager python3-apt rpm"
)

// Root returns a folder with a system that machines share as their lowest layer. It is made once, and kept in dir.
func Root(ctx context.Context, dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	making, err := lock(ctx, dir)
	if err != nil {
		return "", err
	}
	defer making.Close()
	root := filepath.Join(dir, suite)
	stamp := filepath.Join(root, ".complete")
	want := included + " " + added + "\n"
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		return root, nil
	}
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	for _, command := range [][]string{
		{"debootstrap", "--variant=minbase", "--include=" + included, suite, root},
		// The tests' folder for temporary files is not there.
		{"chroot", root, "env", "--unset=TMPDIR", "sh", "-c", `printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d && apt-get update -q &&
			DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends ` + added + ` &&
			rm /usr/sbin/policy-rc.d && systemctl enable systemd-networkd && systemctl disable NetworkManager && apt-get clean && rm -f /etc/resolv.conf`},
	} {
		if err := run(ctx, command...); err != nil {
			return "", err
		}
	}
	return root, os.WriteFile(stamp, []byte(want), 0o644)
}

// run runs a program to its end; the error has what it said.
func run(ctx context.Context, command ...string) error {
	_, err := output(ctx, command...)
	return err
}

// output runs a program to its end and returns all that it said.
func output(ctx context.Context, command ...string) (string, error) {
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, lastLines(string(out), 30))
	}
	return string(out), nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

const controlGroupRoot = "/sys/fs/cgroup"

// controlGroups returns the folders of the hierarchies in which a machine needs a group of its own.
func controlGroups() (found []string) {
	for _, dir := range []string{controlGroupRoot, controlGroupRoot + "/unified", controlGroupRoot + "/systemd"} {
		if _, err := os.Stat(dir + "/cgroup.procs"); err == nil {
			found = append(found, dir)
		}
	}
	return found
}
