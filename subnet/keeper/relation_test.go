package keeper

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"flanneld/subnet"
)

// testHost is host "me" with the identity "id" at 192.0.2.1 and 2001:db8::1.
func testHost() host {
	return host{
		identity: "id", name: "me",
		attrs4: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.1"), BackendType: "vxlan"},
		attrs6: subnet.Attrs{PublicIP: netip.MustParseAddr("2001:db8::1"), BackendType: "vxlan"},
	}
}

// entry returns a record with subnets at public IPs, given in turn.
func entry(identity, name string, revision int64, id subnet.LeaseID, subnetsAndIPs ...string) *subnet.Entry {
	e := &subnet.Entry{Record: subnet.Record{Identity: identity, Host: name}, Revision: revision, Created: revision,
		LeaseID: id}
	for i := 0; i < len(subnetsAndIPs); i += 2 {
		l := subnet.Lease{Subnet: netip.MustParsePrefix(subnetsAndIPs[i])}
		l.PublicIP, l.BackendType = netip.MustParseAddr(subnetsAndIPs[i+1]), "vxlan"
		e.Leases = append(e.Leases, l)
	}
	e.Key = e.Record.Key()
	return e
}

func TestTheRelationFollowsFromIdentityAddressAndHostName(t *testing.T) {
	const all, some, none = "all", "some", "none"
	addresses := map[string][2]string{all: {"192.0.2.1", "2001:db8::1"}, some: {"192.0.2.9", "2001:db8::1"},
		none: {"192.0.2.9", "2001:db8::9"}}
	for _, tt := range []struct {
		identity, at, name string
		want               Relation
		silence            time.Duration // needed to take the record
	}{
		{"id", all, "me", Ours, 0},
		{"id", some, "me", OursChanged, claimWaitSame},
		{"id", none, "me", OursElsewhere, claimWait},
		{"id", all, "other", OursRenamed, claimWait},
		{"id", some, "other", OursRenamed, claimWait},
		{"id", none, "other", OursElsewhere, claimWait},
		{"", all, "", Unnamed, 0},
		{"", some, "", Unnamed, 0},
		{"", all, "me", Unnamed, 0},
		{"", none, "", Foreign, 0},
		{"", none, "me", Foreign, 0},
		{"x", all, "me", SameMachine, claimWaitSame},
		{"x", some, "me", SameMachine, claimWaitSame},
		{"x", none, "me", Foreign, 0},
		{"x", all, "other", OurAddress, claimWait},
		{"x", some, "other", OurAddress, claimWait},
		{"x", none, "other", Foreign, 0},
	} {
		t.Run(fmt.Sprintf("identity %q, %s addresses, name %q", tt.identity, tt.at, tt.name), func(t *testing.T) {
			h, ips := testHost(), addresses[tt.at]
			r := entry(tt.identity, tt.name, 1, 1, "10.5.1.0/24", ips[0], "fd00:5:0:1::/64", ips[1]).Record
			if got := h.relation(r); got != tt.want || got.silence() != tt.silence {
				t.Errorf("relation %d with a wait of %s, want %d and %s", got, got.silence(), tt.want, tt.silence)
			}
			if h.published = &r; h.relation(r) != Ours {
				t.Errorf("what this process has written is of relation %d, want %d", h.relation(r), Ours)
			}
		})
	}
}
