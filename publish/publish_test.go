package publish_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/ip"
	"flanneld/publish"
	"flanneld/subnet"
)

// desk is a publisher with all that it is told and tells.
type desk struct {
	*publish.Publisher
	file  string // the subnet file
	path  string // the state folder
	dir   *subnet.StateDir
	log   bytes.Buffer
	mtu   int
	peers []subnet.Record
	at    subnet.Position
	asked func() // is called when the peers are saved
	ready int    // how often Ready was called
	last  bool   // whether the last pass was reported as ready
	files map[string]error
}

func (d *desk) MTU() int                  { return d.mtu }
func (d *desk) MACs() map[string]ip.MAC   { return map[string]ip.MAC{"flannel.1": {2, 0, 0, 0, 0, 1}} }
func (d *desk) Scope() ip.Scope           { return ip.Scope{Links: []string{"flannel.1"}} }
func (d *desk) File(what string, e error) { d.files[what] = e }

func (d *desk) Pass(_ subnet.View, _ ip.Underlay, _ error, ready bool) { d.last = ready }

func (d *desk) Memory() subnet.Memory {
	d.asked()
	return subnet.Memory{Position: d.at, Records: subnet.Stale(d.peers...)}
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{file: filepath.Join(t.TempDir(), "subnet.env"), mtu: 1450, asked: func() {}, files: map[string]error{}}
	d.path = t.TempDir()
	dir, err := subnet.OpenState(d.path, d.file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	d.dir = dir
	d.Publisher = publish.New(publish.Options{
		SubnetFile: d.file, IPMasq: true, Network: "/coreos.com/network", State: subnet.State{Identity: "me"}, StateDir: dir,
		Underlay: func() ip.Underlay { return ip.Underlay{Link: "eth0"} }, Leases: d, Backend: d, Report: d,
		Ready: func() { d.ready++ }, Log: slog.New(slog.NewTextHandler(&d.log, nil)),
	})
	return d
}

// view is what a dual-stack host knows that has its subnets.
func view(t *testing.T) subnet.View {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(
		`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`))
	if err != nil {
		t.Fatal(err)
	}
	self := []subnet.Lease{{Subnet: netip.MustParsePrefix("10.5.34.0/24")},
		{Subnet: netip.MustParsePrefix("fd00:5:0:22::/64")}}
	return subnet.View{Config: c, Self: self, Own: subnet.Record{Identity: "me", Leases: self}}
}

// TestTheStateNamesTheStoreThatTheHostIsIn at once, also where peers are the same as before.
func TestTheStateNamesTheStoreThatTheHostIsIn(t *testing.T) {
	d, v := newDesk(t), view(t)
	for _, step := range []struct {
		store uint64
		held  bool
		want  uint64
	}{{7, true, 7}, {8, false, 7}, {8, true, 8}} {
		v.Position.Cluster, v.Status.Held = step.store, step.held
		if err := d.After(v, nil); err != nil {
			t.Fatal(err)
		}
		st, err := d.dir.Load()
		if err != nil || st.Store != step.want {
			t.Errorf("store %d, held %t: the state says %d, %v, want %d", step.store, step.held, st.Store, err, step.want)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheSubnetFileNamesTheFamiliesThatLinksOfTheMTUCanHave(t *testing.T) {
	for _, tt := range []struct {
		name string
		mtu  int
		six  bool
	}{
		{"both", 1450, true},
		{"the MTU is too small for IPv6", 1278, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			d.mtu = tt.mtu
			if err := d.After(view(t), nil); err != nil {
				t.Fatal(err)
			}
			text := read(t, d.file)
			if !strings.Contains(text, "FLANNEL_SUBNET=10.5.34.1/24") ||
				strings.Contains(text, "FLANNEL_IPV6_SUBNET") != tt.six {
				t.Errorf("got\n%s", text)
			}
			if !d.last || d.ready != 1 {
				t.Errorf("ready: %v, called %d times", d.last, d.ready)
			}
		})
	}
}

func TestNothingIsPublishedAfterAPassThatFailed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		self  bool
		err   error
		ready bool
	}{
		{"clean", true, nil, true},
		{"no subnet yet", false, nil, false},
		{"the kernel refuses a device", true, errors.New("create device"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, v := newDesk(t), view(t)
			if !tt.self {
				v.Self, v.Own = nil, subnet.Record{}
			}
			if err := d.After(v, tt.err); err != nil {
				t.Fatal(err)
			}
			if d.last != tt.ready || (read(t, d.file) != "") != tt.ready {
				t.Errorf("ready: %v, subnet file %q", d.last, read(t, d.file))
			}
		})
	}
}

