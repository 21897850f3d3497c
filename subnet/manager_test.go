package subnet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

const netConfig = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`

// host is one host with a manager that runs.
type host struct {
	t        *testing.T
	name, id string
	address  netip.Addr
	client   *subnettest.Client
	options  subnet.Options
	manager  *subnet.Manager
	stop     context.CancelFunc
	ended    chan error
	log      *bytes.Buffer
}

func newHost(t *testing.T, s *subnettest.Server, n int) *host {
	h := &host{
		t: t, name: fmt.Sprint("host", n), id: fmt.Sprint("id", n), client: s.Client(fmt.Sprint("host", n)),
		address: netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}), log: &bytes.Buffer{},
	}
	h.options = subnet.Options{
		Host: h.name, Prefix: "/net", TTL: time.Hour, RenewMargin: time.Minute, PeerGrace: 10 * time.Minute, OnLost: subnet.LostMove,
		Valid: func(subnet.Lease) error { return nil },
		Check: func(subnet.Config) error { return nil },
		Log:   slog.New(slog.NewTextHandler(h.log, nil)),
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
	h.manager = subnet.NewManager(h.client, o)
	ctx, stop := context.WithCancel(h.t.Context())
	h.stop, h.ended = stop, make(chan error, 1)
	m := h.manager
	go func() {
		if _, err := m.WaitConfig(ctx); err != nil {
			h.ended <- nil
			return
		}
		h.ended <- m.Run(ctx)
	}()
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
	for _, p := range h.manager.View().Peers {
		out = append(out, p.Subnet.String()+" "+p.PublicIP.String())
	}
	return out
}

// remembered is the state that the daemon would have saved.
func (h *host) remembered() subnet.State {
	v := h.manager.View()
	at, peers := h.manager.Peers()
	return subnet.State{Identity: h.id, Network: "/net", Config: v.Text, Own: v.Own, Until: v.Until, Position: at, Peers: peers}
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

// steal has another host's record stand where h has its own.
func steal(s *subnettest.Server, h *host) {
	p := h.subnet()
	s.Put(record("thief", "thief", p.String(), "192.0.2.99"))
}

func TestASubnetTakenByAnotherHostIsGivenUp(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		steal(s, h)
		after(5 * time.Second)
		if got := h.subnet(); !got.IsValid() || got == first {
			t.Errorf("subnet %s, want another than %s", got, first)
		}
		if e, _ := recordOf(s, first); e.Identity != "thief" {
			t.Errorf("record of the other host: %+v", e)
		}
		h.wantLog(`level=ERROR msg="subnet lost to another host"`)
		h.wantLog("holder=\"thief (192.0.2.99)\"")
		if got := h.peers(); !slices.Equal(got, []string{first.String() + " 192.0.2.99"}) {
			t.Errorf("peers %v", got)
		}
		h.quit()
	})
}

func TestASubnetTakenByAnotherHostIsWaitedForUnderHold(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1)
		h.options.OnLost = subnet.LostHold
		h.start()
		after(0)
		first := h.subnet()
		steal(s, h)
		after(time.Minute)
		if got := h.manager.Status(); got.Held || !strings.Contains(got.Waiting, "thief") {
			t.Errorf("status %+v", got)
		}
		if n := strings.Count(h.log.String(), "level=ERROR"); n != 1 {
			t.Errorf("%d errors logged, want 1", n)
		}
		s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{first}))
		after(time.Second)
		if e, _ := recordOf(s, first); e.Identity != "id1" || !h.manager.Status().Held {
			t.Errorf("record %+v, status %+v", e, h.manager.Status())
		}
		h.quit()
	})
}

func TestASubnetTakenByAnotherHostEndsTheDaemonUnderExit(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1)
		h.options.OnLost = subnet.LostExit
		h.start()
		after(0)
		steal(s, h)
		after(5 * time.Second)
		if err := h.quit(); !errors.Is(err, subnet.ErrLost) || !strings.Contains(err.Error(), "thief") {
			t.Errorf("got %v", err)
		}
	})
}

func TestAHostThatMovedToAnotherAddressKeepsItsSubnet(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		h.address = netip.MustParseAddr("198.51.100.1")
		h.manager.Refresh()
		after(time.Second)
		if e, _ := recordOf(s, first); e.Leases[0].PublicIP != h.address {
			t.Errorf("live: record %+v", e)
		}
		h.quit()
		h = newHost(t, s, 1)
		h.address = netip.MustParseAddr("198.51.100.2")
		h.start()
		after(5 * time.Second)
		if e, _ := recordOf(s, first); e.Leases[0].PublicIP != h.address || h.subnet() != first {
			t.Errorf("restarted: record %+v", e)
		}
		h.quit()
	})
}

func TestACloneGetsAnIdentityOfItsOwnAndTheOriginalKeepsItsSubnet(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		clone := newHost(t, s, 2)
		clone.id, clone.options.State = "id1", h.remembered()
		clone.start()
		after(5 * time.Second)
		if err := clone.quit(); !errors.Is(err, subnet.ErrCloned) {
			t.Errorf("clone: %v", err)
		}
		clone.wantLog("probably a cloned disk")
		h.wantLog("asks for its subnet: refused")
		if e, _ := recordOf(s, first); e.Host != "host1" || h.subnet() != first {
			t.Errorf("record of the original: %+v", e)
		}
		h.quit()
	})
}

func TestACloneThatCannotBeRefusedEndsWithAnotherSubnetThanTheOriginal(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		h.client.Cut(true)
		clone := newHost(t, s, 2)
		clone.id = "id1"
		clone.start()
		after(10 * time.Second)
		h.client.Cut(false)
		after(10 * time.Second)
		if err := h.quit(); !errors.Is(err, subnet.ErrCloned) {
			t.Errorf("original: %v", err)
		}
		if clone.subnet() != first {
			t.Errorf("clone on %s, want %s", clone.subnet(), first)
		}
		clone.quit()
	})
}

func TestTheAddressOfALivingHostIsRefusedWithItsName(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		double := newHost(t, s, 2)
		double.address = h.address
		double.start()
		after(2 * time.Minute)
		if got := double.manager.Status().Waiting; double.subnet().IsValid() || !strings.Contains(got, "living host host1") {
			t.Errorf("subnet %s, waiting for %q", double.subnet(), got)
		}
		double.address = netip.MustParseAddr("192.0.2.77")
		double.manager.Refresh()
		after(time.Second)
		if !double.subnet().IsValid() || double.subnet() == h.subnet() {
			t.Errorf("with another address: subnet %s", double.subnet())
		}
		h.quit()
		double.quit()
	})
}

func TestTheRecordOfADeadHostIsTakenOverWithItsAddress(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		h.quit()
		heir := newHost(t, s, 2)
		heir.address = h.address
		heir.start()
		after(5 * time.Second)
		if e, _ := recordOf(s, first); e.Identity != "id2" || heir.subnet() != first {
			t.Errorf("record %+v", e)
		}
		heir.quit()
	})
}

func TestARecordOfFlannelIsRecognisedByItsAddress(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		s.Put(record("", "", "10.5.77.0/24", "192.0.0.1"))
		h := newHost(t, s, 1).start()
		after(0)
		e, _ := recordOf(s, netip.MustParsePrefix("10.5.77.0/24"))
		if h.subnet() != e.Leases[0].Subnet || e.Identity != "id1" || e.LeaseID != 0 {
			t.Errorf("record %+v, subnet %s: want the reservation, without a lease", e, h.subnet())
		}
		after(3 * time.Hour)
		if h.client.Counts()["KeepAlive"] != 0 {
			t.Errorf("calls %v", h.client.Counts())
		}
		h.quit()
	})
}

func TestAReservationIsNotGivenToOthersNorTakenBack(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		s.SetConfig([]byte(`{"Network":"10.5.0.0/28","Backend":{"Type":"vxlan"}}`))
		s.Put(record("", "", "10.5.0.4/30", "192.0.2.50"))
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{first}))
		s.Put(record("", "", first.String(), "192.0.2.51"))
		after(10 * time.Second)
		if e, _ := recordOf(s, first); e.Leases[0].PublicIP != netip.MustParseAddr("192.0.2.51") {
			t.Errorf("reservation %+v", e)
		}
		if got := h.subnet(); got == first || got.String() == "10.5.0.4/30" || !got.IsValid() {
			t.Errorf("subnet %s", got)
		}
		h.quit()
	})
}

func TestAFullPoolIsWaitedOutWithTheNumbers(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		s.SetConfig([]byte(`{"Network":"10.5.0.0/28","Backend":{"Type":"vxlan"}}`))
		s.Put(record("", "", "10.5.0.4/30", "192.0.2.50"))
		a, b := newHost(t, s, 1).start(), newHost(t, s, 2).start()
		after(0)
		late := newHost(t, s, 3).start()
		after(time.Minute)
		if got := late.manager.Status().Waiting; !strings.Contains(got, "holds 3, with 2 leases and 1 reservations") {
			t.Errorf("waiting for %q", got)
		}
		if n := strings.Count(late.log.String(), "no free subnet"); n != 1 {
			t.Errorf("said %d times", n)
		}
		b.quit()
		freed := b.subnet()
		s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{freed}))
		after(time.Second)
		if late.subnet() != freed {
			t.Errorf("subnet %s, want the freed %s", late.subnet(), freed)
		}
		a.quit()
		late.quit()
	})
}

func TestAWipedStoreIsFilledAgainAndNoPeerIsLost(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a, b, dead := newHost(t, s, 1).start(), newHost(t, s, 2).start(), newHost(t, s, 3).start()
		after(0)
		subnets := [2]netip.Prefix{a.subnet(), b.subnet()}
		dead.quit()
		b.client.Cut(true)
		before := a.peers()
		s.Wipe()
		after(5 * time.Second)
		if got := a.peers(); !slices.Equal(got, before) {
			t.Errorf("peers %v, want %v", got, before)
		}
		b.client.Cut(false)
		after(5 * time.Second)
		if got := [2]netip.Prefix{a.subnet(), b.subnet()}; got != subnets {
			t.Errorf("subnets %v, want %v", got, subnets)
		}
		for _, p := range subnets {
			if _, ok := recordOf(s, p); !ok {
				t.Errorf("no record of %s", p)
			}
		}
		after(11 * time.Minute)
		if got := a.peers(); len(got) != 1 {
			t.Errorf("peers after the grace period: %v, want only the living one", got)
		}
		a.quit()
		b.quit()
	})
}

func TestARestoredBackupLosesNobody(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a := newHost(t, s, 1).start()
		after(0)
		backup := s.Backup()
		b := newHost(t, s, 2).start()
		after(0)
		want := b.subnet()
		s.Restore(backup)
		after(5 * time.Second)
		if e, ok := recordOf(s, want); !ok || e.Identity != "id2" {
			t.Errorf("record of the host that the backup did not know: %+v", e)
		}
		if got := a.peers(); len(got) != 1 {
			t.Errorf("peers %v", got)
		}
		a.quit()
		b.quit()
	})
}

func TestACompactionWhileCutOffIsFollowed(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a := newHost(t, s, 1).start()
		after(0)
		a.client.Cut(true)
		b := newHost(t, s, 2).start()
		after(time.Second)
		s.Compact()
		a.client.Cut(false)
		after(5 * time.Second)
		if got := a.peers(); len(got) != 1 {
			t.Errorf("peers %v", got)
		}
		a.quit()
		b.quit()
	})
}

func TestWithoutTheStoreTheLastStateServesAndIsSaid(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a, b := newHost(t, s, 1).start(), newHost(t, s, 2).start()
		after(0)
		want, peers, state := a.subnet(), a.peers(), a.remembered()
		a.quit()
		again := newHost(t, s, 1)
		again.options.State = state
		again.client.Cut(true)
		again.start()
		after(2 * time.Second)
		if again.subnet() != want || !slices.Equal(again.peers(), peers) {
			t.Errorf("subnet %s, peers %v, want %s, %v", again.subnet(), again.peers(), want, peers)
		}
		if again.manager.Status().StoreSince.IsZero() {
			t.Error("the store counts as reachable")
		}
		calls := again.client.Counts()["List"]
		after(time.Minute)
		if n := again.client.Counts()["List"] - calls; n > 40 || n < 10 {
			t.Errorf("%d tries in a minute", n)
		}
		if n := strings.Count(again.log.String(), "store unreachable"); n != 1 {
			t.Errorf("said %d times", n)
		}
		again.client.Cut(false)
		after(5 * time.Second)
		if !again.manager.Status().Held || !again.manager.Status().StoreSince.IsZero() {
			t.Errorf("status %+v", again.manager.Status())
		}
		again.quit()
		b.quit()
	})
}

func TestPeersThatWentWhileStoppedAreDroppedAtOnce(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a, b := newHost(t, s, 1).start(), newHost(t, s, 2).start()
		after(0)
		state := a.remembered()
		a.quit()
		b.quit()
		s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{b.subnet()}))
		a = newHost(t, s, 1)
		a.options.State = state
		a.start()
		after(time.Second)
		if got := a.peers(); len(got) != 0 {
			t.Errorf("peers %v", got)
		}
		a.quit()
	})
}

func TestRecordsThatMakeNoSenseAreSkippedWithOneWarningEach(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		s.PutBad("subnets/10.5.200.0-24", "not JSON")
		s.Put(record("x1", "x", "10.6.0.0/24", "192.0.2.11"))
		s.Put(record("x2", "x", "10.5.0.0/17", "192.0.2.12"))
		s.Put(record("x3", "x", "fd00::/64", "2001:db8::1"))
		s.Put(record("x4", "x", "10.5.201.0/24", "192.0.0.1"))
		s.Put(record("x5", "x", "10.5.202.0/24", "10.5.202.7"))
		other := record("x6", "x", "10.5.203.0/24", "192.0.2.16")
		other.Leases[0].BackendType = "host-gw"
		s.Put(other)
		good := record("x7", "x", "10.5.204.0/24", "192.0.2.17")
		s.Put(good)
		after(time.Second)
		if got := h.peers(); !slices.Equal(got, []string{"10.5.204.0/24 192.0.2.17"}) {
			t.Errorf("peers %v", got)
		}
		v := h.manager.View()
		if v.Status.Skipped != 7 {
			t.Errorf("%d skipped, want 7", v.Status.Skipped)
		}
		if n := strings.Count(h.log.String(), "record skipped"); n != 7 {
			t.Errorf("%d warnings, want 7:\n%s", n, h.log)
		}
		if !h.manager.Status().Held {
			t.Error("own lease lost")
		}
		h.quit()
	})
}

func TestAMissingOrWrongConfigurationIsWaitedForAndNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := subnettest.NewServer()
		h := newHost(t, s, 1).start()
		after(time.Minute)
		h.wantLog("/net/config is missing")
		s.SetConfig([]byte(`{"Network":"10.5.0.0/33"}`))
		after(time.Second)
		h.wantLog("10.5.0.0/33")
		wantCalls(t, h, 4)
		s.SetConfig([]byte(netConfig))
		after(time.Second)
		if !h.subnet().IsValid() {
			t.Error("no subnet")
		}
		h.quit()
	})
}

func TestAChangedConfigurationBindsLaterLeasesOrWaitsForARestart(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		s.SetConfig([]byte(`{"Network":"10.5.0.0/16","SubnetMin":"10.5.250.0","Backend":{"Type":"vxlan"}}`))
		after(time.Second)
		if h.subnet() != first || h.manager.Status().Pending != "" {
			t.Errorf("subnet %s, pending %q", h.subnet(), h.manager.Status().Pending)
		}
		steal(s, h)
		after(5 * time.Second)
		if got := h.subnet(); got.Addr().Less(netip.MustParseAddr("10.5.250.0")) {
			t.Errorf("new subnet %s is below the new minimum", got)
		}
		held := h.subnet()
		for text, want := range map[string]string{
			`{"Network":"10.9.0.0/16","Backend":{"Type":"vxlan"}}`:          "network",
			`{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`:        "backend",
			`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":"x"}`: "wrong",
		} {
			s.SetConfig([]byte(text))
			after(time.Second)
			if got := h.manager.Status().Pending; !strings.Contains(got, want) || h.subnet() != held {
				t.Errorf("%s: pending %q, subnet %s", text, got, h.subnet())
			}
		}
		s.SetConfig(nil)
		after(time.Second)
		if got := h.manager.Status().Pending; !strings.Contains(got, "deleted") || h.subnet() != held {
			t.Errorf("deleted: pending %q, subnet %s", got, h.subnet())
		}
		h.quit()
	})
}

