package underlay_test

import (
	"context"
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"flanneld/ip"
	"flanneld/underlay"
)

// host is what the kernel says of its interfaces and routes.
type host struct {
	links    []ip.Interface
	routes   map[string]ip.Hop // by destination
	default4 ip.Hop            // none if it has no link
	default6 ip.Hop
	err      error // of everything
}

func (h host) Interfaces() ([]ip.Interface, error) { return h.links, h.err }

func (h host) RouteTo(dst netip.Addr) (ip.Hop, error) {
	hop, ok := h.routes[dst.String()]
	if !ok {
		return ip.Hop{}, syscall.ENETUNREACH
	}
	return hop, h.err
}

func (h host) DefaultRoute(is4 bool) (ip.Hop, bool, error) {
	if is4 {
		return h.default4, h.default4.Link != "", h.err
	}
	return h.default6, h.default6.Link != "", h.err
}

func link(name string, addrs ...string) ip.Interface {
	l := ip.Interface{Name: name, MTU: 1500, Up: true, Running: true, Loopback: name == "lo"}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, netip.MustParsePrefix(a))
	}
	return l
}

func down(l ip.Interface) ip.Interface {
	l.Up = false
	return l
}

func patterns(texts ...string) []*regexp.Regexp {
	var out []*regexp.Regexp
	for _, s := range texts {
		out = append(out, regexp.MustCompile(s))
	}
	return out
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// site is a host with two interfaces, the usual one by default, and all that stands around on a host with pods.
func site() host {
	return host{
		links: []ip.Interface{
			link("lo", "127.0.0.1/8", "::1/128"),
			link("eth0", "192.0.2.5/24", "192.0.2.6/24", "fe80::5/64", "2001:db8::5/64"),
			link("eth1", "10.1.0.5/16", "fe80::6/64"),
			link("flannel.1", "10.5.1.0/32"),
			link("cni0", "10.5.1.1/24"),
		},
		routes: map[string]ip.Hop{
			"10.1.0.9":  {Link: "eth1", Src: netip.MustParseAddr("10.1.0.5")},
			"192.0.2.5": {Link: "lo", Src: netip.MustParseAddr("192.0.2.5")},
			"10.5.9.9":  {Link: "flannel.1"},
		},
		default4: ip.Hop{Link: "eth0", Via: netip.MustParseAddr("192.0.2.1")},
		default6: ip.Hop{Link: "eth0", Via: netip.MustParseAddr("fe80::1")},
	}
}

var (
	only4 = underlay.Families{IPv4: true}
	only6 = underlay.Families{IPv6: true}
	dual  = underlay.Families{IPv4: true, IPv6: true}
)

func TestChoose(t *testing.T) {
	tests := []struct {
		name     string
		change   func(*host)
		options  underlay.Options
		families underlay.Families
		link     string
		addrs    []netip.Addr
		public   []netip.Addr // nil: as addrs
		next     []netip.Addr
		reason   string
	}{
		{name: "without flags the default route decides", families: only4,
			link: "eth0", addrs: addrs("192.0.2.5"), reason: "default route via 192.0.2.1 dev eth0"},
		{name: "for IPv6 alone that of IPv6 decides, and link-local addresses do not count", families: only6,
			link: "eth0", addrs: addrs("2001:db8::5"), reason: "default route via fe80::1 dev eth0"},
		{name: "both families come from one interface", families: dual,
			link: "eth0", addrs: addrs("192.0.2.5", "2001:db8::5"), reason: "default route via 192.0.2.1 dev eth0"},
		{name: "where the IPv4 default route leads to an interface without IPv6, that of IPv6 decides for both",
			families: dual,
			change:   func(h *host) { h.default4 = ip.Hop{Link: "eth1"} },
			link:     "eth0", addrs: addrs("192.0.2.5", "2001:db8::5"), reason: "default route via fe80::1 dev eth0"},
		{name: "the source address of the default route is kept", families: only4,
			change: func(h *host) { h.default4.Src = netip.MustParseAddr("192.0.2.6") },
			link:   "eth0", addrs: addrs("192.0.2.6"), reason: "default route via 192.0.2.1 dev eth0"},
		{name: "-iface names the interface", families: only4, options: underlay.Options{Ifaces: []string{"eth1"}},
			link: "eth1", addrs: addrs("10.1.0.5"), reason: "-iface eth1"},
		{name: "-iface names an address, which is used", families: only4,
			options: underlay.Options{Ifaces: []string{"192.0.2.6"}},
			link:    "eth0", addrs: addrs("192.0.2.6"), reason: "-iface 192.0.2.6, which eth0 has"},
		{name: "-iface with an IPv4 address leaves the IPv6 address to the interface", families: dual,
			options: underlay.Options{Ifaces: []string{"192.0.2.6"}},
			link:    "eth0", addrs: addrs("192.0.2.6", "2001:db8::5"), reason: "-iface 192.0.2.6, which eth0 has"},
		{name: "the first -iface that exists wins", families: only4,
			options: underlay.Options{Ifaces: []string{"ens3", "192.0.2.99", "eth1", "eth0"}},
			link:    "eth1", addrs: addrs("10.1.0.5"), reason: "-iface eth1"},
		{name: "an -iface without an address is passed over", families: dual,
			options: underlay.Options{Ifaces: []string{"eth1", "eth0"}},
			link:    "eth0", addrs: addrs("192.0.2.5", "2001:db8::5"), reason: "-iface eth0"},
		{name: "an -iface that is down is passed over", families: only4,
			options: underlay.Options{Ifaces: []string{"eth1", "eth0"}},
			change:  func(h *host) { h.links[2] = down(h.links[2]) },
			link:    "eth0", addrs: addrs("192.0.2.5"), reason: "-iface eth0"},
		{name: "an explicit -iface may be the loopback with a routed address", families: only4,
			options: underlay.Options{Ifaces: []string{"lo"}},
			change:  func(h *host) { h.links[0] = link("lo", "127.0.0.1/8", "203.0.113.7/32") },
			link:    "lo", addrs: addrs("203.0.113.7"), reason: "-iface lo"},
		{name: "-iface comes before -iface-regex", families: only4,
			options: underlay.Options{Ifaces: []string{"eth1"}, Regexes: patterns("eth0")},
			link:    "eth1", addrs: addrs("10.1.0.5"), reason: "-iface eth1"},
		{name: "-iface-regex serves when no -iface matches", families: only4,
			options: underlay.Options{Ifaces: []string{"ens3"}, Regexes: patterns("^eth1$")},
			link:    "eth1", addrs: addrs("10.1.0.5"), reason: "-iface-regex ^eth1$, which eth1 matches"},
		{name: "-iface-regex finds any address of an interface, and it is used", families: only4,
			options: underlay.Options{Regexes: patterns(`\.6$`)},
			link:    "eth0", addrs: addrs("192.0.2.6"), reason: `-iface-regex \.6$, which 192.0.2.6 on eth0 matches`},
		{name: "-iface-regex prefers an address to a name", families: only4,
			options: underlay.Options{Regexes: patterns(`^eth0$|^10\.1\.`)},
			link:    "eth1", addrs: addrs("10.1.0.5"), reason: `-iface-regex ^eth0$|^10\.1\., which 10.1.0.5 on eth1 matches`},
		{name: "the second -iface-regex serves when the first matches nothing", families: only4,
			options: underlay.Options{Regexes: patterns(`^172\.`, "eth")},
			link:    "eth0", addrs: addrs("192.0.2.5"), reason: "-iface-regex eth, which eth0 matches"},
		{name: "no pattern leads to our own device or to the bridge of the pods", families: only4,
			options: underlay.Options{Regexes: patterns(`^10\.|flannel|cni`)},
			link:    "eth1", addrs: addrs("10.1.0.5"), reason: `-iface-regex ^10\.|flannel|cni, which 10.1.0.5 on eth1 matches`},
		{name: "a pattern that matches everything passes over the loopback", families: only4,
			options: underlay.Options{Regexes: patterns(".*")},
			link:    "eth0", addrs: addrs("192.0.2.5"), reason: "-iface-regex .*, which 192.0.2.5 on eth0 matches"},
		{name: "-iface-can-reach asks the kernel", families: only4,
			options: underlay.Options{CanReach: netip.MustParseAddr("10.1.0.9")},
			link:    "eth1", addrs: addrs("10.1.0.5"), reason: "-iface-can-reach 10.1.0.9: route dev eth1"},
		{name: "-iface-can-reach serves when the others match nothing", families: only4,
			options: underlay.Options{Ifaces: []string{"ens3"}, Regexes: patterns("ens"),
				CanReach: netip.MustParseAddr("10.1.0.9")},
			link: "eth1", addrs: addrs("10.1.0.5"), reason: "-iface-can-reach 10.1.0.9: route dev eth1"},
		{name: "-public-ip alone leads to the interface that has it", families: only4,
			options: underlay.Options{PublicIPv4: netip.MustParseAddr("10.1.0.5")},
			link:    "eth1", addrs: addrs("10.1.0.5"), reason: "it has the public IP 10.1.0.5"},
		{name: "-public-ip behind a NAT is told to the peers", families: dual,
			options: underlay.Options{PublicIPv4: netip.MustParseAddr("203.0.113.9")},
			link:    "eth0", addrs: addrs("192.0.2.5", "2001:db8::5"), public: addrs("203.0.113.9", "2001:db8::5"),
			reason: "default route via 192.0.2.1 dev eth0"},
		{name: "-public-ip does not move an interface that was chosen", families: only4,
			options: underlay.Options{Ifaces: []string{"eth0"}, PublicIPv4: netip.MustParseAddr("10.1.0.5")},
			link:    "eth0", addrs: addrs("192.0.2.5"), public: addrs("10.1.0.5"), reason: "-iface eth0"},
		{name: "-public-ipv6 is told to the peers", families: only6,
			options: underlay.Options{PublicIPv6: netip.MustParseAddr("2001:db8:9::9")},
			link:    "eth0", addrs: addrs("2001:db8::5"), public: addrs("2001:db8:9::9"),
			reason: "default route via fe80::1 dev eth0"},
		{name: "an IPv4 link-local address serves when there is no other", families: only4,
			options: underlay.Options{Ifaces: []string{"eth1"}},
			change:  func(h *host) { h.links[2] = link("eth1", "169.254.7.7/16") },
			link:    "eth1", addrs: addrs("169.254.7.7"), reason: "-iface eth1"},
		{name: "a virtual IPv6 address that was added does not come first", families: only6,
			change: func(h *host) { h.links[1] = link("eth0", "2001:db8::100/128", "2001:db8::5/64") },
			link:   "eth0", addrs: addrs("2001:db8::5"), reason: "default route via fe80::1 dev eth0"},
		{name: "a single IPv6 /128 serves", families: only6,
			change: func(h *host) { h.links[1] = link("eth0", "2001:db8::100/128", "fe80::5/64") },
			link:   "eth0", addrs: addrs("2001:db8::100"), reason: "default route via fe80::1 dev eth0"},
		{name: "a deprecated IPv6 address serves when there is no other", families: only6,
			change: func(h *host) {
				h.links[1] = link("eth0", "fe80::5/64")
				h.links[1].Deprecated = prefixes("2001:db8::9/64")
			},
			link: "eth0", addrs: addrs("2001:db8::9"), reason: "default route via fe80::1 dev eth0"},
		{name: "the address in use is given up when it is deprecated and there is another, which peers are told first",
			families: only6,
			options:  underlay.Options{Last: ip.Underlay{Link: "eth0", Addrs: addrs("2001:db8::9")}},
			change:   func(h *host) { h.links[1].Deprecated = prefixes("2001:db8::9/64") },
			link:     "eth0", addrs: addrs("2001:db8::9"), public: addrs("2001:db8::5"), next: addrs("2001:db8::5"),
			reason: "default route via fe80::1 dev eth0"},
		{name: "the new address is used when peers know it", families: only6,
			options: underlay.Options{Moved: true,
				Last: ip.Underlay{Link: "eth0", Addrs: addrs("2001:db8::9"), Next: addrs("2001:db8::5")}},
			change: func(h *host) { h.links[1].Deprecated = prefixes("2001:db8::9/64") },
			link:   "eth0", addrs: addrs("2001:db8::5"), reason: "default route via fe80::1 dev eth0"},
		{name: "-iface may name a link-local IPv6 address", families: only6,
			options: underlay.Options{Ifaces: []string{"fe80::6"}},
			link:    "eth1", addrs: addrs("fe80::6"), reason: "-iface fe80::6, which eth1 has"},
		{name: "a link-local IPv6 address serves where it is allowed", families: only6,
			options: underlay.Options{Ifaces: []string{"eth1"}, LinkLocal: true},
			link:    "eth1", addrs: addrs("fe80::6"), reason: "-iface eth1"},
		{name: "a link-local IPv6 address in use is given up for any other", families: only6,
			options: underlay.Options{LinkLocal: true, Last: ip.Underlay{Link: "eth0", Addrs: addrs("fe80::5")}},
			link:    "eth0", addrs: addrs("fe80::5"), public: addrs("2001:db8::5"), next: addrs("2001:db8::5"),
			reason: "default route via fe80::1 dev eth0"},
		{name: "a temporary address that the kernel prefers is not used", families: only6,
			options: underlay.Options{CanReach: netip.MustParseAddr("2001:db8:9::9")},
			change: func(h *host) {
				h.routes["2001:db8:9::9"] = ip.Hop{Link: "eth0", Via: netip.MustParseAddr("fe80::1"),
					Src: netip.MustParseAddr("2001:db8::aaaa")}
			},
			link: "eth0", addrs: addrs("2001:db8::5"), reason: "-iface-can-reach 2001:db8:9::9: route via fe80::1 dev eth0"},
		{name: "-iface-can-reach takes the IPv6 source address of the route", families: only6,
			options: underlay.Options{CanReach: netip.MustParseAddr("2001:db8:9::9")},
			change: func(h *host) {
				h.links[1] = link("eth0", "2001:db8::7/64", "2001:db8::5/64")
				h.routes["2001:db8:9::9"] = ip.Hop{Link: "eth0", Src: netip.MustParseAddr("2001:db8::5")}
			},
			link: "eth0", addrs: addrs("2001:db8::5"), reason: "-iface-can-reach 2001:db8:9::9: route dev eth0"},
		{name: "the address in use is kept when others are added", families: only6,
			options: underlay.Options{Last: ip.Underlay{Link: "eth0", Addrs: addrs("2001:db8::5")}},
			change:  func(h *host) { h.links[1] = link("eth0", "2001:db8::77/64", "2001:db8::5/64") },
			link:    "eth0", addrs: addrs("2001:db8::5"), reason: "default route via fe80::1 dev eth0"},
		{name: "the address in use is given up when it is gone", families: only4,
			options: underlay.Options{Last: ip.Underlay{Link: "eth0", Addrs: addrs("192.0.2.200")}},
			link:    "eth0", addrs: addrs("192.0.2.5"), reason: "default route via 192.0.2.1 dev eth0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := site()
			if tt.change != nil {
				tt.change(&h)
			}
			got, err := underlay.Choose(h, tt.options, tt.families)
			if err != nil {
				t.Fatal(err)
			}
			want := ip.Underlay{Link: tt.link, MTU: 1500, Addrs: tt.addrs, PublicAddrs: tt.public, Next: tt.next,
				Reason: tt.reason}
			if want.PublicAddrs == nil {
				want.PublicAddrs = want.Addrs
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("underlay (-want +got):\n%s", diff)
			}
		})
	}
}