func TestAFileThatCannotBeWrittenFailsThePassAndIsLoggedOnce(t *testing.T) {
	d := newDesk(t)
	if err := os.MkdirAll(filepath.Join(d.file, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := d.After(view(t), nil); err == nil || d.last || d.files["the subnet file"] == nil {
			t.Fatalf("got %v, ready: %v", err, d.last)
		}
	}
	if err := os.RemoveAll(d.file); err != nil {
		t.Fatal(err)
	}
	if err := d.After(view(t), nil); err != nil || !d.last || d.files["the subnet file"] != nil {
		t.Errorf("got %v, ready: %v", err, d.last)
	}
	for _, line := range []string{"write file failed, retrying", "file written again"} {
		if n := strings.Count(d.log.String(), line); n != 1 {
			t.Errorf("%q %d times in\n%s", line, n, &d.log)
		}
	}
}

func TestTheStateIsWhatTheNextRunNeeds(t *testing.T) {
	d := newDesk(t)
	if err := d.After(view(t), nil); err != nil {
		t.Fatal(err)
	}
	st, err := d.dir.Load()
	if err != nil {
		t.Fatal(err)
	}
	if st.Identity != "me" || st.Network != "/coreos.com/network" || len(st.Own.Leases) != 2 ||
		st.MACs["flannel.1"] != "02:00:00:00:00:01" || len(st.Links) != 1 {
		t.Errorf("got %+v", st)
	}
}

func TestPeersAreSavedSoonAfterAChangeAndAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		saved := func() int {
			st, err := d.dir.Load()
			if err != nil {
				t.Fatal(err)
			}
			return len(st.Memory.Records)
		}
		change := func(p string) {
			v, l := view(t), subnet.Lease{Subnet: netip.MustParsePrefix(p)}
			d.peers = append(d.peers, subnet.Record{Leases: []subnet.Lease{l}})
			v.Peers = subnet.PeersOf(l)
			if err := d.After(v, nil); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.KeepPeers(ctx) }()
		change("10.5.1.0/24")
		time.Sleep(1100 * time.Millisecond)
		if n := saved(); n != 1 {
			t.Errorf("%d peers saved after a second, want 1", n)
		}
		change("10.5.2.0/24")
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if n := saved(); n != 2 {
			t.Errorf("%d peers saved at the end, want 2", n)
		}
	})
}

// TestAHostThatIsKilledAfterItsFirstPassKnowsItsPeers does not run KeepPeers, which writes them a second later.
func TestAHostThatIsKilledAfterItsFirstPassKnowsItsPeers(t *testing.T) {
	d, v := newDesk(t), view(t)
	l := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24")}
	d.peers, v.Peers = []subnet.Record{{Leases: []subnet.Lease{l}}}, subnet.PeersOf(l)
	if err := d.After(v, nil); err != nil {
		t.Fatal(err)
	}
	st, err := d.dir.Load()
	if err != nil || len(st.Own.Leases) == 0 || len(st.Memory.Records) != 1 {
		t.Errorf("the state has %d own leases, %d peers, %v, want 2 and 1", len(st.Own.Leases), len(st.Memory.Records), err)
	}
}

// TestAStoreThatWasWipedIsRememberedAtOnce also where all hosts have their records again as they were.
func TestAStoreThatWasWipedIsRememberedAtOnce(t *testing.T) {
	d, v := newDesk(t), view(t)
	for _, at := range []subnet.Position{{Cluster: 1, Revision: 9}, {Cluster: 1, Revision: 7}, {Cluster: 2, Revision: 8}} {
		d.at, v.Position = at, at
		if err := d.After(v, nil); err != nil {
			t.Fatal(err)
		}
		if st, err := d.dir.Load(); err != nil || st.Memory.Position != at {
			t.Errorf("the state is of position %+v, %v, want %+v", st.Memory.Position, err, at)
		}
	}
	saves := 0
	d.asked = func() { saves++ }
	for range 3 {
		v.Position.Revision++
		if err := d.After(v, nil); err != nil {
			t.Fatal(err)
		}
	}
	if saves > 0 {
		t.Errorf("peers saved %d times while the store went on, want none", saves)
	}
}

