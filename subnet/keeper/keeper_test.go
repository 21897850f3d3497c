package keeper_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/keeper"
	"flanneld/subnet/subnettest"
)

const netConfig = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`

// host is one host with a manager that runs.
type host struct {
	t        *testing.T
	name, id string
	address  netip.Addr
	client   *subnettest.Client
	options  keeper.Options
	manager  *daemon
	stop     context.CancelFunc
	ended    chan error
	log      *bytes.Buffer
}

func newHost(t *testing.T, s *subnettest.Server, n int) *host {
	h := &host{
		t: t, name: fmt.Sprint("host", n), id: fmt.Sprint("id", n), client: s.Client(fmt.Sprint("host", n)),
		address: netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}), log: &bytes.Buffer{},
	}
	h.options = keeper.Options{
		Host: h.name, Prefix: "/net", TTL: time.Hour, RenewMargin: time.Minute, PeerGrace: 10 * time.Minute,
		OnLost: subnet.LostMove,
		Valid:  func(subnet.Lease) error { return nil },
		Check:  func(subnet.Config) error { return nil },
		Log:    slog.New(slog.NewTextHandler(h.log, nil)),
	}
	return h
}

// start runs the manager in the background, as the daemon does.
func (h *host) start() *host {
	o := h.options
	o.Identity = h.id
	o.Attrs = func(p netip.Prefix) subnet.Attrs {
		return subnet.Attrs{PublicIP: h.publicIP(p), BackendType: "vxlan", BackendData: `{"VNI":1}`}
	}
	h.manager = newDaemon(h.client, o)
	ctx, stop := context.WithCancel(h.t.Context())
	h.stop, h.ended = stop, make(chan error, 1)
	m := h.manager
	go func() { h.ended <- m.Run(ctx) }()
	return h
}

// publicIP is the address of the host in the family of a subnet.
func (h *host) publicIP(p netip.Prefix) netip.Addr { return inFamilyOf(p, h.address) }

// quit ends the manager without a trace in the store, as a crash does, and returns its error.
func (h *host) quit() error {
	h.stop()
	return <-h.ended
}

// subnet returns the subnet that the host uses, or the zero value.
func (h *host) subnet() netip.Prefix {
	v := h.manager.View()
	if len(v.Self) == 0 {
		return netip.Prefix{}
	}
	return v.Self[0].Subnet
}

func (h *host) peers() []string {
	var out []string
	for p := range h.manager.View().Peers.All() {
		out = append(out, p.Subnet.String()+" "+p.PublicIP.String())
	}
	return out
}

// remembered is the state that the daemon would have saved.
func (h *host) remembered() subnet.State {
	v := h.manager.View()
	return subnet.State{Identity: h.id, Network: "/net", Config: v.Text, Own: v.Own, Until: v.Until,
		Memory: h.manager.Memory()}
}

func (h *host) wantLog(text string) {
	h.t.Helper()
	if !strings.Contains(h.log.String(), text) {
		h.t.Errorf("%s: log has no %q:\n%s", h.name, text, h.log)
	}
}

// network runs a test on a store with a configuration, in a bubble of fake time.
func network(t *testing.T, f func(t *testing.T, s *subnettest.Server)) {
	synctest.Test(t, func(t *testing.T) {
		s := subnettest.NewServer()
		s.SetConfig([]byte(netConfig))
		f(t, s)
	})
}

// after lets fake time pass and everything settle.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func wantCalls(t *testing.T, h *host, most int) {
	t.Helper()
	n := 0
	for _, c := range h.client.Counts() {
		n += c
	}
	if n > most {
		t.Errorf("%d calls, want at most %d: %v", n, most, h.client.Counts())
	}
}

func recordOf(s *subnettest.Server, p netip.Prefix) (subnet.Entry, bool) {
	for _, e := range s.Entries() {
		if e.Key == subnet.SubnetsFolder+subnet.Key([]netip.Prefix{p}) {
			return e, true
		}
	}
	return subnet.Entry{}, false
}

func TestAFirstStartTakesASubnetWithFourCalls(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		e, ok := recordOf(s, h.subnet())
		if !ok || e.Identity != "id1" || e.Host != "host1" || e.LeaseID == 0 || e.Leases[0].PublicIP != h.address {
			t.Errorf("record %+v", e)
		}
		if !h.manager.Status().Held {
			t.Error("not held")
		}
		wantCalls(t, h, 4)
		before := h.client.Counts()
		after(59 * time.Minute)
		if got := h.client.Counts(); got["KeepAlive"] != 2 || got["List"] != before["List"] {
			t.Errorf("calls in an hour with a lease of an hour: %v", got)
		}
		h.quit()
	})
}

func TestARestartKeepsTheSubnetAndTheKeyUntouched(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		before, _ := recordOf(s, h.subnet())
		h.quit()
		after(40 * time.Minute)
		h = newHost(t, s, 1).start()
		after(0)
		got, _ := recordOf(s, h.subnet())
		if got.Revision != before.Revision || got.LeaseID != before.LeaseID {
			t.Errorf("record %+v, before %+v", got, before)
		}
		wantCalls(t, h, 3)
		after(50 * time.Minute)
		if _, ok := recordOf(s, h.subnet()); !ok {
			t.Error("the lease expired")
		}
		h.quit()
	})
}

func TestAnExpiredSubnetIsTakenAgainAfterAStop(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		h.quit()
		after(2 * time.Hour)
		h = newHost(t, s, 1)
		h.options.Wanted = []netip.Prefix{first}
		h.start()
		after(0)
		if got := h.subnet(); got != first {
			t.Errorf("got %s, want %s again", got, first)
		}
		h.quit()
	})
}

func TestADeletedRecordIsWrittenAgainAtOnceWithTheSameSubnet(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h, peer := newHost(t, s, 1).start(), newHost(t, s, 2).start()
		after(0)
		first := h.subnet()
		old, _ := recordOf(s, first)
		s.Remove(old.Key)
		after(300 * time.Millisecond)
		if got, ok := recordOf(s, first); !ok || got.Identity != "id1" {
			t.Errorf("record %+v, want it back", got)
		}
		if got := h.subnet(); got != first {
			t.Errorf("subnet %s, want %s", got, first)
		}
		s.Expire(old.LeaseID)
		after(time.Second)
		if got, ok := recordOf(s, first); !ok || got.Identity != "id1" {
			t.Errorf("after expiry: record %+v, want it back", got)
		}
		if got := peer.peers(); !slices.Equal(got, []string{first.String() + " 192.0.0.1"}) {
			t.Errorf("peers %v", got)
		}
		h.quit()
		peer.quit()
	})
}

func TestARevokedLeaseIsReplaced(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1)
		h.client.OnCall(func(method string) subnettest.Fault {
			if method == "KeepAlive" {
				return subnettest.Fault{Before: subnet.ErrLeaseGone}
			}
			return subnettest.Fault{}
		})
		h.start()
		after(0)
		first := h.subnet()
		old, _ := recordOf(s, first)
		after(21 * time.Minute)
		got, ok := recordOf(s, first)
		if !ok || got.LeaseID == old.LeaseID || h.subnet() != first {
			t.Errorf("record %+v on %s, before %+v", got, h.subnet(), old)
		}
		h.quit()
	})
}

func record(identity, host, prefix, publicIP string) subnet.Record {
	l := subnet.Lease{Subnet: netip.MustParsePrefix(prefix)}
	l.PublicIP, l.BackendType, l.BackendData = netip.MustParseAddr(publicIP), "vxlan", `{"VNI":1}`
	return subnet.Record{Leases: []subnet.Lease{l}, Identity: identity, Host: host}
}
