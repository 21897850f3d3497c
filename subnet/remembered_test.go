package subnet

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"
)

func TestPeersThatAreRememberedCountAsLostOnlyOnceTheStoreWasAsked(t *testing.T) {
	text := []byte(`{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}`)
	c, err := ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	peer := Record{Identity: "peer", Leases: []Lease{{
		netip.MustParsePrefix("10.5.9.0/24"), Attrs{PublicIP: netip.MustParseAddr("192.0.2.9"), BackendType: "vxlan"},
	}}}
	m := NewManager(nil, Options{
		Identity: "own", PeerGrace: time.Hour, Log: slog.New(slog.DiscardHandler), State: State{Peers: []Record{peer}},
		Check: func(Config) error { return nil }, Valid: func(Lease) error { return nil },
	})
	m.UseConfig(c, text)
	if v := m.View(); v.Peers.Len() != 1 || v.Status.Ghosts != 0 {
		t.Errorf("before the list: %d peers, %d lost, want 1 and 0", v.Peers.Len(), v.Status.Ghosts)
	}
	m.reset(Snapshot{Position: Position{Cluster: 1, Revision: 1}})
	if v := m.View(); v.Peers.Len() != 1 || v.Status.Ghosts != 1 {
		t.Errorf("after a list without it: %d peers, %d lost, want 1 and 1", v.Peers.Len(), v.Status.Ghosts)
	}
}
