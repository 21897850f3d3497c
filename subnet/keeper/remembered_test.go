package keeper

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"flanneld/subnet"
)

func TestPeersThatAreRememberedCountAsLostOnlyOnceTheStoreWasAsked(t *testing.T) {
	c, err := subnet.ParseConfig([]byte(testConfig))
	if err != nil {
		t.Fatal(err)
	}
	peer := entry("peer", "peer", 1, 1, "10.5.9.0/24", "192.0.2.9").Record
	k := New(nil, Fixed(c, []byte(testConfig)), Options{
		Identity: "own", PeerGrace: time.Hour, Log: slog.New(slog.DiscardHandler),
		State: subnet.State{Memory: subnet.Memory{Records: subnet.Stale(peer)}},
		Check: func(subnet.Config) error { return nil }, Valid: func(subnet.Lease) error { return nil },
		Attrs: func(netip.Prefix) subnet.Attrs { return subnet.Attrs{} },
	})
	if v := k.View(); v.Peers.Len() != 1 || v.Status.Stale != 0 {
		t.Errorf("before the list: %d peers, %d lost, want 1 and 0", v.Peers.Len(), v.Status.Stale)
	}
	k.reset(subnet.Snapshot{Position: subnet.Position{Cluster: 1, Revision: 1}})
	if v := k.View(); v.Peers.Len() != 1 || v.Status.Stale != 1 {
		t.Errorf("after a list without it: %d peers, %d lost, want 1 and 1", v.Peers.Len(), v.Status.Stale)
	}
}
