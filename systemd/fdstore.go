package systemd

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// FDStore keeps open files with the service manager (FDSTORE in sd_notify(3)), which hands them to the next run of the
// daemon, so that what comes in meanwhile waits in them. Without a service manager it is empty and keeps nothing.
type FDStore struct {
	log *slog.Logger

	mu   sync.Mutex // guards all below
	kept map[string][]int
	sent map[string]bool // names under which the service manager has files of this run
}

// OpenFDStore takes over the files of the earlier run. It is to be called once.
func OpenFDStore(log *slog.Logger) *FDStore {
	s := &FDStore{log: log, kept: map[string][]int{}, sent: map[string]bool{}}
	for _, f := range activation.Files(true) {
		if fd, err := duplicate(f); err != nil {
			log.Warn("file from the service manager not used", "name", f.Name(), "error", err)
		} else {
			s.kept[f.Name()] = append(s.kept[f.Name()], fd)
		}
		_ = f.Close()
	}
	return s
}

// duplicate returns a descriptor that the runtime does not know of.
func duplicate(f *os.File) (fd int, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("duplicate file: %w", err)
	}
	err = errors.Join(conn.Control(func(own uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, err = syscall.Dup(int(own)); err == nil {
			syscall.CloseOnExec(fd)
		}
	}), err)
	return fd, err
}

// Take returns the descriptors that were kept under a name, in their order; they belong to the caller then.
func (s *FDStore) Take(name string) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	fds := s.kept[name]
	delete(s.kept, name)
	return fds
}

// Keep replaces what is kept under a name.
func (s *FDStore) Keep(name string, fds []int) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	s.mu.Lock()
	s.sent[name] = true
	s.mu.Unlock()
	err := sendFDs("FDSTOREREMOVE=1\nFDNAME="+name, nil)
	for _, fd := range fds { // one by one: the order is that of the messages
		if err == nil {
			err = sendFDs("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, []int{fd})
		}
	}
	if err != nil {
		s.log.Warn("files not stored for the next run", "name", name, "error", err)
	}
}

// Drop closes and forgets what was kept for other backends than these: all whose name does not begin with that of one.
func (s *FDStore) Drop(backends ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := maps.Clone(s.sent)
	for name := range s.kept {
		names[name] = true
	}
	for name := range names {
		if slices.ContainsFunc(backends, func(b string) bool { return strings.HasPrefix(name, b+"-") }) {
			continue
		}
		for _, fd := range s.kept[name] {
			_ = syscall.Close(fd)
		}
		delete(s.kept, name)
		delete(s.sent, name)
		if err := sendFDs("FDSTOREREMOVE=1\nFDNAME="+name, nil); err != nil {
			s.log.Warn("remove file descriptors that an earlier run stored with systemd failed", "name", name, "error", err)
		}
	}
}

// sendFDs sends a notification with descriptors.
func sendFDs(text string, fds []int) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn() // WriteMsgUnix does not write to a socket that is connected
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = syscall.Sendmsg(int(fd), []byte(text), syscall.UnixRights(fds...), nil, 0)
		return !errors.Is(sent, syscall.EAGAIN)
	})
	if err := errors.Join(err, sent); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}
