package ip

import "slices"

// Diff returns the operations that turn have into want: puts in the order of kinds, then deletes in the reverse
// order. A device whose immutable settings differ is deleted first, and what stands on it counts as gone with it.
func Diff(have, want Snapshot) []Op {
	var d differ
	var remade, forgotten []string
	for h, w := range have.Links.changesTo(want.Links) {
		switch {
		case h == nil || w == nil:
		case !h.becomes(*w):
			d.puts = append(d.puts, Op{Delete: true, Object: *h})
			remade = append(remade, h.Name)
		case h.MAC != w.MAC:
			// The kernel forgets the neighbours on a device whose hardware address changes (neigh_changeaddr).
			forgotten = append(forgotten, h.Name)
		}
	}
	diff(&d, have.Links.without(remade), want.Links)
	diff(&d, have.Addrs.without(remade), want.Addrs)
	diff(&d, have.FDB.without(remade), want.FDB)
	diff(&d, have.Neighs.without(append(forgotten, remade...)), want.Neighs)
	diff(&d, have.Routes.without(remade), want.Routes)
	slices.Reverse(d.deletes)
	return append(d.puts, d.deletes...)
}

type differ struct{ puts, deletes []Op }

// diff adds what turns one set into the other. A dump lists an object twice if it changes meanwhile: a delete would
// then take what is wanted.
func diff[T value[T]](d *differ, have, want Set[T]) {
	for h, w := range have.changesTo(want) {
		switch {
		case w != nil:
			// What others have in the place of a route is not in have.
			_, route := any(*w).(Route)
			d.puts = append(d.puts, Op{Create: route && h == nil, Object: *w})
		default:
			if _, wanted := want.Find(*h); !wanted {
				d.deletes = append(d.deletes, Op{Delete: true, Object: *h})
			}
		}
	}
}

// becomes reports whether the kernel can change one device into the other while it stands. Of a vxlan device it can
// change the local address within a family, the underlay and learning (vxlan_changelink in
// drivers/net/vxlan/vxlan_core.c). A device with a Tunnel is made anew: its local address changes with that of the
// host, where no tunnel packet would arrive anyway.
func (l Link) becomes(w Link) bool {
	a, b := l.VXLAN, w.VXLAN
	return l.Type == w.Type && l.Tunnel == w.Tunnel && a.VNI == b.VNI && a.Port == b.Port && a.GBP == b.GBP &&
		a.Local.BitLen() == b.Local.BitLen()
}
