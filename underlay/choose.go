package underlay

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"flanneld/ip"
)

// Families says which families of addresses the underlay must have.
type Families struct{ IPv4, IPv6 bool }

// FamiliesOf returns the families of the network's ranges.
func FamiliesOf(networks []netip.Prefix) Families {
	var f Families
	for _, n := range networks {
		f.IPv4 = f.IPv4 || n.Addr().Is4()
		f.IPv6 = f.IPv6 || n.Addr().Is6()
	}
	return f
}

// Options are the flags that choose the interface and the addresses.
type Options struct {
	Ifaces     []string         // -iface: names or addresses
	Regexes    []*regexp.Regexp // -iface-regex
	CanReach   netip.Addr       // -iface-can-reach
	PublicIPv4 netip.Addr       // -public-ip
	PublicIPv6 netip.Addr       // -public-ipv6
	// Last is the underlay in use. Its addresses are kept for as long as the interface has them, whatever else
	// is added to it: the kernel lists the newest IPv6 address first, and that may be one that wanders.
	Last ip.Underlay
	// Home are addresses that the host is to return to whenever the interface has them: those that it used first. They had
	// gone if another address is in use, and that one may be a virtual address of keepalived or kube-vip.
	Home []netip.Addr
	// Moved says that peers have had the time to learn the Next addresses of Last.
	Moved bool
	// LinkLocal allows IPv6 link-local addresses where there is no other: all hosts are on one link then.
	LinkLocal bool
}

// Routing is what Choose asks of ip.Kernel.
type Routing interface {
	Interfaces() ([]ip.Interface, error)
	RouteTo(dst netip.Addr) (ip.Hop, error)
	DefaultRoute(is4 bool) (hop ip.Hop, ok bool, err error)
}

// Choose returns the interface that the flags lead to as the host is now, with an address of each family. The rules are
// tried in this order, each by itself as often as it is given, and the first interface that fits is taken:
//
//	-iface ─▶ -iface-regex ─▶ -iface-can-reach ─▶ none of them given: owner of -public-ip, default route
//
// An error names all that was tried. It is never final: links, addresses and routes come and go.
func Choose(k Routing, o Options, f Families) (ip.Underlay, error) {
	links, err := k.Interfaces()
	if err != nil {
		return ip.Underlay{}, fmt.Errorf("list interfaces: %w", err)
	}
	c := chooser{k, links, o, f}
	var tried []string
	for cand, err := range c.candidates() {
		if err == nil {
			var u ip.Underlay
			if u, err = c.underlay(cand); err == nil {
				return u, nil
			}
		}
		tried = append(tried, err.Error())
	}
	return ip.Underlay{}, fmt.Errorf("no usable interface: %s (interfaces with addresses: %s)", strings.Join(tried, "; "),
		describe(links))
}

// chooser is one decision.
type chooser struct {
	kernel   Routing
	links    []ip.Interface
	o        Options
	families Families
}

// candidate is an interface that a rule leads to.
type candidate struct {
	link   ip.Interface
	pin    netip.Addr // the address that the rule leads to; the zero value: any
	reason string
}

// candidates yields what the rules lead to, best first, or why one leads nowhere.
func (c chooser) candidates() iter.Seq2[candidate, error] {
	return func(yield func(candidate, error) bool) {
		for _, name := range c.o.Ifaces {
			if !yield(c.named(name)) {
				return
			}
		}
		for _, r := range c.o.Regexes {
			found := c.matching(r)
			for _, cand := range found {
				if !yield(cand, nil) {
					return
				}
			}
			if len(found) == 0 && !yield(candidate{}, fmt.Errorf("-iface-regex %s matches nothing", r)) {
				return
			}
		}
		if c.o.CanReach.IsValid() && !yield(c.reaching(c.o.CanReach)) {
			return
		}
		if len(c.o.Ifaces) == 0 && len(c.o.Regexes) == 0 && !c.o.CanReach.IsValid() {
			c.automatic(yield)
		}
	}
}

// named finds the interface of one -iface. It is trusted whatever the interface is.
func (c chooser) named(name string) (candidate, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		a = a.Unmap()
		if link, ok := c.owner(a); ok {
			return candidate{link, a, fmt.Sprintf("-iface %s, which %s has", name, link.Name)}, nil
		}
		return candidate{}, fmt.Errorf("-iface %s: no interface has this address", name)
	}
	if link, ok := c.byName(name); ok {
		return candidate{link: link, reason: "-iface " + name}, nil
	}
	return candidate{}, fmt.Errorf("-iface %s: no such interface", name)
}

