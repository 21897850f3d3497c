package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flanneld/need"
)

func TestTheNewestKernelOfALineIsChosen(t *testing.T) {
	packages := strings.Fields(`linux-image-6.1.0-9-amd64 linux-image-6.1.0-57-amd64 linux-image-6.1.0-58-cloud-amd64 linux-image-6.1.0-59-amd64-unsigned
		linux-image-6.1.0-60-rt-amd64 linux-image-6.12.107+deb12-amd64 linux-image-6.12.117+deb12-amd64 linux-image-6.12.99+deb12-amd64 linux-image-6.12-amd64`)
	for line, want := range map[string]string{"6.1": "6.1.0-57-amd64", "6.12": "6.12.117+deb12-amd64", "5.10": ""} {
		if got := latest(packages, line); got != want {
			t.Errorf("line %s: got %q, want %q", line, got, want)
		}
	}
}

func TestModulesAreLoadedAfterWhatTheyNeed(t *testing.T) {
	deps := `kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz kernel/fs/fscache.ko.xz
kernel/net/9p/9pnet.ko.xz:
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz
kernel/drivers/block/virtio-blk.ko.xz:
`
	got := withDependencies(deps, []string{"virtio_pci", "virtio_blk", "9pnet_virtio", "9p"})
	want := strings.Fields(`kernel/drivers/block/virtio-blk.ko.xz kernel/net/9p/9pnet.ko.xz kernel/net/9p/9pnet_virtio.ko.xz
		kernel/fs/fscache.ko.xz kernel/fs/netfs/netfs.ko.xz kernel/fs/9p/9p.ko.xz`)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTheArchiveIsReadByCpio(t *testing.T) {
	cpio := need.Program(t, "busybox")
	var b bytes.Buffer
	a := &archive{w: &b}
	a.add("dev", 0o040755, nil)
	a.add("init", 0o100755, []byte("hello"))
	a.add("modules", 0o100644, []byte("four"))
	a.add("TRAILER!!!", 0, nil)
	if a.err != nil {
		t.Fatal(a.err)
	}
	cmd := exec.Command(cpio, "cpio", "-itv")
	cmd.Stdin = &b
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "drwxr-xr-x") || !strings.HasPrefix(lines[1], "-rwxr-xr-x") ||
		!strings.HasSuffix(lines[2], "modules") {
		t.Errorf("got\n%s", out)
	}
}

func TestWhatHasPassedWithTheSameProgramsIsNotRunAgain(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(program, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	open := func(k kernel, jobs ...job) *records {
		t.Helper()
		r, err := openRecords(filepath.Join(dir, "results"), k, jobs)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	write("one")
	old, good, bad := kernel{name: "6.1.0-57-amd64"}, job{Name: "good", Programs: []string{program}}, job{Name: "bad"}
	r := open(old, good, bad)
	if err := r.add([]result{{Name: "good", Seconds: 12}, {Name: "bad", Seconds: 3, Error: "exit status 1"}}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if report(&out, []job{good, bad, {Name: "late"}}, []column{{old.name, r.results}}) {
		t.Error("a job that has failed counts as passed")
	}
	const want = `
suite                  6.1.0-57-amd64
good                   passed     12 s
bad                    FAILED      3 s
late                   not run
bad on 6.1.0-57-amd64: exit status 1
`
	if out.String() != want {
		t.Errorf("got %s\nwant %s", out.String(), want)
	}
	other := good
	other.Command = []string{"program", "-test.run=One"}
	write("two")
	changed := len(open(old, good).due())
	write("one")
	for _, tt := range []struct {
		name      string
		due, want int
	}{
		{"passed and failed", len(open(old, good, bad).due()), 1},
		{"another kernel", len(open(kernel{name: "6.12"}, good).due()), 1},
		{"other tests", len(open(old, other).due()), 1},
		{"another program", changed, 1},
	} {
		if tt.due != tt.want {
			t.Errorf("%s: %d jobs are due, want %d", tt.name, tt.due, tt.want)
		}
	}
}