func TestPeersThatGoOnChangingAreSavedEverMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, v := newDesk(t), view(t)
		var asked atomic.Int32
		d.asked = func() { asked.Add(1) }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.KeepPeers(ctx) }()
		for i := range 1200 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 24)
			v.Peers = subnet.PeersOf(subnet.Lease{Subnet: p})
			if err := d.After(v, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
		}
		if n := asked.Load(); n < 20 || n > 26 {
			t.Errorf("saved %d times within ten minutes, want once in half a minute", n)
		}
		time.Sleep(time.Hour)
		quiet := asked.Load()
		time.Sleep(time.Hour)
		if n := asked.Load(); n != quiet {
			t.Errorf("saved %d times although nothing has changed", n-quiet)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	})
}

// TestPeersAreKnownToTheNextRunBeforeAPassRoutesToThem: what a run does not know, it removes from the kernel.
func TestPeersAreKnownToTheNextRunBeforeAPassRoutesToThem(t *testing.T) {
	d, v := newDesk(t), view(t)
	pass := func(revision int64, subnets ...string) {
		t.Helper()
		v.Position.Revision = revision
		var entries []*subnet.Entry
		for _, s := range subnets {
			r := subnet.Record{Identity: s, Leases: []subnet.Lease{{Subnet: netip.MustParsePrefix(s)}}}
			entries = append(entries, &subnet.Entry{Record: r, Key: r.Key(), Revision: revision, Created: revision})
		}
		v.Peers = subnet.PeersOfEntries(entries...)
		d.Before(v)
	}
	known := func(want ...string) {
		t.Helper()
		st, err := d.dir.Load()
		var got []string
		for _, r := range st.Memory.Records {
			got = append(got, r.Identity)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("the next run knows %v, %v, want %v", got, err, want)
		}
	}
	const a, b, c, e = "10.5.1.0/24", "10.5.2.0/24", "10.5.3.0/24", "10.5.4.0/24"
	v.Position.Cluster = 1
	pass(2, a)
	d.peers, d.at = []subnet.Record{{Identity: a, Leases: []subnet.Lease{{Subnet: netip.MustParsePrefix(a)}}}}, v.Position
	if err := d.After(v, nil); err != nil { // writes the file whole
		t.Fatal(err)
	}
	known(a)
	pass(3, a, b)
	known(a, b)
	v.Position.Cluster = 2
	d.at = v.Position
	d.asked = func() { pass(4, a, b, c) } // while the file is written whole
	if err := d.After(v, nil); err != nil {
		t.Fatal(err)
	}
	known(a, b, c)
	d.asked = func() { pass(3, a, b, e) } // what the file has is newer
	v.Position.Cluster = 3
	d.at = subnet.Position{Cluster: 3, Revision: 5}
	if err := d.After(v, nil); err != nil {
		t.Fatal(err)
	}
	known(a)
	d.asked = func() {}
	pass(1, e) // of a store that was wiped: the pass writes it whole
	known(a)
}

// TestPeersThatCouldNotBeSavedAreSavedLater without another change.
func TestPeersThatCouldNotBeSavedAreSavedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, v := newDesk(t), view(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.KeepPeers(ctx) }()
		file := subnet.StateFiles(d.path, d.file)[1]
		if err := os.Mkdir(file, 0o700); err != nil { // in its place
			t.Fatal(err)
		}
		l := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24")}
		d.peers, v.Peers = []subnet.Record{{Leases: []subnet.Lease{l}}}, subnet.PeersOf(l)
		if err := d.After(v, nil); err == nil {
			t.Error("the peers were saved although a folder has their place")
		}
		time.Sleep(10 * time.Minute)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if st, err := d.dir.Load(); len(st.Memory.Records) != 1 {
			t.Errorf("%d peers saved, %v, want 1", len(st.Memory.Records), err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(d.log.String(), "write peers file failed"); n != 1 {
			t.Errorf("said %d times, want once:\n%s", n, &d.log)
		}
	})
}
