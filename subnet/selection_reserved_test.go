package subnet

import (
	"encoding/json"
	"net/netip"
	"testing"
)

// A reservation in the documented form has a PublicIP and no more. As long as its host has not taken it, it is no peer
// and no fault.
func TestAReservationThatAwaitsItsHostIsNoFault(t *testing.T) {
	config, err := ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`))
	if err != nil {
		t.Fatal(err)
	}
	prefix, own := netip.MustParsePrefix,
		Lease{netip.MustParsePrefix("10.5.1.0/24"), Attrs{PublicIP: netip.MustParseAddr("192.0.2.1")}}
	valid := func(l Lease) error { return json.Unmarshal([]byte(l.BackendData), new(any)) }
	for _, tt := range []struct {
		name string
		e    Entry
		kind string // of the backend
		data string
		at   string
		want bool // a fault
	}{
		{"as documented", Entry{}, "udp", "", "10.5.7.0/24", false},
		{"by flannelctl", Entry{}, "vxlan", "", "10.5.7.0/24", false},
		{"by flannelctl for a live host", Entry{Record: Record{Identity: "a", Host: "a"}}, "vxlan", "", "10.5.7.0/24", false},
		{"for this host", Entry{Record: Record{Identity: "me"}}, "vxlan", "", "10.5.7.0/24", false},
		{"for this host, as documented", Entry{}, "udp", "", "10.5.7.0/24", false},
		{"taken", Entry{Record: Record{Identity: "a"}}, "vxlan", "{}", "10.5.7.0/24", false},
		{"of a host with another backend", Entry{Record: Record{Identity: "a"}}, "udp", "{}", "10.5.7.0/24", true},
		{"outside the network", Entry{}, "udp", "", "10.6.7.0/24", true},
		{"of another length", Entry{}, "udp", "", "10.5.7.0/25", true},
		{"of this host's subnet", Entry{Record: Record{Identity: "a"}}, "udp", "", "10.5.1.0/24", true},
		{"no reservation", Entry{LeaseID: 7}, "udp", "", "10.5.7.0/24", true},
	} {
		ip := "192.0.2.7"
		if tt.e.Identity == "me" || tt.name == "for this host, as documented" {
			ip = "192.0.2.1"
		}
		e := tt.e
		e.Leases = []Lease{{prefix(tt.at),
			Attrs{PublicIP: netip.MustParseAddr(ip), BackendType: tt.kind, BackendData: tt.data}}}
		e.Key = e.Record.Key()
		table := newTable()
		table.put(&e)
		p := newSelection(table, config, []Lease{own}, viewer{"me", valid}, map[string]string{})
		p.reasons()
		if why := p.skipped[e.Key]; (why != "") != tt.want {
			t.Errorf("%s: the fault is %q, want one: %t", tt.name, why, tt.want)
		}
		if _, peer := p.peers.Find(ref{from: &e}); peer != (tt.data != "" && !tt.want) {
			t.Errorf("%s: a peer: %t", tt.name, peer)
		}
	}
}

func TestAPeerWithBadOffersStaysAPeerAndIsCounted(t *testing.T) {
	c, err := ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`))
	if err != nil {
		t.Fatal(err)
	}
	peers := NewPeerTable("me", func(Lease) error { return nil })
	put := func(offers string) {
		l := Lease{netip.MustParsePrefix("10.5.1.0/24"), Attrs{PublicIP: netip.MustParseAddr("192.0.2.1"),
			BackendType: "vxlan", Offers: ReadOffers([]byte(offers))}}
		r := Record{Identity: "other", Leases: []Lease{l}}
		peers.Put(&Entry{Record: r, Key: r.Key(), LeaseID: 1})
	}
	for _, tt := range []struct {
		offers  string
		skipped int
	}{{"", 0}, {`[{"Type":"udp"},7]`, 1}, {`[{"Type":"udp"}]`, 0}} {
		put(tt.offers)
		got, skipped, _ := peers.Peers(c, nil)
		if got.Len() != 1 || skipped != tt.skipped {
			t.Errorf("%s: %d peers, %d skipped, want 1 and %d", tt.offers, got.Len(), skipped, tt.skipped)
		}
	}
}
