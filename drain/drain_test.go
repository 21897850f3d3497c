package drain_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/drain"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

// rules counts how often the firewall's rules were removed.
type rules int

func (r *rules) Remove() error { *r++; return nil }

func record(identity, prefix string) subnet.Record {
	l := subnet.Lease{Subnet: netip.MustParsePrefix(prefix),
		Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.1"), BackendType: "host-gw"}}
	return subnet.Record{Identity: identity, Leases: []subnet.Lease{l}}
}

func TestAHostLeavesWithAllThatItHas(t *testing.T) {
	for _, tt := range []struct {
		name   string
		away   bool // the store
		lease  subnet.LeaseID
		left   bool
		stands int // records of this host afterwards
	}{
		{"a lease", false, 7, true, 0},
		{"a reservation, which stays", false, 0, true, 1},
		{"the store cannot be reached", true, 7, false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := subnettest.NewServer()
			store := server.Client("host")
			own := server.PutLeased(record("me", "10.5.1.0/24"), tt.lease)
			server.PutLeased(record("another", "10.5.2.0/24"), 8)
			file := filepath.Join(t.TempDir(), "subnet.env")
			if err := os.WriteFile(file, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			dir, err := subnet.OpenState(t.TempDir(), file)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			network := netip.MustParsePrefix("10.5.0.0/16")
			route := ip.Route{Dst: netip.MustParsePrefix("10.5.2.0/24"), Via: netip.MustParseAddr("192.0.2.2"), Link: "eth0",
				Protocol: ip.Protocol}
			kernel := iptest.NewKernel(iptest.Faults{})
			if err := kernel.Put(ip.Link{Name: "eth0", Type: "veth", MTU: 1500, Up: true},
				ip.Addr{Link: "eth0", Prefix: netip.MustParsePrefix("192.0.2.1/24")}, route); err != nil {
				t.Fatal(err)
			}
			store.Cut(tt.away)
			var removed rules
			st := subnet.State{Identity: "me", Own: own.Record, Networks: []netip.Prefix{network}}
			out, left, err := drain.Host{
				Store: store, Kernel: kernel, Scope: ip.Scope{Networks: []netip.Prefix{network}}, Firewall: &removed,
				SubnetFile: file, StateDir: dir,
			}.Leave(t.Context(), &st)
			if left != tt.left || (err == nil) != tt.left {
				t.Fatalf("left: %v, %v", left, err)
			}
			stands := 0
			for _, e := range server.Entries() {
				if e.Identity == "me" {
					stands++
				}
			}
			if stands != tt.stands {
				t.Errorf("%d records of this host, want %d", stands, tt.stands)
			}
			if n := len(kernel.State().Routes); (n == 0) != tt.left {
				t.Errorf("%d routes stand", n)
			}
			if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) != tt.left {
				t.Errorf("the subnet file: %v", err)
			}
			if (removed == 1) != tt.left || (len(out.Removed) == 1) != tt.left {
				t.Errorf("firewall removed %d times, %q", removed, out.Removed)
			}
			if (len(st.Own.Leases) == 0) != tt.left || st.Identity != "me" {
				t.Errorf("state %+v", st)
			}
		})
	}
}

func TestARequestWaitsForADaemonThatHasJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests, store := drain.NewRequests(), subnettest.NewServer().Client("host")
		early := errors.New("not joined")
		start := time.Now()
		if _, err := requests.Ask(t.Context(), store, func() error { return early }); !errors.Is(err, early) {
			t.Errorf("got %v, want %v", err, early)
		}
		if took := time.Since(start); took == 0 || took > 5*time.Second {
			t.Errorf("waited %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := requests.Wait(ctx, nil); err != nil {
			t.Errorf("no request, and %v", err)
		}
	})
}
