package udp_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"flanneld/backend/udp"
	"flanneld/subnet"
)

// naive is a table as one would write it first.
type naive struct {
	networks    []netip.Prefix
	self, peers []subnet.Lease
	locals      []netip.Addr
}

func (n naive) route(dst netip.Addr) netip.Addr {
	best := subnet.Lease{Subnet: netip.PrefixFrom(netip.Addr{}, -1)}
	for _, l := range n.peers {
		if l.Subnet.Contains(dst) && l.Subnet.Bits() > best.Subnet.Bits() {
			best = l
		}
	}
	return best.PublicIP
}

// host returns the public address of the peer with an underlay address: whose it is in public, else who names it, the
// first by subnet.
func (n naive) host(addr netip.Addr) netip.Addr {
	first := subnet.Lease{}
	for _, l := range n.peers {
		switch {
		case l.PublicIP == addr:
			return addr
		case l.Underlay == addr && (!first.Subnet.IsValid() || bySubnet(l, first) < 0):
			first = l
		}
	}
	return first.PublicIP
}

func bySubnet(a, b subnet.Lease) int {
	return cmp.Or(a.Subnet.Addr().Compare(b.Subnet.Addr()), cmp.Compare(a.Subnet.Bits(), b.Subnet.Bits()))
}

func (n naive) check(from, src, dst netip.Addr) string {
	ours, inside := false, false
	for _, l := range n.self {
		ours = ours || l.Subnet.Contains(dst)
	}
	for _, p := range n.networks {
		inside = inside || p.Contains(src)
	}
	switch {
	case !n.host(from).IsValid():
		return "dropped: sender is no peer"
	case !ours:
		return "dropped: destination is not ours"
	case inside && n.route(src) != n.host(from), slices.Contains(n.locals, src):
		return "dropped: source is not the sender's"
	}
	return ""
}

// view is what a test looks at in a table.
type view interface {
	Route(dst netip.Addr) netip.Addr
	Host(addr netip.Addr) netip.Addr
	Check(from, src, dst netip.Addr) string
}

func (n naive) Route(dst netip.Addr) netip.Addr        { return n.route(dst) }
func (n naive) Host(addr netip.Addr) netip.Addr        { return n.host(addr) }
func (n naive) Check(from, src, dst netip.Addr) string { return n.check(from, src, dst) }

// asked is one question to a table.
type asked struct{ from, src, dst netip.Addr }

func (q asked) of(v view) string {
	return fmt.Sprintf("to %s by %s, to %s by %s; %s is %s; %q",
		q.src, v.Route(q.src), q.dst, v.Route(q.dst), q.from, v.Host(q.from), v.Check(q.from, q.src, q.dst))
}

// walker changes the leases of a small network at random.
type walker struct {
	*rand.Rand
	naive
	leases map[netip.Prefix]subnet.Lease
}

// inner returns a random address that is often inside the network.
func (w *walker) inner() netip.Addr {
	var a [16]byte
	binary.BigEndian.PutUint64(a[8:], w.Uint64())
	switch w.IntN(8) {
	case 0:
		return netip.AddrFrom4([4]byte(a[8:12]))
	case 1:
		binary.BigEndian.PutUint64(a[:], w.Uint64())
		return netip.AddrFrom16(a)
	case 2:
		return w.outer(w.IntN(2) == 0)
	case 3, 4, 5:
		return netip.AddrFrom4([4]byte{10, 5, byte(w.IntN(64)), byte(w.IntN(256))})
	}
	copy(a[:], []byte{0xfd, 0, 0, 5, 0, 0, 0, byte(w.IntN(64))})
	return netip.AddrFrom16(a)
}

// outer returns the underlay address of a random host.
func (w *walker) outer(six bool) netip.Addr {
	if six {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(w.IntN(30))})
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(w.IntN(30))})
}

func (w *walker) prefix() netip.Prefix {
	if w.IntN(2) == 0 {
		return netip.MustParsePrefix(fmt.Sprintf("fd00:5:0:%x::/64", w.IntN(64)))
	}
	return netip.MustParsePrefix(fmt.Sprintf("10.5.%d.0/%d", w.IntN(64), 24+w.IntN(2)))
}

// ask returns a random question, often that of a peer's packet for us.
func (w *walker) ask() asked {
	q := asked{w.outer(w.IntN(2) == 0), w.inner(), w.inner()}
	if len(w.peers) > 0 && w.IntN(3) > 0 {
		l := w.peers[w.IntN(len(w.peers))]
		q = asked{l.PublicIP, l.Subnet.Addr().Next(), w.self[w.IntN(len(w.self))].Subnet.Addr().Next()}
		if l.Underlay.IsValid() && w.IntN(2) == 0 {
			q.from = l.Underlay
		}
		if len(w.locals) > 0 && w.IntN(3) == 0 {
			q.src = w.locals[w.IntN(len(w.locals))]
		}
	}
	return q
}

