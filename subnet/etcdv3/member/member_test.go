package member_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"flanneld/subnet/etcdv3/member"
)

func TestMain(m *testing.M) {
	if member.IsChild(os.Args) {
		os.Exit(member.Main(os.Args))
	}
	os.Exit(m.Run())
}

func freeAddress(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// running is a member under Run.
type running struct {
	t    *testing.T
	o    member.Options
	told chan error
}

func run(t *testing.T, dir string, listen netip.AddrPort) *running {
	t.Helper()
	r := &running{t, member.Options{Dir: dir, Listen: listen, Log: slog.New(slog.DiscardHandler)}, make(chan error, 100)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		member.Run(ctx, r.o, func(err error) { r.told <- err })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return r
}

// next returns the first thing told that is wanted: an error with a text, or, for the empty one, that the member
// serves.
func (r *running) next(want string) {
	r.t.Helper()
	late := time.After(time.Minute)
	for {
		select {
		case err := <-r.told:
			if err == nil && want == "" || err != nil && want != "" && strings.Contains(err.Error(), want) {
				return
			}
			r.t.Logf("told: %v", err)
		case <-late:
			r.t.Fatalf("waited in vain for %q", want)
		}
	}
}

// child returns the process that listens for the member.
func (r *running) child() int {
	r.t.Helper()
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range found {
		text, _ := os.ReadFile(file)
		if strings.HasPrefix(string(text), "flanneld-etcd\x00"+r.o.Dir+"\x00") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				r.t.Fatal(err)
			}
			return pid
		}
	}
	r.t.Fatal("the member has no process")
	return 0
}

func TestAMemberThatIsKilledIsBack(t *testing.T) {
	t.Parallel()
	r := run(t, t.TempDir(), freeAddress(t))
	r.next("")
	if err := syscall.Kill(r.child(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.next("does not run")
	r.next("")
}

func TestDamagedDataAreNamedAndTheMemberIsBackOnceTheyAreMovedAway(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "etcd")
	for _, sub := range []string{"snap", "wal"} {
		if err := os.MkdirAll(filepath.Join(dir, "member", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "member", "snap", "db"), []byte(strings.Repeat("junk", 5000)),
		0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, dir, freeAddress(t))
	r.next("move " + dir + " away")
	if err := os.Rename(dir, dir+".damaged"); err != nil {
		t.Fatal(err)
	}
	r.next("")
}

func TestAPortInUseIsNamed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	run(t, t.TempDir(), netip.MustParseAddrPort(l.Addr().String())).next("stop the program that listens on " +
		l.Addr().String())
}

// Writing to /dev/full fails as on a full disk.
func TestAFullDiskIsNamedAndTheMemberIsBackOnceThereIsSpace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := filepath.Join(dir, "member", "snap", "db")
	if err := os.MkdirAll(filepath.Dir(db), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", db); err != nil {
		t.Fatal(err)
	}
	r := run(t, dir, freeAddress(t))
	r.next("disk is full")
	if err := os.Remove(db); err != nil {
		t.Fatal(err)
	}
	r.next("")
}
