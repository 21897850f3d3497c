package wireguard

import (
	"bytes"
	"maps"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/subnet"
)

// greetLate is how long the host with the higher public key leaves a handshake that somebody waits for to the other
// one: see wire.note. New peers were greeted already; the session with one that is known for longer may have ended.
const greetLate = time.Second

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

// meetLocked begins the handshakes that are waited for.
func (b *Backend) meetLocked(now time.Time) {
	own := *b.public.Load()
	for name, w := range b.wires {
		var keys []wgtypes.Key
		for key, p := range b.plan.devices[name].peers {
			if b.due(p.allowed, now, bytes.Compare(own[:], key[:]) < 0) {
				keys = append(keys, key)
			}
		}
		if len(keys) > 0 {
			w.tunnel.greet(keys, b.plan.devices[name].keepalive())
		}
	}
}

// due reports whether the handshake with a peer is to be begun now.
func (b *Backend) due(subnets []netip.Prefix, now time.Time, first bool) bool {
	for _, s := range subnets {
		if w := b.established.waits[s]; w != nil && !w.greeted && (first || now.Sub(w.since) >= greetLate) {
			w.greeted = true
			return true
		}
	}
	return false
}
