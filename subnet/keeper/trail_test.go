package keeper_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

// away is what happens to the store while a host does not listen, or does not run.
type away struct {
	name   string
	change func(s *subnettest.Server, b subnettest.Backup)
	lists  int // that the host needs
	peers  []string
}

// known is the subnet of a peer from before, and added that of one that comes.
const known, added = "10.5.200.0/24", "10.5.201.0/24"

// aways are the cases; a backup was saved when the peer was there and the host was not.
var aways = []away{
	{"nothing happens", func(*subnettest.Server, subnettest.Backup) {}, 0, []string{known}},
	{"a record comes", func(s *subnettest.Server, _ subnettest.Backup) {
		s.Put(record("y", "y", added, "192.0.2.98"))
	}, 0, []string{known, added}},
	{"a record changes its subnet", func(s *subnettest.Server, _ subnettest.Backup) {
		s.Replace(keyOf(known), record("x", "x", added, "192.0.2.99"))
	}, 0, []string{added}},
	{"a record comes late", func(s *subnettest.Server, _ subnettest.Backup) {
		after(time.Hour)
		s.Put(record("y", "y", added, "192.0.2.98"))
	}, 0, []string{known, added}},
	{"the changes are compacted", func(s *subnettest.Server, _ subnettest.Backup) {
		s.Put(record("y", "y", added, "192.0.2.98"))
		s.Compact()
	}, 1, []string{known, added}},
	{"a backup is restored", func(s *subnettest.Server, b subnettest.Backup) { s.Restore(b) }, 1, []string{known}},
	{"a backup is restored and overtakes the host", func(s *subnettest.Server, b subnettest.Backup) {
		s.Restore(b)
		for range 20 {
			s.Put(record("y", "y", added, "192.0.2.98"))
		}
	}, 1, []string{known, added}},
}

// TestAfterABreakTheWatchGoesOnWithoutAListIfTheStoreIsTheSame breaks the watch of a host, changes the store while
// nobody listens, and looks whether the host has listed again and knows all peers.
func TestAfterABreakTheWatchGoesOnWithoutAListIfTheStoreIsTheSame(t *testing.T) {
	for _, tt := range aways {
		t.Run(tt.name, func(t *testing.T) {
			network(t, func(t *testing.T, s *subnettest.Server) {
				h := newHost(t, s, 1)
				h.options.PeerGrace = time.Second
				s.Put(record("x", "x", known, "192.0.2.99"))
				b := s.Backup()
				h.start()
				after(time.Minute)
				lists := h.client.Counts()["List"]
				h.client.Cut(true)
				tt.change(s, b)
				h.client.Cut(false)
				after(time.Minute)
				if got := h.client.Counts()["List"] - lists; got != tt.lists {
					t.Errorf("%d lists, want %d", got, tt.lists)
				}
				var peers []string
				for p := range h.manager.View().Peers.All() {
					peers = append(peers, p.Subnet.String())
				}
				slices.Sort(peers)
				if !slices.Equal(peers, tt.peers) {
					t.Errorf("peers %v, want %v", peers, tt.peers)
				}
				h.quit()
			})
		})
	}
}

// TestPeersThatWentWhileTheStoreWasAwayAreKeptForAWhile: all hosts may have lost the store, and their store leases have
// ended.
func TestPeersThatWentWhileTheStoreWasAwayAreKeptForAWhile(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		s.Put(record("x", "x", "10.5.200.0/24", "192.0.2.99"))
		after(time.Minute)
		h.client.Cut(true)
		s.Remove(keyOf("10.5.200.0/24"))
		h.client.Cut(false)
		after(h.options.PeerGrace / 2)
		if len(h.peers()) != 1 || h.manager.View().Status.Stale != 1 {
			t.Errorf("peers %v, status %+v", h.peers(), h.manager.View().Status)
		}
		after(h.options.PeerGrace)
		if len(h.peers()) != 0 {
			t.Errorf("peers %v after the time for which they are kept", h.peers())
		}
		h.quit()
	})
}

// TestAPeerThatIsDeletedJustBeforeTheStoreIsWipedIsKept: its host may have written its record again, and the watch has
// ended before it told of that.
func TestAPeerThatIsDeletedJustBeforeTheStoreIsWipedIsKept(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		s.Put(record("x", "x", known, "192.0.2.99"))
		after(time.Minute)
		s.Remove(keyOf(known))
		after(100 * time.Millisecond)
		s.Wipe()
		s.SetConfig([]byte(config4))
		for range 100 {
			if after(100 * time.Millisecond); len(h.peers()) != 1 {
				t.Fatal("the peer is gone")
			}
		}
		if after(h.options.PeerGrace); len(h.peers()) != 0 {
			t.Errorf("peers %v after the time for which they are kept", h.peers())
		}
		h.quit()
	})
}

func keyOf(prefix string) string {
	return subnet.SubnetsFolder + subnet.Key([]netip.Prefix{netip.MustParsePrefix(prefix)})
}

// TestAListIsTrustedForALimitedTime has the first watch after a list find that what it would prove the store by is
// compacted, and the second one open late: the store may be another one by then.
func TestAListIsTrustedForALimitedTime(t *testing.T) {
	for delay, lists := range map[time.Duration]int{time.Second: 1, 3 * time.Second: 2} {
		network(t, func(t *testing.T, s *subnettest.Server) {
			first := newHost(t, s, 1).start()
			after(time.Second)
			s.SetConfig([]byte(config4))
			after(time.Second)
			s.Compact()
			h := newHost(t, s, 2)
			slow := 0
			h.client.OnCall(func(method string) (f subnettest.Fault) {
				if method == "Watch" && slow < 2 {
					slow++
					f.Delay = delay
				}
				return f
			})
			h.start()
			after(time.Minute)
			if got := h.client.Counts()["List"]; got != lists || h.subnet() == first.subnet() {
				t.Errorf("a watch that opens after %s: %d lists, want %d", 2*delay, got, lists)
			}
			_, _ = first.quit(), h.quit()
		})
	}
}
