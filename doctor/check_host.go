package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flanneld/ip"
)

func checkInterface(f *Facts) Finding {
	if f.LinksErr != nil {
		return fail("", "%v", f.LinksErr)
	}
	wanted := f.Status.Addresses
	if len(wanted) == 0 {
		for _, l := range f.State.Own.Leases {
			wanted = append(wanted, l.PublicIP)
		}
	}
	if len(wanted) == 0 {
		return skip("this host has published no address")
	}
	var names []string
	for _, a := range wanted {
		i := slices.IndexFunc(f.Links, func(l ip.Interface) bool {
			return slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
		})
		switch {
		case i < 0 && f.DaemonErr != nil:
			return warn("", "no interface has %s, the address that was last published: it was removed, or belongs to a NAT", a)
		case i < 0:
			return fail("systemctl restart flanneld, or choose an interface with -iface",
				"no interface has %s, the source address of the tunnel", a)
		case !f.Links[i].Up || !f.Links[i].Running:
			return fail("ip link set "+f.Links[i].Name+" up", "%s, which has %s, is down", f.Links[i].Name, a)
		}
		names = append(names, fmt.Sprintf("%s has %s", f.Links[i].Name, a))
	}
	because := ""
	if f.Status.Chosen != "" {
		because = " (" + f.Status.Chosen + ")"
	}
	return pass("%s%s", strings.Join(names, ", "), because)
}

func checkDevice(f *Facts) Finding {
	if len(f.Devices) == 0 {
		return skip("the backend has no device")
	}
	for _, name := range f.Devices {
		l, ok := f.link(name)
		switch {
		case !ok:
			return fail(restartFix, "%s does not exist", name)
		case !l.Up:
			return fail("", "%s is down", name).safe("ip link set " + name + " up")
		case l.MTU < f.MTU:
			return fail("", "%s has MTU %d, the subnet file says %d", name, l.MTU, f.MTU).
				safe(fmt.Sprintf("ip link set %s mtu %d", name, f.MTU))
		}
		for _, p := range f.Subnets {
			own := netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
			if p.Addr().Is4() != strings.Contains(name, "-v6") && !slices.Contains(l.Addrs, own) {
				return fail("", "%s lacks the address %s", name, own).safe(fmt.Sprintf("ip addr add %s dev %s", own, name))
			}
		}
	}
	return pass("%s up, MTU %d", list(f.Devices), f.MTU)
}

func checkMAC(f *Facts) Finding {
	for name, want := range f.State.MACs {
		l, ok := f.link(name)
		if ok && l.MAC.String() != want {
			return fail("", "%s has the hardware address %s, and peers were told %s: a network manager has changed it "+
				"(MACAddressPolicy=persistent of systemd-udevd, or NetworkManager)",
				name, l.MAC, want).safe(fmt.Sprintf("ip link set %s address %s", name, want))
		}
	}
	if len(f.State.MACs) == 0 {
		return skip("the backend has no device with a hardware address")
	}
	return pass("the same as in the lease")
}

func checkNeighbours(f *Facts) Finding {
	most, ok := f.Sysctls["net/ipv4/neigh/default/gc_thresh3"]
	if !ok {
		return skip("the limit can only be read in the initial network namespace")
	}
	if n := len(f.Peers); n*10 >= most*9 {
		return fail("", "%s, and the kernel keeps at most %d neighbours", count(n, "peer"), most).
			safe(fmt.Sprintf("sysctl -q -w net.ipv4.neigh.default.gc_thresh3=%d", 4*n))
	}
	return pass("%s, the kernel keeps up to %d neighbours", count(len(f.Peers), "peer"), most)
}

func checkConntrack(f *Facts) Finding {
	n, most := f.Sysctls["net/netfilter/nf_conntrack_count"], f.Sysctls["net/netfilter/nf_conntrack_max"]
	if most == 0 {
		return skip("the kernel tracks no connections here")
	}
	if n*10 >= most*9 {
		return fail(fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*most),
			"%d of at most %d connections are tracked: when the table is full, new connections are dropped", n, most)
	}
	return pass("%d of at most %d connections are tracked", n, most)
}

// fewBad is how many packets with a wrong checksum are normal.
const fewBad = 20

// checkChecksums looks for packets that arrive with a wrong checksum: some NICs compute that of tunnelled packets
// wrongly.
func checkChecksums(f *Facts) Finding {
	if len(f.Sums) == 0 {
		return skip("the kernel's counters cannot be read")
	}
	for _, s := range f.Sums {
		if s.Bad < fewBad || s.Bad*100 <= s.In {
			continue
		}
		fix := ""
		if len(f.Devices) > 0 {
			fix = "on the sending hosts: ethtool -K " + f.Devices[0] + " tx-checksum-ip-generic off"
		}
		return fail(fix, "%d of %d %s packets arrived with a wrong checksum: "+
			"a sender's NIC computes it wrongly for tunnelled packets", s.Bad, s.In+s.Bad, s.Protocol)
	}
	return pass("no significant number of packets with a wrong checksum")
}
