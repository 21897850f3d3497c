package subnet_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"flanneld/subnet"
)

// notRegular are files that a reader must not wait for or read without end, each made at a path.
var notRegular = []struct {
	name, says string
	make       func(t *testing.T, path string) error
}{
	{"FIFO", "is a FIFO", func(_ *testing.T, path string) error { return syscall.Mkfifo(path, 0o644) }},
	{"directory", "is a directory", func(_ *testing.T, path string) error { return os.Mkdir(path, 0o755) }},
	{"socket", "is a socket", func(t *testing.T, path string) error {
		l, err := net.Listen("unix", path)
		if err == nil {
			t.Cleanup(func() { _ = l.Close() })
		}
		return err
	}},
}

func TestWhatIsNoRegularFileIsNeitherReadNorReplaced(t *testing.T) {
	e := subnet.Env{Networks: prefixes("10.5.0.0/16"), Subnets: prefixes("10.5.34.0/24"), MTU: 1450}
	for _, c := range notRegular {
		path := filepath.Join(t.TempDir(), "subnet.env")
		if err := c.make(t, path); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := subnet.ReadEnv(path); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("read a %s: %v, want %q", c.name, err, c.says)
		}
		if err := subnet.WriteEnv(path, e); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("write a %s: %v, want %q", c.name, err, c.says)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("the %s was replaced: %v", c.name, err)
		}
	}
	if _, err := subnet.ReadFile("/dev/zero", 100); err == nil || !strings.Contains(err.Error(), "is a device") {
		t.Errorf("read /dev/zero: %v", err)
	}
	link := filepath.Join(t.TempDir(), "zero")
	if err := os.Symlink("/dev/zero", link); err != nil {
		t.Fatal(err)
	}
	if _, err := subnet.ReadFile(link, 100); err == nil || !strings.Contains(err.Error(), "is a device") {
		t.Errorf("read a link to /dev/zero: %v", err)
	}
}

func TestWhatIsReadOfAFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := subnet.ReadFile(path, 5); err != nil || string(got) != "12345" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := subnet.ReadFile(path, 4); err == nil || got != nil ||
		!strings.Contains(err.Error(), "larger than 4 bytes") {
		t.Errorf("got %q, %v; want an error", got, err)
	}
}

func TestTemporaryFilesOfKilledWritersAreRemoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "subnet.env")
	old := time.Now().Add(-time.Hour)
	for name, stays := range map[string]bool{
		".subnet.env.123": false, ".subnet.env.": true, ".subnet.env.swp": true, ".other.env.123": true,
		"subnet.env.123": true, ".subnet.env.456": true,
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if name != ".subnet.env.456" { // that one is being written
			if err := os.Chtimes(file, old, old); err != nil {
				t.Fatal(err)
			}
		}
		defer func() {
			if _, err := os.Lstat(file); stays != (err == nil) {
				t.Errorf("%s: %v, want it to stay: %v", name, err, stays)
			}
		}()
	}
	if err := subnet.WriteEnv(path, subnet.Env{Subnets: prefixes("10.5.34.0/24"), MTU: 1450}); err != nil {
		t.Fatal(err)
	}
}

func TestTheStateLockIsNoLinkThatIsFollowed(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	s, err := subnet.OpenState(state, "/run/flannel/subnet.env")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	locks, _ := filepath.Glob(filepath.Join(state, "*.lock"))
	if len(locks) != 1 {
		t.Fatalf("lock files: %v", locks)
	}
	for name, replace := range map[string]func() error{
		"symbolic link": func() error { return os.Symlink(victim, locks[0]) },
		"FIFO":          func() error { return syscall.Mkfifo(locks[0], 0o600) },
	} {
		if err := errors.Join(os.Remove(locks[0]), replace()); err != nil {
			t.Fatal(err)
		}
		if _, err := subnet.OpenState(state, "/run/flannel/subnet.env"); err == nil ||
			!strings.Contains(err.Error(), "is a "+name) {
			t.Errorf("%s: got %v, want an error that says so", name, err)
		}
	}
	if got, _ := os.ReadFile(victim); string(got) != "precious\n" {
		t.Errorf("the target is %q now", got)
	}
}

func TestAStateFolderThatOthersMayWriteIsRefused(t *testing.T) {
	for _, c := range []struct {
		mode     fs.FileMode
		uid, gid int
		refused  bool
	}{
		{0o700, 0, 0, false}, {0o755, 0, 0, false}, {0o775, 0, 0, false}, {0o750, 0, 12345, false},
		{0o777, 0, 0, true}, {0o777 | fs.ModeSticky, 0, 0, true}, {0o775, 0, 12345, true}, {0o700, 12345, 0, true},
	} {
		dir := filepath.Join(t.TempDir(), "state")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, c.uid, c.gid), os.Chmod(dir, c.mode)); err != nil {
			t.Skipf("needs root: %v", err)
		}
		s, err := subnet.OpenState(dir, "/run/flannel/subnet.env")
		if (err != nil) != c.refused {
			t.Errorf("mode %v of %d:%d: %v, want it refused: %v", c.mode, c.uid, c.gid, err, c.refused)
		}
		if err == nil {
			_ = s.Close()
		} else if !strings.Contains(err.Error(), "ch") || !strings.Contains(err.Error(), dir) {
			t.Errorf("%v names no way out", err)
		}
	}
}

func TestTheErrorOfAWriteIsTheSameEachTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	fails := func() string {
		err := subnet.WriteFile(path, 0o600, func(w io.Writer) error { return w.(*os.File).Close() })
		if err == nil {
			t.Fatal("a file that is closed is written")
		}
		return err.Error()
	}
	if first, second := fails(), fails(); first != second {
		t.Errorf("first %s, then %s", first, second)
	}
}
