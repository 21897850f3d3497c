package extension

import (
	"slices"

	"flanneld/ip"
)

// lost is what the underlay's link has lost since it was complete. The kernel removes routes with it, and does not
// notify.
type lost struct {
	link bool    // it was deleted or set down
	addr [2]bool // an address that is in use, of IPv4 and of IPv6
}

// Observe implements backend.Observer: once the underlay is back, what the commands have made may be gone.
func (b *Backend) Observe(ev ip.Event) bool {
	u := b.host.Underlay()
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.lost
	switch o := ev.Object.(type) {
	case ip.Link:
		if o.Name != u.Link {
			return false
		}
		b.lost.link = ev.Deleted || !o.Up
		if ev.Deleted {
			b.lost.addr = [2]bool{true, true}
		}
		b.again = b.again || was.link && !b.lost.link
	case ip.Addr:
		if o.Link != u.Link {
			return false
		}
		family := 0
		if o.Prefix.Addr().Is6() {
			family = 1
		}
		switch {
		case !ev.Deleted:
			b.lost.addr[family] = false
		case slices.Contains(u.Addrs, o.Prefix.Addr()):
			b.lost.addr[family] = true
		}
		b.again = b.again || was.addr[family] && !b.lost.addr[family]
	}
	return b.again
}

// followUnderlay has all commands run again, as at a start, when the underlay has come back or is another one.
func (b *Backend) followUnderlay(u ip.Underlay) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, again := b.from, b.again
	b.from, b.again = u, false
	if before.Link == "" || !again && before.Link == u.Link && slices.Equal(before.Addrs, u.Addrs) {
		return
	}
	b.host.Log.Info("underlay changed, running all commands again", "interface", u.Link)
	b.ready = peer{}
	b.round++
	for _, s := range b.states {
		s.expire()
	}
}
