package main_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	flannelctl "flanneld/cmd/flannelctl"
)

func TestTheEnvironmentFileOfTheDaemonIsRead(t *testing.T) {
	tests := []struct {
		name, text string
		want       map[string]string
	}{
		{"a variable", "FLANNELD_ETCD_ENDPOINTS=https://192.0.2.1:2379",
			map[string]string{"etcd-endpoints": "https://192.0.2.1:2379"}},
		{"quoted, with blanks around", "  FLANNELD_ETCD_PREFIX = \"/a b\" ", map[string]string{"etcd-prefix": "/a b"}},
		{"comments", "#FLANNELD_STATE_DIR=/a\n; FLANNELD_STATE_DIR=/b\n", map[string]string{}},
		{"an empty value is the default", "FLANNELD_STATE_DIR=\n", map[string]string{}},
		{"a line that goes on", "FLANNEL_OPTIONS=\"-iface eth0 \\\n -state-dir=/s\"",
			map[string]string{"iface": "eth0", "state-dir": "/s"}},
		{"a flag wins over a variable",
			"FLANNEL_OPTIONS=\"--etcd-prefix=/flag -ip-masq -v 1\"\nFLANNELD_ETCD_PREFIX=/variable",
			map[string]string{"etcd-prefix": "/flag", "ip-masq": "", "v": "1"}},
		{"what is not the daemon's", "PATH=/bin\nexport X\n", map[string]string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(map[string]string(flannelctl.ParseConf(tt.text)), tt.want); diff != "" {
				t.Errorf("got - want +:\n%s", diff)
			}
		})
	}
}

func TestADeadDaemonsEnvironmentFileSaysHowToReachTheStore(t *testing.T) {
	folder := t.TempDir()
	files := map[string]string{
		"flanneld.conf": "FLANNELD_ETCD_ENDPOINTS=https://192.0.2.1:2379, https://192.0.2.2:2379\n" +
			"FLANNELD_ETCD_CAFILE=/ca\nFLANNELD_SUBNET_FILE=/run/one.env\nFLANNELD_STATE_DIR=/state\n",
		"blue.conf": "FLANNELD_ETCD_ENDPOINTS=http://192.0.2.3:2379\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	type access struct {
		SubnetFile, StateDir, Prefix, CAFile, From string
		Endpoints                                  []string
	}
	read := func(args ...string) access {
		file, dir, store, from := flannelctl.Settings(t, folder, args...)
		return access{file, dir, store.Prefix, store.CAFile, from, store.Endpoints}
	}
	first := access{"/run/one.env", "/state", "/coreos.com/network", "/ca", filepath.Join(folder, "flanneld.conf"),
		[]string{"https://192.0.2.1:2379", "https://192.0.2.2:2379"}}
	if diff := cmp.Diff(read(), first); diff != "" {
		t.Errorf("without flags, got - want +:\n%s", diff)
	}
	if diff := cmp.Diff(read("--subnet-file", "/run/one.env"), first); diff != "" {
		t.Errorf("with the first network's file, got - want +:\n%s", diff)
	}
	second := access{"/run/flannel/networks/blue.env", "/var/lib/flannel", "/coreos.com/network/blue", "",
		filepath.Join(folder, "blue.conf"), []string{"http://192.0.2.3:2379"}}
	if diff := cmp.Diff(read("--subnet-file", "/run/flannel/networks/blue.env"), second); diff != "" {
		t.Errorf("with a second network's file, got - want +:\n%s", diff)
	}
	got := read("--etcd-endpoints", "http://192.0.2.9:2379")
	if got.Endpoints[0] != "http://192.0.2.9:2379" || got.CAFile != "/ca" {
		t.Errorf("a flag does not win: %+v", got)
	}
	t.Setenv("FLANNELD_ETCD_ENDPOINTS", "http://192.0.2.8:2379")
	if got := read(); got.Endpoints[0] != "http://192.0.2.8:2379" || got.From != "$FLANNELD_ETCD_ENDPOINTS" {
		t.Errorf("a variable does not win over the file: %+v", got)
	}
	if got := read("--subnet-file", "/run/unknown.env"); got.CAFile != "" {
		t.Errorf("the file of another network is used: %+v", got)
	}
}
