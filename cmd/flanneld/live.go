package main

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flanneld/ip"
)

// liveUnderlay is the interface in use, chosen again whenever links, addresses or default routes change. As long as nothing can
// be chosen, the last choice stays.
type liveUnderlay struct {
	choose func(last ip.Underlay, moved bool) (ip.Underlay, error)
	poke   func() // asks for a refresh
	log    *slog.Logger
	stale  atomic.Bool // the choice may be another one
	shaken atomic.Bool // what stands on the interface in use may have gone with a change of it

	mu      sync.Mutex // guards all below
	current ip.Underlay
	lost    string    // why nothing can be chosen
	began   time.Time // when the underlay began to move
}

// moveTime is how long peers have to learn a new address of this host before packets come from it.
const moveTime = 2 * time.Second

// now returns the underlay in use. Any goroutine may call it.
func (l *liveUnderlay) now() ip.Underlay {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// observe reports whether an event may change the choice.
func (l *liveUnderlay) observe(ev ip.Event) bool {
	concerned, shaken := true, false
	switch o := ev.Object.(type) {
	case nil:
		shaken = true
	case ip.Link, ip.Addr:
		concerned, shaken = !isOverlay(o.Device()), o.Device() == l.now().Link
	case ip.Route:
		concerned = o.Dst.Bits() == 0
	case ip.Neigh, ip.FDB:
		concerned = false
	}
	if shaken {
		l.shaken.Store(true)
	}
	if concerned {
		l.stale.Store(true)
	}
	return concerned
}

// refresh chooses again if something has happened since, and reports whether what stands on the underlay must be looked at: the
// kernel takes routes away with a link or an address without a word.
func (l *liveUnderlay) refresh() bool {
	if !l.stale.Swap(false) {
		return false
	}
	shaken, last := l.shaken.Swap(false), l.now()
	next, err := l.choose(last, len(last.Next) > 0 && time.Since(l.began) >= moveTime)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(next.Next) > 0 && len(last.Next) == 0 {
		l.began = time.Now()
		time.AfterFunc(moveTime, func() {
			l.stale.Store(true)
			l.poke()
		})
	}
	if err != nil {
		if l.lost != err.Error() {
			l.lost = err.Error()
			l.log.Warn("underlay lost, going on with the last one", "interface", last.Link, "reason", err)
		}
		return shaken
	}
	changed := l.lost != "" || !sameUnderlay(last, next)
	if changed {
		l.log.Info("underlay chosen", "interface", next.Link, "addresses", next.Addrs, "public", next.PublicAddrs, "mtu", next.MTU, "reason", next.Reason)
	}
	l.lost, l.current = "", next
	return shaken || changed
}

func sameUnderlay(a, b ip.Underlay) bool {
	return a.Link == b.Link && a.MTU == b.MTU && a.NoNeighbours == b.NoNeighbours && slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Next, b.Next) && slices.Equal(a.PublicAddrs, b.PublicAddrs)
}
