package main

import (
	"bytes"
	"os/exec"
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
