package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// job is a program that runs in the machine.
type job struct {
	Name    string
	Dir     string
	Command []string
	Env     []string
	Timeout time.Duration

	Programs []string `json:"-"` // that it runs, on the host
}

// order is what the machine is given, as the file order.json of its share.
type order struct {
	Modules string // folder of the kernel's modules, on the host
	Jobs    []job
}

// result is what has become of a job. Its output is the file NAME.log of the share.
type result struct {
	Name    string
	Seconds float64
	Error   string // empty: it passed
}

// errDied says that a machine has ended before its time.
var errDied = errors.New("the machine has ended, see console.log")

// errNoStart says that a machine has not come to its first job. On a busy host the emulated processors sometimes meet
// what the kernel is just changing in its own code.
var errNoStart = errors.New("the virtual machine returned no results")

// boot starts a machine that runs jobs and ends. The share is a folder of the host to which the machine writes. With
// errDied it returns the results of the jobs before the one that the machine has ended with.
func boot(ctx context.Context, k kernel, share string, jobs []job) ([]result, error) {
	done := filepath.Join(share, "results.json")
	if err := os.Remove(done); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	text, err := json.Marshal(order{k.modules(), jobs})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(share, "order.json"), text, 0o644); err != nil {
		return nil, err
	}
	archive := filepath.Join(share, "initramfs")
	if err := writeInitramfs(archive, k); err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-nic", "none",
		"-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "4096",
		"-kernel", k.image(), "-initrd", archive, "-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check",
		"-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
		"-virtfs", "local,path="+share+",mount_tag=share,security_model=none",
		"-device", "virtio-rng-pci",
	)
	console, err := os.Create(filepath.Join(share, "console.log"))
	if err != nil {
		return nil, err
	}
	defer console.Close()
	cmd.Stdout, cmd.Stderr = io.MultiWriter(console, os.Stdout), os.Stderr
	err = cmd.Run()
	results, bad := readResults(done)
	switch {
	case bad != nil:
		err = errors.Join(err, fmt.Errorf("%w, see %s: %w", errNoStart, console.Name(), bad))
	case len(results) < len(jobs):
		err = errDied
	}
	return results, err
}

func writeInitramfs(path string, k kernel) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(initramfs(f, k, program), f.Close())
}

func readResults(path string) (out []result, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var r result
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return out, err
		}
		out = append(out, r)
	}
}
