package lab

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
)

// fdStore keeps files of a host's daemon from one run to the next, as systemd does for a unit with
// FileDescriptorStoreMax.
type fdStore struct {
	mu    sync.Mutex // guards all below
	names []string
	// not os.File: the runtime would poll them, and this process be woken for each packet that the daemon moves
	fds []int
}

// note takes in a notification of the daemon, and the control message that came with it.
func (s *fdStore) note(text string, oob []byte) {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		fields[key] = value
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if fields["FDSTOREREMOVE"] == "1" {
		s.removeLocked(fields["FDNAME"])
	}
	messages, _ := syscall.ParseSocketControlMessage(oob) // nothing that cannot be parsed is kept
	for _, m := range messages {
		fds, _ := syscall.ParseUnixRights(&m)
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			s.names, s.fds = append(s.names, fields["FDNAME"]), append(s.fds, fd)
		}
	}
}

func (s *fdStore) removeLocked(name string) {
	var names []string
	var fds []int
	for i, fd := range s.fds {
		if s.names[i] == name {
			_ = syscall.Close(fd)
			continue
		}
		names, fds = append(names, s.names[i]), append(fds, fd)
	}
	s.names, s.fds = names, fds
}

// activate returns environment, files and command line with which a daemon gets what is kept (sd_listen_fds(3)). The
// files are the caller's, to be closed once the daemon has started.
func (s *fdStore) activate(env, args []string) ([]string, []*os.File, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.fds) == 0 {
		return env, nil, args
	}
	var files []*os.File
	for i, fd := range s.fds {
		if own, err := syscall.Dup(fd); err == nil { // one of our own; it can fail only for want of descriptors
			syscall.CloseOnExec(own)
			files = append(files, os.NewFile(uintptr(own), s.names[i]))
		}
	}
	env = append(env, fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+strings.Join(s.names, ":"))
	// The daemon believes these only with its own process number beside them.
	args = append([]string{"/bin/sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, args...)
	return env, files, args
}

func (s *fdStore) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range s.fds {
		_ = syscall.Close(fd)
	}
	s.names, s.fds = nil, nil
}

// ForgetFiles closes what the host's daemon has given to be kept: the next one starts as without a service manager that
// does so.
func (h *Host) ForgetFiles() { h.kept.close() }
