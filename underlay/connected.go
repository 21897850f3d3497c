package underlay

import (
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"flanneld/ip"
)

// Connected knows what this host reaches of the network's ranges otherwise than through the network. Any goroutine may
// use it.
type Connected struct {
	kernel   Routing
	networks []netip.Prefix
	store    []netip.Addr // addresses of the store inside the networks
	log      *slog.Logger
	stale    atomic.Bool

	mu  sync.Mutex // guards all below
	all []ip.Connected
}

// NewConnected returns what is known before anything has happened. The endpoints are those of the store: names are not
// looked up.
func NewConnected(k Routing, networks []netip.Prefix, endpoints []string, log *slog.Logger) *Connected {
	c := &Connected{kernel: k, networks: networks, log: log}
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil {
			continue
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && c.inside(a) {
			c.store = append(c.store, a)
		}
	}
	c.stale.Store(true)
	return c
}

func (c *Connected) inside(a netip.Addr) bool {
	return slices.ContainsFunc(c.networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// Observe reports whether an event changes what the host is connected to.
func (c *Connected) Observe(ev ip.Event) bool {
	switch o := ev.Object.(type) {
	case nil:
	case ip.Addr:
		if ofNetwork(o.Link) || !c.inside(o.Prefix.Addr()) {
			return false
		}
	default:
		return false
	}
	c.stale.Store(true)
	return true
}

// Now returns what the host is connected to.
func (c *Connected) Now() []ip.Connected {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stale.Swap(false) {
		return c.all
	}
	links, err := c.kernel.Interfaces()
	if err != nil {
		c.log.Warn("read interfaces failed, using the last known ones", "error", err)
		c.stale.Store(true)
		return c.all
	}
	links = slices.DeleteFunc(links, func(i ip.Interface) bool { return ofNetwork(i.Name) })
	c.all = ip.ConnectedIn(c.networks, links)
	for _, a := range c.store {
		c.all = append(c.all, ip.Connected{Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	return c.all
}

// Prefixes returns the ranges of Now.
func (c *Connected) Prefixes() []netip.Prefix {
	return c.prefixesOf(func(ip.Connected) bool { return true })
}

// Reserved returns the ranges that this host needs to reach its peers and the store: no subnet of its own may be there,
// not even one that it has.
func (c *Connected) Reserved(underlay string) []netip.Prefix {
	return c.prefixesOf(func(one ip.Connected) bool { return one.Link == "" || one.Link == underlay })
}

func (c *Connected) prefixesOf(which func(ip.Connected) bool) []netip.Prefix {
	var out []netip.Prefix
	for _, one := range c.Now() {
		if which(one) {
			out = append(out, one.Prefix.Masked())
		}
	}
	return out
}

// Bridges returns the links with an address in the subnets of this host: those that its pods are on.
func (c *Connected) Bridges(subnets []netip.Prefix) []string {
	var out []string
	for _, one := range c.Now() {
		if one.Link != "" && !slices.Contains(out, one.Link) &&
			slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Contains(one.Prefix.Addr()) }) {
			out = append(out, one.Link)
		}
	}
	return out
}

// ofNetwork reports whether a device is one of the network's own.
func ofNetwork(link string) bool { return isOverlay(link) && strings.HasPrefix(link, "flannel") }
