package firewall_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"testing"

	"flanneld/firewall"
)

// A new peer may send before its record has arrived here.
func TestAHostThatHasBecomeAPeerIsShownNoLonger(t *testing.T) {
	peer, other := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::9")
	peers := firewall.AddrsOf(peer)
	for _, tt := range []struct {
		name    string
		senders []firewall.NonPeer
		want    []netip.Addr
	}{
		{"a peer", []firewall.NonPeer{{Addr: peer, Packets: 4}}, nil},
		{"another host", []firewall.NonPeer{{Addr: other, Packets: 4}}, []netip.Addr{other}},
		{"both", []firewall.NonPeer{{Addr: peer, Packets: 9}, {Addr: other, Packets: 1}}, []netip.Addr{other}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			s := firewall.StatusAfterDrops(slog.New(slog.NewTextHandler(&out, nil)), peers, tt.senders)
			if len(s.NonPeers) != len(tt.want) || len(tt.want) == 1 && s.NonPeers[0].Addr != tt.want[0] {
				t.Errorf("hosts %v, want %v", s.NonPeers, tt.want)
			}
			if said := out.Len() > 0; said != (len(tt.want) > 0) {
				t.Errorf("the log says %q", out.String())
			}
		})
	}
}
