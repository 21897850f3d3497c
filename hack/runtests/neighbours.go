package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// neighbours are the limits of a machine's neighbour tables. All namespaces share one table of each family, and the
// limits of the first namespace (net/core/neighbour.c). The hosts of clusters in namespaces need more than the usual
// 1,024 entries; without room for one the kernel drops packets, in all of them.
type neighbours struct {
	proc string // /proc
	kept string // file with the limits that the machine had, which runs at the same time share
}

var ofMachine = neighbours{"/proc", "/run/flanneld-tests-neighbours"}

// limits are the settings and what they must be at least.
var limits = []struct {
	name  string
	least int
}{{"gc_thresh3", 32_768}, {"gc_thresh2", 16_384}}

// hold raises the limits until release is called; the last run to release sets them back, also if others were killed.
// A machine that does not allow it keeps its own.
func (n neighbours) hold() (release func(), err error) {
	f, err := n.share()
	switch {
	case errors.Is(err, os.ErrPermission): // not root
		return func() {}, nil
	case err != nil:
		return nil, fmt.Errorf("raise the limits of the neighbour tables: %w", err)
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, l := range limits {
			file := filepath.Join(n.proc, "sys/net", family, "neigh/default", l.name)
			text, err := os.ReadFile(file)
			before := strings.TrimSpace(string(text))
			if now, _ := strconv.Atoi(before); err != nil || now >= l.least {
				continue
			}
			if os.WriteFile(file, []byte(strconv.Itoa(l.least)), 0) == nil {
				_, _ = fmt.Fprintln(f, file, before)
			}
		}
	}
	return func() { n.release(f) }, nil
}

// share opens the file, with a lock that others share. Who has set the limits back has removed it.
func (n neighbours) share() (*os.File, error) {
	for {
		f, err := os.OpenFile(n.kept, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH)
		opened, statErr := f.Stat()
		there, _ := os.Stat(n.kept)
		switch err := errors.Join(err, statErr); {
		case err != nil:
			_ = f.Close()
			return nil, err
		case os.SameFile(opened, there):
			return f, nil
		}
		_ = f.Close()
	}
}

// release sets the limits back if nobody else holds them.
func (n neighbours) release(f *os.File) {
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return
	}
	_, _ = f.Seek(0, io.SeekStart)
	text, _ := io.ReadAll(f)
	for line := range strings.Lines(string(text)) {
		if file, before, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			_ = os.WriteFile(file, []byte(before), 0)
		}
	}
	_ = os.Remove(n.kept)
}
