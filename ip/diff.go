package ip

import (
	"iter"
	"slices"
)

// Diff returns the operations that turn have into want: puts in the order of kinds, then deletes in the reverse
// order. A device whose immutable settings differ is deleted first, and what stands on it counts as gone with it.
// Both states are sorted in place.
func Diff(have, want *State) []Op {
	have.Sort()
	want.Sort()
	remade := remadeLinks(have.Links, want.Links)
	var d differ
	for _, l := range have.Links {
		if slices.Contains(remade, l.Name) {
			d.puts = append(d.puts, Op{Delete: true, Object: l})
		}
	}
	diff(&d, without(have.Links, remade), want.Links, compareLink)
	diff(&d, without(have.Addrs, remade), want.Addrs, compareAddr)
	diff(&d, without(have.FDB, remade), want.FDB, compareFDB)
	// The kernel forgets the neighbours on a device whose hardware address changes (neigh_changeaddr).
	diff(&d, without(have.Neighs, append(remade, readdressedLinks(have.Links, want.Links)...)), want.Neighs, compareNeigh)
	diff(&d, without(have.Routes, remade), want.Routes, compareRoute)
	slices.Reverse(d.deletes)
	return append(d.puts, d.deletes...)
}

type differ struct{ puts, deletes []Op }

// diff adds what turns one slice into the other; both are sorted by key.
func diff[T value](d *differ, have, want []T, compare func(a, b T) int) {
	var last *T // wanted, and found
	for h, w := range pairs(have, want, compare) {
		if h != nil && w != nil {
			last = w
		}
		switch {
		case w == nil && last != nil && compare(*h, *last) == 0:
			// Listed twice, for it changed during the dump: a delete would take what is wanted.
		case w == nil:
			d.deletes = append(d.deletes, Op{Delete: true, Object: *h})
		case h == nil || *h != *w:
			d.puts = append(d.puts, Op{Object: *w})
		}
	}
}

type value interface {
	comparable
	Object
}

// pairs merges two slices that are sorted by key, and yields what has the same key together, else nil on the other side.
func pairs[T any](have, want []T, compare func(a, b T) int) iter.Seq2[*T, *T] {
	return func(yield func(h, w *T) bool) {
		for i, j := 0, 0; i < len(have) || j < len(want); {
			side := 0
			switch {
			case i == len(have):
				side = 1
			case j == len(want):
				side = -1
			default:
				side = compare(have[i], want[j])
			}
			var h, w *T
			if side <= 0 {
				h = &have[i]
				i++
			}
			if side >= 0 {
				w = &want[j]
				j++
			}
			if !yield(h, w) {
				return
			}
		}
	}
}

// remadeLinks names the devices that cannot be changed into what is wanted.
func remadeLinks(have, want []Link) []string {
	return linksWhere(have, want, func(h, w Link) bool { return !h.becomes(w) })
}

// readdressedLinks names the devices that get another hardware address.
func readdressedLinks(have, want []Link) []string {
	return linksWhere(have, want, func(h, w Link) bool { return h.MAC != w.MAC })
}

// linksWhere names the devices that are in both states and of which f holds.
func linksWhere(have, want []Link, f func(have, want Link) bool) []string {
	var names []string
	for _, w := range want {
		i := slices.IndexFunc(have, func(h Link) bool { return h.Name == w.Name })
		if i >= 0 && f(have[i], w) {
			names = append(names, w.Name)
		}
	}
	return names
}

// becomes reports whether the kernel can change one device into the other while it stands. Of a vxlan device it can change
// the local address within a family, the underlay and learning (vxlan_changelink in drivers/net/vxlan/vxlan_core.c).
func (l Link) becomes(w Link) bool {
	a, b := l.VXLAN, w.VXLAN
	return l.Type == w.Type && a.VNI == b.VNI && a.Port == b.Port && a.GBP == b.GBP && a.Local.BitLen() == b.Local.BitLen()
}

func without[T Object](objects []T, links []string) []T {
	if len(links) == 0 {
		return objects
	}
	return slices.DeleteFunc(slices.Clone(objects), func(o T) bool { return o.Device() != "" && slices.Contains(links, o.Device()) })
}
