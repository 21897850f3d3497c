package lab

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
)

// fdStore keeps files of a host's daemon from one run to the next, as systemd does for a unit with FileDescriptorStoreMax.
type fdStore struct {
	mu    sync.Mutex // guards all below
	names []string
	files []*os.File
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
			s.names, s.files = append(s.names, fields["FDNAME"]), append(s.files, os.NewFile(uintptr(fd), fields["FDNAME"]))
		}
	}
}

func (s *fdStore) removeLocked(name string) {
	var names []string
	var files []*os.File
	for i, f := range s.files {
		if s.names[i] == name {
			_ = f.Close()
			continue
		}
		names, files = append(names, s.names[i]), append(files, f)
	}
	s.names, s.files = names, files
}

// activate returns environment, files and command line with which a daemon gets what is kept (sd_listen_fds(3)).
func (s *fdStore) activate(env, args []string) ([]string, []*os.File, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) == 0 {
		return env, nil, args
	}
	env = append(env, fmt.Sprintf("LISTEN_FDS=%d", len(s.files)), "LISTEN_FDNAMES="+strings.Join(s.names, ":"))
	// The daemon believes these only with its own process number beside them.
	args = append([]string{"/bin/sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, args...)
	return env, append([]*os.File(nil), s.files...), args
}

func (s *fdStore) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		_ = f.Close()
	}
	s.names, s.files = nil, nil
}

// ForgetFiles closes what the host's daemon has given to be kept: the next one starts as without a service manager that does so.
func (h *Host) ForgetFiles() { h.kept.close() }
