package main_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	main "flanneld/cmd/flannelctl"
	"flanneld/doctor"
)

func TestFilesOfCNIAreReadInTheOrderOfRuntimes(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"20-other.conf":       `{"type": "macvlan"}`,
		"10-flannel.conflist": `{"plugins": [{"type": "flannel", "subnetFile": "/run/x.env", "delegate": {"bridge": "pods0"}}, {"type": "portmap"}]}`,
		"30-broken.json":      `{`,
		"readme.txt":          `no configuration`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"flannel": 0o755, "bridge": 0o755, "portmap": 0o644} {
		if err := os.WriteFile(filepath.Join(bin, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	got := main.ReadCNI(dir, []string{bin, filepath.Join(bin, "absent")})
	if len(got.Files) != 3 || got.Files[2].Err == nil {
		t.Fatalf("got %+v, want three files, the last of them broken", got.Files)
	}
	got.Files[2].Err = nil
	usual := doctor.CNIPlugin{Delegate: "bridge", IPAM: "host-local", Bridge: "cni0",
		SubnetFile: "/run/flannel/subnet.env"}
	flannel, portmap, macvlan := usual, usual, usual
	flannel.Type, flannel.Bridge, flannel.SubnetFile = "flannel", "pods0", "/run/x.env"
	portmap.Type, macvlan.Type = "portmap", "macvlan"
	want := doctor.CNI{
		Dir: dir, Bin: []string{bin},
		Files: []doctor.CNIFile{
			{Name: "10-flannel.conflist", Plugins: []doctor.CNIPlugin{flannel, portmap}},
			{Name: "20-other.conf", Plugins: []doctor.CNIPlugin{macvlan}}, {Name: "30-broken.json"},
		},
		Programs: map[string]bool{"flannel": true, "bridge": true, "host-local": false, "portmap": false, "macvlan": false},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