// step changes something.
func (w *walker) step() {
	for range []int{0, 1, 1, 1, 2, 5, 40}[w.IntN(7)] {
		p := w.prefix()
		l, there := w.leases[p]
		six := p.Addr().Is6()
		switch {
		case there && w.IntN(2) == 0:
			delete(w.leases, p)
			if w.IntN(4) == 0 { // the host takes another subnet
				if l.Subnet = w.prefix(); l.Subnet.Addr().Is6() == six {
					w.leases[l.Subnet] = l
				}
			}
			continue
		case !there || w.IntN(2) == 0:
			l = subnet.Lease{Subnet: p, Attrs: subnet.Attrs{PublicIP: w.outer(six), BackendType: udp.Type}}
		default:
			l.BackendData = fmt.Sprint(w.IntN(3))
		}
		if l.Underlay = (netip.Addr{}); w.IntN(3) == 0 {
			l.Underlay = w.outer(six)
		}
		w.leases[p] = l
	}
	switch w.IntN(20) {
	case 0:
		clear(w.leases)
	case 1:
		w.self = []subnet.Lease{
			lease(fmt.Sprintf("10.5.%d.0/24", w.IntN(64)), "192.0.2.250"),
			lease(fmt.Sprintf("fd00:5:0:%x::/64", w.IntN(64)), "2001:db8::250"),
		}
	case 2:
		w.locals = []netip.Addr{w.outer(false), w.outer(true)}
	}
	w.peers = slices.Collect(maps.Values(w.leases))
}

// TestTablesThatFollowAreThoseMadeFromNothing changes leases at random. After each step the table answers as one that
// is made from nothing, and as a naive one; the table before it answers as before; and the paths of hosts that were
// there before have kept what they have learned.
func TestTablesThatFollowAreThoseMadeFromNothing(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seeds from %d on", seed)
	for range 10 {
		w := &walker{Rand: rand.New(rand.NewPCG(seed, 0)), leases: map[netip.Prefix]subnet.Lease{}}
		w.networks = prefixes("10.5.0.0/16", "fd00:5::/48")
		w.self = []subnet.Lease{lease("10.5.1.0/24", "192.0.2.250"), lease("fd00:5:0:1::/64", "2001:db8::250")}
		tables, learned := udp.NewTables(w.networks), map[netip.Addr]int{}
		var last udp.Table
		var lastAnswers map[asked]string
		for step := range 60 {
			w.step()
			peers := subnet.PeersOf(w.peers...)
			got, fresh := tables.Next(w.self, w.locals, peers), udp.NewTables(w.networks).Next(w.self, w.locals, peers)
			for q, want := range lastAnswers {
				if got := q.of(last); got != want {
					t.Fatalf("seed %d, step %d: the table before has changed:\n%s\n%s", seed, step, got, want)
				}
			}
			answers := map[asked]string{}
			for range 60 {
				q := w.ask()
				answers[q] = q.of(got)
				if want := q.of(w.naive); answers[q] != want || q.of(fresh) != want {
					t.Fatalf("seed %d, step %d:\nfollowed:     %s\nfrom nothing: %s\nnaive:        %s", seed, step, answers[q],
						q.of(fresh), want)
				}
			}
			lengths := map[[2]int]bool{}
			for _, l := range w.peers {
				lengths[[2]int{l.Subnet.Addr().BitLen(), l.Subnet.Bits()}] = true
			}
			if got.Probes() != len(lengths) {
				t.Fatalf("seed %d, step %d: %d hash tables for prefixes of %d lengths", seed, step, got.Probes(), len(lengths))
			}
			checkLearned(t, w, got, learned)
			if again := tables.Next(w.self, w.locals, subnet.PeersOf(w.peers...)); again != got {
				t.Fatalf("seed %d, step %d: a new table where nothing has changed", seed, step)
			}
			last, lastAnswers = got, answers
		}
		seed++
	}
}

