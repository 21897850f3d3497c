package wireguard

import (
	"maps"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/subnet"
)

// established are the peers that packets are sent to at once, and those whose handshake somebody waits for. The zero
// value knows none.
type established struct {
	subnets map[netip.Prefix]bool // with a session, or given up
	waits   map[netip.Prefix]*wait
	changes int // of subnets
}

// wait is that for one peer.
type wait struct {
	since   time.Time
	greeted bool
}

// Established implements backend.Establisher. It gives a peer up that has not answered for as long as one that lives
// may take.
func (b *Backend) Established() (ready func(subnet.Lease) bool, during any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, now := &b.established, time.Now()
	if e.waits == nil {
		e.waits = map[netip.Prefix]*wait{}
	}
	subnets := b.sessionsLocked(now)
	for p, w := range e.waits {
		is, planned := subnets[p]
		switch late := now.Sub(w.since) >= answerTime; {
		case !planned, is && !late:
			delete(e.waits, p)
		case late:
			subnets[p] = true
		}
	}
	maps.DeleteFunc(subnets, func(_ netip.Prefix, is bool) bool { return !is })
	if !maps.Equal(subnets, e.subnets) {
		e.subnets = subnets
		e.changes++
	}
	return func(l subnet.Lease) bool {
		if subnets[l.Subnet] {
			return true
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if e.waits[l.Subnet] == nil {
			e.waits[l.Subnet] = &wait{since: now}
		}
		return false
	}, e.changes
}

// sessionsLocked returns whether there is a session with each peer, by subnet.
func (b *Backend) sessionsLocked(now time.Time) map[netip.Prefix]bool {
	out := map[netip.Prefix]bool{}
	for name, w := range b.wires {
		d, err := w.tunnel.Device()
		if err != nil {
			continue // the next look says so
		}
		planned := b.plan.devices[name].peers
		for _, p := range d.Peers {
			for _, s := range planned[p.PublicKey].allowed {
				out[s] = now.Sub(p.LastHandshakeTime) < sessionTime
			}
		}
	}
	return out
}

// meetLocked has the handshakes begun that are waited for. New peers are greeted anyway; the session with one that is
// known for longer may have ended.
func (b *Backend) meetLocked() {
	if len(b.established.waits) == 0 {
		return
	}
	own := b.private.PublicKey()
	for name, w := range b.wires {
		want := b.plan.devices[name]
		var now []wgtypes.Key
		for key, p := range want.peers {
			if b.due(p.allowed) && w.turn(own, key) {
				now = append(now, key)
			}
		}
		w.tunnel.greet(now, want.keepalive())
	}
}

// due reports whether a peer is waited for that was not greeted yet, and notes that it is.
func (b *Backend) due(subnets []netip.Prefix) bool {
	for _, s := range subnets {
		if w := b.established.waits[s]; w != nil && !w.greeted {
			w.greeted = true
			return true
		}
	}
	return false
}
