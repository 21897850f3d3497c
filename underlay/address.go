package underlay

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"flanneld/ip"
)

// overlays are the names of devices that carry pods' packets, ours and the bridges behind them: no pattern and no route
// may lead to them, or the tunnel would run through itself.
var overlays = regexp.MustCompile(`^(flannel(\d+|[.-].*)|cni\d+|docker\d+)$`)

func isOverlay(name string) bool { return overlays.MatchString(name) }

// underlay completes a candidate, or says what it lacks.
func (c chooser) underlay(cand candidate) (ip.Underlay, error) {
	link := cand.link
	if !link.Up {
		return ip.Underlay{}, fmt.Errorf("%s: %s is down", cand.reason, link.Name)
	}
	var next []netip.Addr
	u := ip.Underlay{Link: link.Name, MTU: link.MTU, MAC: link.MAC, NoNeighbours: link.NoNeighbours, Reason: cand.reason}
	for _, fam := range []struct {
		wanted, is4 bool
		public      netip.Addr
	}{{c.families.IPv4, true, c.o.PublicIPv4}, {c.families.IPv6, false, c.o.PublicIPv6}} {
		if !fam.wanted {
			continue
		}
		own := c.address(cand, fam.is4)
		if !own.IsValid() {
			return ip.Underlay{}, fmt.Errorf("%s: %s has no %s address%s", cand.reason, link.Name, familyName(fam.is4),
				butLinkLocal(link, fam.is4))
		}
		public := fam.public
		if !public.IsValid() {
			public = own
		}
		next = append(next, own)
		u.Addrs = append(u.Addrs, c.leaving(cand, own))
		u.PublicAddrs = append(u.PublicAddrs, public)
	}
	if !slices.Equal(u.Addrs, next) {
		u.Next = next
	}
	return u, nil
}

// address picks the address of one family; the zero value if there is none. One that the kernel is giving up comes
// after all others.
func (c chooser) address(cand candidate, is4 bool) netip.Addr {
	if cand.pin.IsValid() && cand.pin.Is4() == is4 {
		return cand.pin
	}
	groups := [][]netip.Addr{c.ranked(cand.link, is4), usable(cand.link.Deprecated, is4)}
	if c.o.LinkLocal && !is4 {
		groups = append(groups, linkLocal(cand.link))
	}
	for _, addrs := range groups {
		if best := c.known(cand.link, addrs); len(best) > 0 {
			return best[0]
		}
	}
	return netip.Addr{}
}

// ranked returns the usable addresses of one family, best first: that of Home, that in use, all others.
func (c chooser) ranked(link ip.Interface, is4 bool) []netip.Addr {
	return c.known(link, usable(link.Addrs, is4))
}

// known puts the address of Home and that in use before the others.
func (c chooser) known(link ip.Interface, addrs []netip.Addr) []netip.Addr {
	rank := func(a netip.Addr) int {
		switch {
		case slices.Contains(c.o.Home, a):
			return 0
		case c.o.Last.Link == link.Name && slices.Contains(c.o.Last.Addrs, a):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return rank(a) - rank(b) })
	return addrs
}

// athome reports whether a running daemon has used this address of an interface first.
func (c chooser) athome(link ip.Interface, a netip.Addr) bool {
	return c.o.Last.Link == link.Name && slices.Contains(c.o.Home, a)
}

// single reports whether an interface has an address without a network around it.
func single(link ip.Interface, a netip.Addr) bool {
	return slices.Contains(link.Addrs, netip.PrefixFrom(a, a.BitLen()))
}

// HomeAfter returns the addresses to return to once u is chosen: for each family the one in use. Those of an earlier
// run are kept where the one in use is likely to be a substitute: a virtual address, or a link-local one.
func HomeAfter(home []netip.Addr, u ip.Underlay, links []ip.Interface) []netip.Addr {
	var out []netip.Addr
	for _, a := range u.Addrs {
		i := slices.IndexFunc(links, func(l ip.Interface) bool { return l.Name == u.Link })
		j := slices.IndexFunc(home, func(h netip.Addr) bool { return h.Is4() == a.Is4() })
		if j >= 0 && i >= 0 && (single(links[i], a) || a.IsLinkLocalUnicast()) {
			a = home[j]
		}
		out = append(out, a)
	}
	return out
}

// leaving returns the address in use for as long as it works and peers are told of the next one, then that. Peers let
// in what comes from the addresses that they know: they must learn the new one while packets still come from the old
// one.
func (c chooser) leaving(cand candidate, next netip.Addr) netip.Addr {
	if c.o.Moved || c.o.Last.Link != cand.link.Name {
		return next
	}
	for _, a := range c.o.Last.Addrs {
		if a.Is4() == next.Is4() && (has(cand.link.Addrs, a) || has(cand.link.Deprecated, a)) {
			return a
		}
	}
	return next
}

// usable returns the addresses of one family that packets to other hosts can come from, best first: as the kernel lists
// them, which puts a secondary IPv4 address after its primary one. A /32 or /128 comes after the others, because it is
// likely to be a virtual address that moves to another host. IPv4 link-local ones come last; IPv6 has one everywhere,
// which does not count.
func usable(prefixes []netip.Prefix, is4 bool) []netip.Addr {
	var best, alone, local []netip.Addr
	for _, p := range prefixes {
		a := p.Addr()
		switch {
		case a.Is4() != is4 || a.IsLoopback() || a.IsMulticast() || a.IsUnspecified():
		case a.IsLinkLocalUnicast():
			if is4 {
				local = append(local, a)
			}
		case p.IsSingleIP():
			alone = append(alone, a)
		default:
			best = append(best, a)
		}
	}
	return slices.Concat(best, alone, local)
}

// linkLocal returns the IPv6 link-local addresses of an interface.
func linkLocal(link ip.Interface) []netip.Addr {
	var out []netip.Addr
	for _, p := range link.Addrs {
		if a := p.Addr(); a.Is6() && a.IsLinkLocalUnicast() {
			out = append(out, a)
		}
	}
	return out
}

func butLinkLocal(link ip.Interface, is4 bool) string {
	if addrs := linkLocal(link); !is4 && len(addrs) > 0 {
		return " but the link-local " + addrs[0].String()
	}
	return ""
}

// mostDescribed bounds how many interfaces a message names.
const mostDescribed = 8

// describe lists the interfaces that could serve, with their addresses. The links of pods, which come and go, are left
// out: a message is repeated when it changes.
func describe(links []ip.Interface) string {
	var out []string
	for _, link := range links {
		addrs := append(usable(link.Addrs, true), usable(link.Addrs, false)...)
		if len(addrs) == 0 || isOverlay(link.Name) {
			continue
		}
		if len(out) == mostDescribed {
			out = append(out, "…")
			break
		}
		texts := make([]string, len(addrs))
		for i, a := range addrs {
			texts[i] = a.String()
		}
		if !link.Up {
			texts = append(texts, "down")
		}
		out = append(out, fmt.Sprintf("%s %s", link.Name, strings.Join(texts, " ")))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}