func TestChooseSaysWhatIsMissing(t *testing.T) {
	tests := []struct {
		name     string
		change   func(*host)
		options  underlay.Options
		families underlay.Families
		want     []string // parts of the error
	}{
		{name: "an interface that does not exist, and those that do", families: only4,
			options: underlay.Options{Ifaces: []string{"eth9"}},
			want:    []string{"-iface eth9: no such interface", "eth0 192.0.2.5 192.0.2.6 2001:db8::5, eth1 10.1.0.5)"}},
		{name: "an address that nobody has", families: only4, options: underlay.Options{Ifaces: []string{"192.0.2.99"}},
			want: []string{"-iface 192.0.2.99: no interface has this address"}},
		{name: "an interface without an address", families: dual, options: underlay.Options{Ifaces: []string{"eth1"}},
			want: []string{"-iface eth1: eth1 has no IPv6 address but the link-local fe80::6"}},
		{name: "an interface that is down", families: only4, options: underlay.Options{Ifaces: []string{"eth1"}},
			change: func(h *host) { h.links[2] = down(h.links[2]) },
			want:   []string{"-iface eth1: eth1 is down", "eth1 10.1.0.5 down"}},
		{name: "a pattern that matches nothing", families: only4, options: underlay.Options{Regexes: patterns("^ens")},
			want: []string{"-iface-regex ^ens matches nothing"}},
		{name: "a destination without a route", families: only4,
			options: underlay.Options{CanReach: netip.MustParseAddr("8.8.8.8")},
			want:    []string{"-iface-can-reach 8.8.8.8: network is unreachable"}},
		{name: "a destination that is the host itself", families: only4,
			options: underlay.Options{CanReach: netip.MustParseAddr("192.0.2.5")},
			want:    []string{"route dev lo: leads to this host itself"}},
		{name: "a destination among the pods", families: only4,
			options: underlay.Options{CanReach: netip.MustParseAddr("10.5.9.9")},
			want:    []string{"route dev flannel.1: leads into a network of pods"}},
		{name: "a missing default route", families: dual,
			change: func(h *host) { h.default4, h.default6 = ip.Hop{}, ip.Hop{} },
			want:   []string{"there is no IPv4 default route", "there is no IPv6 default route"}},
		{name: "a default route into our own network", families: only4,
			change: func(h *host) { h.default4 = ip.Hop{Link: "flannel0"} },
			want:   []string{"default route dev flannel0: no such interface"}},
		{name: "all that was tried", families: only4,
			options: underlay.Options{Ifaces: []string{"a", "b"}, Regexes: patterns("^ens")},
			want:    []string{"-iface a: no such interface; -iface b: no such interface; -iface-regex ^ens matches nothing"}},
		{name: "a host without any interface", families: only4, change: func(h *host) { *h = host{} },
			want: []string{"no IPv4 default route", "(interfaces with addresses: none)"}},
		{name: "a kernel that does not answer", families: only4, change: func(h *host) { h.err = syscall.ENOBUFS },
			want: []string{"list interfaces: no buffer space available"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := site()
			if tt.change != nil {
				tt.change(&h)
			}
			got, err := underlay.Choose(h, tt.options, tt.families)
			if err == nil {
				t.Fatalf("got %v, want an error", got)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is %q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestMessagesNameFewInterfaces(t *testing.T) {
	h := host{}
	for range 20 {
		h.links = append(h.links, link("eth", "192.0.2.5/24"), link("veth", "fe80::1/64"))
	}
	_, err := underlay.Choose(h, underlay.Options{}, only4)
	if err == nil || strings.Count(err.Error(), "eth 192") != 8 || strings.Contains(err.Error(), "veth") {
		t.Errorf("error is %v, want one with 8 interfaces", err)
	}
}

func TestFamiliesOf(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:5::/48")
	for want, networks := range map[underlay.Families][]netip.Prefix{only4: {v4}, only6: {v6}, dual: {v4, v6}} {
		if got := underlay.FamiliesOf(networks); got != want {
			t.Errorf("FamiliesOf(%v) = %v, want %v", networks, got, want)
		}
	}
}

// watch is a kernel that announces what the test sends.
type watch chan ip.Event

func (w watch) Watch(ctx context.Context, f func(ip.Event)) error {
	f(ip.Event{})
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-w:
			f(ev)
		}
	}
}

func TestWaitUnderlay(t *testing.T) {
	// waits runs Wait on a choice that fails with these errors, one after the other, and then succeeds.
	waits := func(t *testing.T, ctx context.Context, k underlay.Watching, errs ...error) (said []string, err error) {
		t.Helper()
		choose := func() (ip.Underlay, error) {
			if len(errs) == 0 {
				return ip.Underlay{Link: "eth0"}, nil
			}
			err := errs[0]
			errs = errs[1:]
			return ip.Underlay{}, err
		}
		u, err := underlay.Wait(ctx, k, choose, func(reason error) { said = append(said, reason.Error()) })
		if err == nil && u.Link != "eth0" {
			t.Errorf("underlay is %q, want eth0", u.Link)
		}
		return said, err
	}
	none, noAddress := errors.New("no such interface"), errors.New("no address")

	t.Run("what is there needs no waiting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			said, err := waits(t, t.Context(), make(watch))
			if err != nil || len(said) > 0 || time.Since(start) > 0 {
				t.Errorf("said %q, %v after %v, want nothing at once", said, err, time.Since(start))
			}
		})
	})
	t.Run("each reason is told once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			said, err := waits(t, t.Context(), make(watch), none, none, none, noAddress, noAddress)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"no such interface", "no address"}, said); diff != "" {
				t.Errorf("said (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("a change in the kernel is looked at soon", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k := make(watch)
			start := time.Now()
			time.AfterFunc(time.Second, func() {
				for range 100 {
					k <- ip.Event{}
				}
			})
			if _, err := waits(t, t.Context(), k, none, none); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took < time.Second || took > 1500*time.Millisecond {
				t.Errorf("took %v, want little more than a second", took)
			}
		})
	})
	t.Run("a kernel that announces nothing is asked from time to time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if _, err := waits(t, t.Context(), deaf{}, none, none, none); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("it ends with the context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			errs := make([]error, 1000)
			for i := range errs {
				errs[i] = none
			}
			if _, err := waits(t, ctx, make(watch), errs...); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error is %v, want that of the context", err)
			}
		})
	})
}

// deaf is a kernel that cannot be watched.
type deaf struct{}

func (deaf) Watch(context.Context, func(ip.Event)) error { return syscall.EPERM }
