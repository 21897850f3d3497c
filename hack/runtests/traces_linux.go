package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// adoptOrphans has the kernel make processes whose parents have ended children of this process.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt processes of tests: %w", err)
	}
	return nil
}

// endOrphans kills the children of this process that do not end by themselves soon, and returns their command lines. It
// is called when no child is wanted any more.
func endOrphans() (left []string) {
	const soon = 2 * time.Second // the go command leaves a short-lived process of its own behind
	for start := time.Now(); time.Since(start) < grace; time.Sleep(20 * time.Millisecond) {
		pids := children()
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			if pid, _ := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); pid > 0 || time.Since(start) < soon {
				continue
			}
			if line := commandLine(pid); line != "" && !slices.Contains(left, line) {
				left = append(left, line)
			}
			_ = syscall.Kill(pid, syscall.SIGKILL) // its own children become ours
		}
	}
	return left
}

// children returns the processes whose parent this one is.
func children() (pids []int) {
	own := strconv.Itoa(os.Getpid())
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		text, _ := os.ReadFile(file)                  // it may have ended
		i := strings.LastIndexByte(string(text), ')') // the end of its name
		if fields := strings.Fields(string(text[i+1:])); i > 0 && len(fields) > 1 && fields[1] == own {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// commandLine returns that of a process; empty: it has ended.
func commandLine(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if len(text) == 0 {
		return ""
	}
	return fmt.Sprintf("process %d: %s", pid, strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " ")))
}

// removeBelow removes a folder with all that is mounted in it and the network namespaces of labs whose files lie there,
// and returns what of this there was.
func removeBelow(dir string) (left []string) {
	labs, _ := filepath.Glob(filepath.Join(dir, "flanneld-lab-*"))
	for _, lab := range labs {
		names, _ := filepath.Glob("/run/netns/fl-" + strings.TrimPrefix(filepath.Base(lab), "flanneld-lab-") + "-*")
		for _, name := range names {
			left = append(left, "network namespace "+filepath.Base(name))
			_ = exec.Command("ip", "netns", "del", filepath.Base(name)).Run()
		}
	}
	text, _ := os.ReadFile("/proc/self/mounts")
	lines := slices.Collect(strings.Lines(string(text)))
	for _, line := range slices.Backward(lines) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			left = append(left, "mount "+fields[1])
			_ = unix.Unmount(fields[1], unix.MNT_DETACH)
		}
	}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if f.Name() != lockName {
			left = append(left, "file "+filepath.Join(dir, f.Name()))
		}
	}
	_ = os.RemoveAll(dir)
	return left
}
