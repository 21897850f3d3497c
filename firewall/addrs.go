package firewall

import (
	"iter"
	"net/netip"

	"flanneld/firewall/foreign"
	"flanneld/sorted"
)

// Addrs is a set of addresses that never changes. Two that one AddrSet has handed out share what is the same in both.
// The zero value is empty.
type Addrs struct{ four, six sorted.Snapshot[element] }

// AddrsOf returns a set of addresses.
func AddrsOf(addrs ...netip.Addr) Addrs {
	s := NewAddrSet()
	for _, a := range addrs {
		s.Add(a)
	}
	return s.Snapshot()
}

// All returns the addresses, IPv4 first, each in their order.
func (a Addrs) All() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, is4 := range foreign.Families {
			for e := range a.of(is4).All() {
				if !yield(e.addr) {
					return
				}
			}
		}
	}
}

func (a Addrs) of(is4 bool) sorted.Snapshot[element] {
	if is4 {
		return a.four
	}
	return a.six
}

func (a Addrs) has(addr netip.Addr) bool {
	addr = addr.Unmap()
	_, there := a.of(addr.Is4()).Find(element{addr: addr})
	return there
}

func (a Addrs) equal(b Addrs) bool { return same(a.four, b.four) && same(a.six, b.six) }

func same(a, b sorted.Snapshot[element]) bool {
	for range sorted.Changes(a, b) {
		return false
	}
	return true
}

// AddrSet is a set of addresses that changes. An address that was added several times stays until it was removed as
// often. One goroutine may use it.
type AddrSet struct {
	four, six *sorted.Set[element]
	more      map[netip.Addr]int // how often an address was added beyond once
}

// NewAddrSet returns an empty set.
func NewAddrSet() *AddrSet {
	return &AddrSet{sorted.New(element.compare), sorted.New(element.compare), map[netip.Addr]int{}}
}

// Snapshot returns the present set.
func (s *AddrSet) Snapshot() Addrs { return Addrs{s.four.Freeze(), s.six.Freeze()} }

// Add adds an address once more. An IPv4 address in the form of an IPv6 one is the IPv4 address.
func (s *AddrSet) Add(a netip.Addr) {
	a = a.Unmap()
	if _, there := s.of(a).Find(element{addr: a}); there {
		s.more[a]++
		return
	}
	s.of(a).Put(element{addr: a})
}

// Remove takes back one Add.
func (s *AddrSet) Remove(a netip.Addr) {
	a = a.Unmap()
	switch s.more[a] {
	case 0:
		s.of(a).Delete(element{addr: a})
	case 1:
		delete(s.more, a)
	default:
		s.more[a]--
	}
}

func (s *AddrSet) of(a netip.Addr) *sorted.Set[element] {
	if a.Is4() {
		return s.four
	}
	return s.six
}