// matching finds the interfaces of one -iface-regex: those with a matching address, then those with a matching name.
func (c chooser) matching(r *regexp.Regexp) []candidate {
	var byAddr, byName []candidate
	for _, link := range c.links {
		if isOverlay(link.Name) {
			continue
		}
		addrs := append(c.ranked(link, true), c.ranked(link, false)...)
		i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return c.families.has(a) && r.MatchString(a.String()) })
		if i >= 0 {
			byAddr = append(byAddr, candidate{link, addrs[i],
				fmt.Sprintf("-iface-regex %s, which %s on %s matches", r, addrs[i], link.Name)})
		}
		if r.MatchString(link.Name) {
			byName = append(byName, candidate{link: link,
				reason: fmt.Sprintf("-iface-regex %s, which %s matches", r, link.Name)})
		}
	}
	return append(byAddr, byName...)
}

// reaching finds the interface of -iface-can-reach.
func (c chooser) reaching(dst netip.Addr) (candidate, error) {
	hop, err := c.kernel.RouteTo(dst)
	if err != nil {
		return candidate{}, fmt.Errorf("-iface-can-reach %s: %w", dst, err)
	}
	cand, err := c.across(hop, fmt.Sprintf("-iface-can-reach %s: route", dst))
	if err != nil || !cand.pin.IsValid() {
		return cand, err
	}
	// The kernel takes the first address of the interface, which is a virtual one after the own one was away for a moment.
	if best := c.ranked(cand.link, cand.pin.Is4()); has(cand.link.Addrs, cand.pin) && len(best) > 0 &&
		(single(cand.link, cand.pin) && !single(cand.link, best[0]) || c.athome(cand.link, best[0])) {
		cand.pin = best[0]
	}
	return cand, nil
}

// automatic yields what serves without any flag. The owner of -public-ip comes first: where the host has several
// addresses, that flag alone says which is meant; behind a NAT there is no owner.
func (c chooser) automatic(yield func(candidate, error) bool) {
	for _, public := range []netip.Addr{c.o.PublicIPv4, c.o.PublicIPv6} {
		if link, ok := c.owner(public); ok && c.families.has(public) {
			if !yield(candidate{link, public, fmt.Sprintf("it has the public IP %s", public)}, nil) {
				return
			}
		}
	}
	for _, is4 := range []bool{true, false} {
		if is4 && c.families.IPv4 || !is4 && c.families.IPv6 {
			if !yield(c.byDefaultRoute(is4)) {
				return
			}
		}
	}
}

func (c chooser) byDefaultRoute(is4 bool) (candidate, error) {
	hop, ok, err := c.kernel.DefaultRoute(is4)
	if err != nil {
		return candidate{}, fmt.Errorf("read default route: %w", err)
	}
	if !ok {
		return candidate{}, fmt.Errorf("there is no %s default route, and no -iface is given", familyName(is4))
	}
	return c.across(hop, "default route")
}

// across finds the interface that a route leads to.
func (c chooser) across(hop ip.Hop, what string) (candidate, error) {
	reason := what
	if hop.Via.IsValid() {
		reason += " via " + hop.Via.String()
	}
	reason += " dev " + hop.Link
	link, ok := c.byName(hop.Link)
	switch {
	case !ok:
		return candidate{}, errors.New(reason + ": no such interface")
	case link.Loopback:
		return candidate{}, errors.New(reason + ": leads to this host itself")
	case isOverlay(link.Name):
		return candidate{}, errors.New(reason + ": leads into a network of pods")
	}
	// The kernel may prefer a temporary address for what it sends itself, which is not one to be found by.
	if !hop.Src.Is4() && !has(link.Addrs, hop.Src) {
		hop.Src = netip.Addr{}
	}
	return candidate{link, hop.Src, reason}, nil
}

func (c chooser) byName(name string) (ip.Interface, bool) {
	i := slices.IndexFunc(c.links, func(l ip.Interface) bool { return l.Name == name })
	if i < 0 {
		return ip.Interface{}, false
	}
	return c.links[i], true
}

func (c chooser) owner(a netip.Addr) (ip.Interface, bool) {
	i := slices.IndexFunc(c.links, func(l ip.Interface) bool { return has(l.Addrs, a) || has(l.Deprecated, a) })
	if i < 0 {
		return ip.Interface{}, false
	}
	return c.links[i], true
}

func has(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr() == a })
}

func (f Families) has(a netip.Addr) bool { return a.Is4() && f.IPv4 || a.Is6() && f.IPv6 }

func familyName(is4 bool) string {
	if is4 {
		return "IPv4"
	}
	return "IPv6"
}