// checkLearned compares what the paths know with what they have been told, and tells one of them something.
func checkLearned(t *testing.T, w *walker, table udp.Table, learned map[netip.Addr]int) {
	t.Helper()
	public := map[netip.Addr]bool{}
	for _, l := range w.peers {
		public[l.PublicIP] = true
		if got, want := table.Learned(l.PublicIP), learned[l.PublicIP]; got != want {
			t.Fatalf("the path to %s has learned %d, want %d", l.PublicIP, got, want)
		}
		if l.Underlay.IsValid() && table.Learned(l.Underlay) != learned[w.host(l.Underlay)] {
			t.Fatalf("the path of %s is not that of %s", l.Underlay, w.host(l.Underlay))
		}
	}
	maps.DeleteFunc(learned, func(addr netip.Addr, _ int) bool { return !public[addr] })
	if len(w.peers) > 0 {
		addr, mtu := w.peers[w.IntN(len(w.peers))].PublicIP, 1280+w.IntN(200)
		table.Learn(addr, mtu)
		learned[addr] = mtu
	}
}

func TestAChangeCopiesOnlyPagesThatItIsIn(t *testing.T) {
	peers := manyPeers(10000)
	tables := udp.NewTables(prefixes("10.0.0.0/8", "fd00::/16"))
	before := tables.Next(nil, nil, subnet.PeersOf(peers...))
	for _, l := range []int{0, 4711, 9999} {
		after := tables.Change(&peers[l], nil)
		if n := after.Copied(before); n != 2 { // the route and the host
			t.Errorf("%d pages copied as a peer leaves, want 2", n)
		}
		before = tables.Change(nil, &peers[l])
		if n := before.Copied(after); n != 2 {
			t.Errorf("%d pages copied as a peer comes, want 2", n)
		}
	}
	moved := peers[5]
	moved.BackendData = "{}"
	if tables.Change(&peers[5], &moved) != before {
		t.Error("a new table for a change that it does not show")
	}
}

// TestAnIndexIsWhatAMapIs changes an index at random, with many keys of one hash among the others, and compares it and
// the one before with maps.
func TestAnIndexIsWhatAMapIs(t *testing.T) {
	type key struct{ High, Low uint64 }
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for _, keys := range []uint64{3, 60, 3000} {
		var draft udp.Draft
		var last udp.Index
		want, lastWant := map[key]*udp.Path{}, map[key]*udp.Path{}
		check := func(x udp.Index, want map[key]*udp.Path) {
			t.Helper()
			n := 0
			for range x.All() {
				n++
			}
			if wrong := x.Wrong(); n != len(want) || wrong != "" {
				t.Fatalf("seed %d, %d keys: %d paths, want %d; %s", seed, keys, n, len(want), wrong)
			}
			for i := range keys {
				for _, k := range []key{{0, i << 8}, {i, 0}, key(udp.SameHash(i))} {
					if x.Find(k.High, k.Low) != want[k] {
						t.Fatalf("seed %d, %d keys: wrong path of %v", seed, keys, k)
					}
				}
			}
		}
		for round := range 60 {
			for range r.Uint64N(keys) {
				i := r.Uint64N(keys)
				k := []key{{0, i << 8}, {0, i << 8}, {i, 0}, {i, 0}, key(udp.SameHash(i % 100))}[r.IntN(5)]
				switch have, there := want[k]; {
				case r.IntN(60) < round:
					if delete(want, k); draft.Delete(k.High, k.Low) != there {
						t.Fatalf("seed %d: delete of %v does not say %t", seed, k, there)
					}
				case there && r.IntN(2) == 0:
					if draft.Put(k.High, k.Low, have) {
						t.Fatalf("seed %d: the same path of %v is a change", seed, k)
					}
				default:
					want[k] = new(udp.Path)
					if !draft.Put(k.High, k.Low, want[k]) {
						t.Fatalf("seed %d: another path of %v is no change", seed, k)
					}
				}
			}
			now := draft.Freeze()
			check(now, want)
			check(last, lastWant)
			last, lastWant = now, maps.Clone(want)
		}
	}
}

// manyPeers returns the leases of dual-stack hosts.
func manyPeers(n int) []subnet.Lease {
	peers := make([]subnet.Lease, 0, 2*n)
	add := func(subnetOf, host netip.Addr, bits int) {
		peers = append(peers, subnet.Lease{Subnet: netip.PrefixFrom(subnetOf, bits), Attrs: subnet.Attrs{PublicIP: host}})
	}
	for i := range n {
		high, low := byte(i>>8), byte(i)
		add(netip.AddrFrom4([4]byte{10, high, low, 0}), netip.AddrFrom4([4]byte{172, 16, high, low}), 24)
		add(netip.AddrFrom16([16]byte{0xfd, 6: high, 7: low}), netip.AddrFrom16([16]byte{0x20, 1, 14: high, 15: low}), 64)
	}
	return peers
}