func TestAnAnswerThatIsLostDoesNotLeaveTwoRecords(t *testing.T) {
	for _, method := range []string{"Grant", "Create", "Update", "KeepAlive", "List", "Watch", "Delete"} {
		t.Run(method, func(t *testing.T) {
			network(t, func(t *testing.T, s *subnettest.Server) {
				h := newHost(t, s, 1)
				lost := 0
				h.client.OnCall(func(m string) subnettest.Fault {
					if m == method && lost < 3 {
						lost++
						return subnettest.Fault{After: subnettest.ErrFault}
					}
					return subnettest.Fault{}
				})
				h.start()
				after(10 * time.Second)
				h.address = netip.MustParseAddr("198.51.100.1")
				h.manager.Refresh()
				after(10 * time.Second)
				if e := s.Entries(); len(e) != 1 || !h.manager.Status().Held || e[0].Leases[0].PublicIP != h.address {
					t.Errorf("records %v, status %+v", e, h.manager.Status())
				}
				h.quit()
			})
		})
	}
}

func TestAHundredHostsThatStartAtOnceGetDifferentSubnets(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		const n = 100
		var hosts []*host
		for i := range n {
			hosts = append(hosts, newHost(t, s, i+1).start())
		}
		after(time.Minute)
		seen, calls := map[netip.Prefix]bool{}, 0
		for _, h := range hosts {
			seen[h.subnet()] = true
			for _, c := range h.client.Counts() {
				calls += c
			}
			h.quit()
		}
		if len(seen) != n || seen[netip.Prefix{}] {
			t.Errorf("%d different subnets", len(seen))
		}
		if calls > 8*n {
			t.Errorf("%d calls for %d hosts, want at most 8 each", calls, n)
		}
	})
}

func TestARecordThatCoversTheWholeNetworkKeepsNobodyOut(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		s.PutBad("subnets/0.0.0.0-0&fd00:5:0:25::-64", "no address of a host")
		s.PutBad("subnets/10.5.0.0-16", "rubbish")
		h := newHost(t, s, 1).start()
		after(time.Second)
		if !h.subnet().IsValid() {
			t.Errorf("no subnet: %s", h.manager.Status().Waiting)
		}
	})
}
