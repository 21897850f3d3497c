package underlay

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flanneld/ip"
)

// Live is the interface in use, chosen again whenever links, addresses or default routes change. As long as nothing can
// be chosen, the last choice stays.
type Live struct {
	choose func(last ip.Underlay, moved bool) (ip.Underlay, error)
	poke   atomic.Pointer[func()] // asks for a refresh
	log    *slog.Logger
	stale  atomic.Bool // the choice may be another one
	shaken atomic.Bool // what stands on the interface in use may have gone with a change of it

	mu      sync.Mutex // guards all below
	current ip.Underlay
	lost    string    // why nothing can be chosen
	began   time.Time // when the underlay began to move
}

// routersTime is how long an interface that has only a link-local IPv6 address is waited for: longer than it takes to
// ask for routers (RFC 4861, section 10: three times with four seconds in between).
const routersTime = 15 * time.Second

// Kernel is what Follow asks of ip.Kernel.
type Kernel interface {
	Routing
	Watching
}

// FollowOptions say what Follow looks for.
type FollowOptions struct {
	Flags    Options      // Last, Moved and LinkLocal are filled in
	Families Families     // that the underlay must have
	Home     []netip.Addr // what the last run has told peers
	Waiting  func(reason error)
	Log      *slog.Logger
}

// Follow returns the interface to use once there is one, with an address of each family. It calls Waiting with the
// reason whenever that is another one than before, and returns an error only when ctx ends.
func Follow(ctx context.Context, k Kernel, o FollowOptions) (*Live, error) {
	start, home := time.Now(), o.Home
	choose := func(last ip.Underlay, moved bool) (ip.Underlay, error) {
		flags := o.Flags
		flags.Last, flags.Moved, flags.Home = last, moved, home
		flags.LinkLocal = last.Link == "" && time.Since(start) > routersTime ||
			slices.ContainsFunc(last.Addrs, netip.Addr.IsLinkLocalUnicast)
		return Choose(k, flags, o.Families)
	}
	u, err := Wait(ctx, k, func() (ip.Underlay, error) { return choose(ip.Underlay{}, false) }, func(reason error) {
		o.Log.Warn("waiting for an interface", "reason", reason)
		o.Waiting(reason)
	})
	if err != nil {
		return nil, err
	}
	if links, err := k.Interfaces(); err == nil {
		home = HomeAfter(home, u, links)
	}
	logChosen(o.Log, u)
	if slices.ContainsFunc(u.PublicAddrs, func(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }) {
		o.Log.Warn("the underlay has a link-local IPv6 address only: all hosts must be on this link", "interface", u.Link)
	}
	return &Live{choose: choose, log: o.Log, current: u}, nil
}

func logChosen(log *slog.Logger, u ip.Underlay) {
	log.Info("underlay chosen", "interface", u.Link, "addresses", u.Addrs, "public", u.PublicAddrs, "mtu", u.MTU,
		"reason", u.Reason)
}

// OnMove sets what is called when Refresh is due although the kernel has announced nothing.
func (l *Live) OnMove(poke func()) { l.poke.Store(&poke) }

// moveTime is how long peers have to learn a new address of this host before packets come from it.
const moveTime = 2 * time.Second

// Now returns the underlay in use. Any goroutine may call it.
func (l *Live) Now() ip.Underlay {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// Observe reports whether an event may change the choice.
func (l *Live) Observe(ev ip.Event) bool {
	concerned, shaken := true, false
	switch o := ev.Object.(type) {
	case nil:
		shaken = true
	case ip.Link, ip.Addr:
		concerned, shaken = !isOverlay(o.Device()), o.Device() == l.Now().Link
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

// Refresh chooses again if something has happened since, and reports whether what stands on the underlay must be looked
// at: the kernel takes routes away with a link or an address without a word.
func (l *Live) Refresh() bool {
	if !l.stale.Swap(false) {
		return false
	}
	shaken, last := l.shaken.Swap(false), l.Now()
	next, err := l.choose(last, len(last.Next) > 0 && time.Since(l.began) >= moveTime)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(next.Next) > 0 && len(last.Next) == 0 {
		l.began = time.Now()
		time.AfterFunc(moveTime, func() {
			l.stale.Store(true)
			if poke := l.poke.Load(); poke != nil {
				(*poke)()
			}
		})
	}
	if err != nil {
		if l.lost != err.Error() {
			l.lost = err.Error()
			l.log.Warn("underlay lost, continuing with the last one", "interface", last.Link, "reason", err)
		}
		return shaken
	}
	changed := l.lost != "" || !same(last, next)
	if changed {
		logChosen(l.log, next)
	}
	l.lost, l.current = "", next
	return shaken || changed
}

func same(a, b ip.Underlay) bool {
	return a.Link == b.Link && a.MTU == b.MTU && a.NoNeighbours == b.NoNeighbours &&
		slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Next, b.Next) &&
		slices.Equal(a.PublicAddrs, b.PublicAddrs)
}
