package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// guest is the first process of the machine, started by the kernel from the initramfs.
func guest() {
	err := errors.Join(enter(), work())
	if err != nil {
		fmt.Println("machine:", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// share is where the folder that is shared with the host is mounted.
const share = "/run/share"

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// mount is one call of mount(2).
type mount struct{ source, target, kind, data string }

// plan9 says how folders of the host are mounted: by virtio, in large pieces.
const plan9 = "trans=virtio,version=9p2000.L,msize=512000,cache="

// enter puts the host's root folder below a layer in memory, and goes there.
func enter() error {
	_ = unix.Mount("devtmpfs", "/dev", "devtmpfs", 0, "") // some kernels have done it
	if err := loadModules(); err != nil {
		return err
	}
	if err := mountAll([]mount{
		{"root", "/lower", "9p", plan9 + "loose,ro"}, // nobody changes what the tests read
		{"layer", "/layer", "tmpfs", "size=90%"},
	}); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir("/layer/upper", 0o755), os.Mkdir("/layer/work", 0o755)); err != nil {
		return err
	}
	if err := mountAll([]mount{{"root", "/root",
		"overlay", "lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work"}}); err != nil {
		return err
	}
	if err := errors.Join(unix.Chdir("/root"), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."),
		unix.Chdir("/")); err != nil {
		return fmt.Errorf("change the root folder: %w", err)
	}
	return mountAll([]mount{
		{"devtmpfs", "/dev", "devtmpfs", ""}, {"devpts", "/dev/pts", "devpts", "ptmxmode=666"},
		{"shm", "/dev/shm", "tmpfs", ""},
		{"proc", "/proc", "proc", ""}, {"sysfs", "/sys", "sysfs", ""}, {"cgroup", "/sys/fs/cgroup", "cgroup2", ""},
		{"bpf", "/sys/fs/bpf", "bpf", ""}, {"run", "/run", "tmpfs", ""}, {"share", share, "9p", plan9 + "none"},
	})
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
		}
	}
	return nil
}

// loadModules loads those of the initramfs, in the order of their names.
func loadModules() error {
	files, err := filepath.Glob("/modules/*")
	if err != nil {
		return err
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := unix.InitModule(text, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

// work does what the order says, and writes the result of each job at once.
func work() error {
	text, err := os.ReadFile(filepath.Join(share, "order.json"))
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(text, &o); err != nil {
		return err
	}
	if err := prepare(o.Modules); err != nil {
		return err
	}
	results, err := os.Create(filepath.Join(share, "results.json"))
	if err != nil {
		return err
	}
	defer results.Close()
	out := json.NewEncoder(results)
	for _, j := range o.Jobs {
		fmt.Printf("%s %s\n", time.Now().UTC().Format(time.TimeOnly), j.Name)
		r := j.do()
		if r.Error != "" {
			fmt.Printf("%s: %s\n", j.Name, r.Error)
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes the machine one on which the kernel finds its modules by itself.
func prepare(modules string) error {
	target := filepath.Join("/lib/modules", filepath.Base(modules))
	if err := errors.Join(os.Setenv("PATH", path), os.MkdirAll(filepath.Dir(target), 0o755)); err != nil {
		return err
	}
	if err := os.Symlink(modules, target); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, args := range [][]string{{"ip", "link", "set", "lo", "up"},
		{"modprobe", "-a", "bridge", "tun", "br_netfilter"}} {
		if err := command(context.Background(), "/", args...); err != nil {
			return err
		}
	}
	return os.MkdirAll("/run/tmp", 0o777)
}

// do runs a job to its end.
func (j job) do() result {
	start := time.Now()
	r := result{Name: j.Name}
	log, err := os.Create(filepath.Join(share, j.Name+".log"))
	if err == nil {
		defer log.Close()
		ctx, cancel := context.WithTimeout(context.Background(), j.Timeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, j.Command[0], j.Command[1:]...)
		cmd.Dir, cmd.Env = j.Dir, append(os.Environ(), j.Env...)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
		err = cmd.Run()
	}
	if err != nil {
		r.Error = err.Error()
	}
	r.Seconds = time.Since(start).Seconds()
	return r
}
