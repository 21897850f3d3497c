package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"flanneld/subnet"
)

const pollPeriod = 500 * time.Millisecond

// wait returns when the subnet file names a subnet for docker. Until then the service manager and the journal are told
// what is missing, each reason once.
func wait(ctx context.Context, o options) error {
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	last := ""
	for {
		_, _, err := readSubnet(o.subnetFile)
		if err == nil {
			_, _ = daemon.SdNotify(false, "STATUS=") // docker sets one of its own, or none
			return remember(o)
		}
		if reason := "waiting for a subnet: " + explain(ctx, err); reason != last {
			last = reason
			fmt.Fprintln(os.Stderr, reason)
			_, _ = daemon.SdNotify(false, "STATUS="+reason) // without a service manager the line above is enough
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// readSubnet returns the content of the subnet file and the address that docker's bridge gets.
func readSubnet(file string) (subnet.Env, netip.Prefix, error) {
	e, err := subnet.ReadEnv(file)
	if err != nil {
		return e, netip.Prefix{}, err
	}
	for _, p := range e.Subnets {
		if p.Addr().Is4() {
			return e, netip.PrefixFrom(p.Addr().Next(), p.Bits()), nil
		}
	}
	return e, netip.Prefix{}, fmt.Errorf("%s names no IPv4 subnet, which docker needs", file)
}

// explain adds what flanneld says itself, where systemd can be asked.
func explain(ctx context.Context, err error) string {
	text := err.Error()
	if errors.Is(err, os.ErrNotExist) {
		text = "flanneld has not written its subnet file yet"
	}
	var out bytes.Buffer
	c := exec.CommandContext(ctx, "systemctl", "show", "--property=ActiveState,StatusText", "flanneld.service")
	c.Stdout = &out
	if c.Run() != nil {
		return text
	}
	state := map[string]string{}
	for line := range strings.Lines(out.String()) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		state[key] = value
	}
	text += "; flanneld.service is " + state["ActiveState"]
	if s := state["StatusText"]; s != "" {
		text += ": " + s
	}
	return text
}

// remember keeps a copy of the subnet file, to be compared by changed.
func remember(o options) error {
	text, err := subnet.ReadFile(o.subnetFile, subnet.MaxEnvSize)
	if err != nil {
		return err
	}
	return replaceFile(o.stamp, text, 0o644)
}

// changed returns nil if docker was started with another subnet than that of the subnet file.
func changed(_ context.Context, o options) error {
	old, err := subnet.ReadFile(o.stamp, subnet.MaxEnvSize)
	if err != nil {
		return fmt.Errorf("docker was not started by flannel-docker: %w", err)
	}
	now, err := subnet.ReadFile(o.subnetFile, subnet.MaxEnvSize)
	if err != nil {
		return err
	}
	if maps.Equal(subnet.EnvValues(old), subnet.EnvValues(now)) { // others may have added lines of their own
		return errors.New("docker runs with the present subnet")
	}
	return nil
}

// replaceFile replaces a file whole or not at all.
func replaceFile(path string, text []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
