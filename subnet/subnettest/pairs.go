package subnettest

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"flanneld/subnet"
)

// Pairs tests what a Store promises of records with two subnets. The store is empty.
func Pairs(t *testing.T, s subnet.Store) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	id, err := s.Grant(ctx, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	first := create(ctx, t, s, id, "10.5.1.0/24", "fd00:5:0:1::/64")
	for name, prefixes := range map[string][]string{
		"the same pair":                  {"10.5.1.0/24", "fd00:5:0:1::/64"},
		"the IPv4 half with another one": {"10.5.1.0/24", "fd00:5:0:9::/64"},
		"the IPv6 half with another one": {"10.5.9.0/24", "fd00:5:0:1::/64"},
		"the IPv6 half alone":            {"fd00:5:0:1::/64"},
		"the IPv4 half alone":            {"10.5.1.0/24"},
	} {
		_, err := s.Create(ctx, pair(prefixes...), id)
		wantConflict(t, name, err, first.Key)
	}
	wantKeys(ctx, t, s, first.Key)

	// A key changes: a half is added, one is replaced, one goes.
	only := create(ctx, t, s, id, "10.5.2.0/24")
	_, err = s.Update(ctx, only, pair("10.5.2.0/24", "fd00:5:0:1::/64"), id)
	wantConflict(t, "growing into another's half", err, first.Key)
	only = find(ctx, t, s, only.Key) // a store may have taken the change back
	for _, prefixes := range [][]string{{"10.5.2.0/24", "fd00:5:0:2::/64"}, {"10.5.2.0/24", "fd00:5:0:3::/64"},
		{"fd00:5:0:3::/64"}, {"10.5.4.0/24"}} {
		next, err := s.Update(ctx, only, pair(prefixes...), id)
		if err != nil {
			t.Fatalf("change to %v: %v", prefixes, err)
		}
		if next.Created <= only.Created || next.LeaseID != id {
			t.Errorf("changed to %+v", next)
		}
		if _, err := s.Update(ctx, only, pair(prefixes...), id); err == nil {
			t.Errorf("%s was changed a second time", only.Key)
		}
		only = next
		wantKeys(ctx, t, s, first.Key, only.Key)
	}
	raceForAHalf(ctx, t, s, id)
}

// raceForAHalf has many hosts ask for pairs with one IPv6 subnet in common. At most one gets it.
func raceForAHalf(ctx context.Context, t *testing.T, s subnet.Store, id subnet.LeaseID) {
	t.Helper()
	const hosts = 20
	var won sync.Map
	var all sync.WaitGroup
	for n := range hosts {
		all.Go(func() {
			e, err := s.Create(ctx, pair(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(100 + n), 0}), 24).String(),
				"fd00:5:0:77::/64"), id)
			if err == nil {
				won.Store(e.Key, true)
			}
		})
	}
	all.Wait()
	snap, err := s.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, e := range snap.Entries {
		if len(e.Leases) == 2 && e.Leases[1].Subnet == netip.MustParsePrefix("fd00:5:0:77::/64") {
			left++
			if _, ok := won.Load(e.Key); !ok {
				t.Errorf("%s stands, and its host was told otherwise", e.Key)
			}
		}
	}
	won.Range(func(key, _ any) bool {
		left--
		return true
	})
	if left != 0 {
		t.Errorf("not as many records as winners: %d more", left)
	}
}

func pair(prefixes ...string) subnet.Record {
	r := subnet.Record{Identity: "id", Host: "host"}
	for _, text := range prefixes {
		p := netip.MustParsePrefix(text)
		public := netip.MustParseAddr("192.0.2.1")
		if p.Addr().Is6() {
			public = netip.MustParseAddr("2001:db8::1")
		}
		r.Leases = append(r.Leases, subnet.Lease{Subnet: p, Attrs: subnet.Attrs{PublicIP: public, BackendType: "vxlan"}})
	}
	return r
}

func create(ctx context.Context, t *testing.T, s subnet.Store, id subnet.LeaseID, prefixes ...string) subnet.Entry {
	t.Helper()
	e, err := s.Create(ctx, pair(prefixes...), id)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func wantConflict(t *testing.T, what string, err error, with string) {
	t.Helper()
	var c *subnet.ConflictError
	if !errors.As(err, &c) || c.Current == nil || c.Current.Key != with {
		t.Errorf("%s: %v, want a conflict with %s", what, err, with)
	}
}

func wantKeys(ctx context.Context, t *testing.T, s subnet.Store, want ...string) {
	t.Helper()
	snap, err := s.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range want {
		find(ctx, t, s, key)
	}
	if len(snap.Entries) != len(want) || len(snap.Bad) > 0 {
		t.Errorf("the store has %v, want %v", snap.Entries, want)
	}
}

func find(ctx context.Context, t *testing.T, s subnet.Store, key string) subnet.Entry {
	t.Helper()
	snap, err := s.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range snap.Entries {
		if e.Key == key {
			return *e
		}
	}
	t.Fatalf("no record %s", key)
	return subnet.Entry{}
}
