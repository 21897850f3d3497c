package backend_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"flanneld/backend"
	"flanneld/subnet"
)

// keyed is a backend that needs keys before it carries packets.
type keyed struct {
	datapath
	ready   bool
	changes int
	carried []netip.Prefix
}

func (k *keyed) Established() (func(subnet.Lease) bool, any) {
	ready := k.ready
	return func(subnet.Lease) bool { return ready }, k.changes
}

func (k *keyed) Routes() backend.Routes { return backend.PerPeer }

func (k *keyed) Carry(_ []subnet.Lease, peers subnet.Peers) error {
	k.carried = nil
	for l := range peers.All() {
		k.carried = append(k.carried, l.Subnet)
	}
	return nil
}

// TestAPathIsTakenOnceThereAreKeys moves from a backend to one that needs keys: the host sends by the former one, and
// publishes it, until there are some. Where there is no other way nobody waits.
func TestAPathIsTakenOnceThereAreKeys(t *testing.T) {
	peer := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.2.0/24"), Attrs: subnet.Attrs{
		PublicIP: netip.MustParseAddr("192.0.2.2"), BackendType: "former",
		Offers: subnet.OffersText([]subnet.Offer{{Type: "keyed"}}),
	}}
	alone := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.3.0/24"), Attrs: subnet.Attrs{
		PublicIP: netip.MustParseAddr("192.0.2.3"), BackendType: "keyed",
	}}
	former, next := &keyed{datapath: datapath{kind: "former"}, ready: true}, &keyed{datapath: datapath{kind: "keyed"}}
	a := applierOf(former)
	own := netip.MustParsePrefix("10.5.1.0/24")
	pass := func(wantKind, wantNext string) {
		t.Helper()
		if err := a.Set(nil, subnet.PeersOf(peer, alone)); err != nil {
			t.Fatal(err)
		}
		var carried []string
		for _, p := range next.carried {
			carried = append(carried, p.String())
		}
		if got := a.Attrs(own).BackendType; got != wantKind || strings.Join(carried, " ") != wantNext {
			t.Errorf("published %s, want %s; carried by the next one: %q, want %q", got, wantKind, carried, wantNext)
		}
	}
	pass("former", "")
	a.Use(next, former)
	pass("former", "10.5.3.0/24")
	if err := a.Unsettled(); err == nil || !strings.Contains(err.Error(), "no keys are exchanged yet with 10.5.2.0/24") {
		t.Error(errors.Join(errors.New("nothing says that keys are waited for"), err))
	}
	next.ready = true
	next.changes++
	pass("keyed", "10.5.2.0/24 10.5.3.0/24")
	if err := a.Unsettled(); err != nil {
		t.Error(err)
	}
}
