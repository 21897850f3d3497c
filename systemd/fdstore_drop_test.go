package systemd_test

import (
	"log/slog"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/systemd"
)

// TestFilesOfOtherBackendsAreDropped: after a move the service manager keeps no device of the old backend open.
func TestFilesOfOtherBackendsAreDropped(t *testing.T) {
	m := listenNotify(t)
	s := systemd.OpenFDStore(slog.New(slog.DiscardHandler))
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, name := range []string{"udp-flannel0", "wireguard-flannel-wg"} {
		s.Keep(name, []int{int(f.Fd())})
	}
	m.received(t)
	for _, tt := range []struct {
		backends []string
		told     []string
	}{
		{[]string{"udp", "wireguard"}, nil},
		{[]string{"wireguard", "vxlan"}, []string{"FDSTOREREMOVE=1\nFDNAME=udp-flannel0"}},
		{[]string{"wireguard"}, nil},
		{[]string{"wire"}, []string{"FDSTOREREMOVE=1\nFDNAME=wireguard-flannel-wg"}},
		{nil, nil},
	} {
		s.Drop(tt.backends...)
		if diff := cmp.Diff(m.received(t), tt.told); diff != "" {
			t.Errorf("only %q stay: told the service manager (-got +want):\n%s", tt.backends, diff)
		}
	}
}
