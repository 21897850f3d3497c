package ip

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// clockTick is the unit of times in netlink messages (USER_HZ), whatever the kernel counts in.
const clockTick = time.Second / 100

// Used returns how long ago a packet was last sent to each host behind a link; a link that is not there has none. Of a
// vxlan device these are its destinations, and the kernel notes the time of every packet in their FDB entries. Of any
// other link they are its neighbours, and the time is noted when an entry has become stale
// (net.ipv4.neigh.*.base_reachable_time_ms, half a minute, after it was confirmed last) and is used again.
func (k *LinuxKernel) Used(device string) (map[netip.Addr]time.Duration, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out map[netip.Addr]time.Duration
	err := k.repeat(func() error {
		out = map[netip.Addr]time.Duration{}
		all, linkNames, err := k.dumpLinks()
		if err != nil {
			return err
		}
		for _, l := range all {
			if l.Name != device {
				continue
			}
			which := []nl.NetlinkRequestData{&netlink.Ndmsg{}, onLink(l.index)}
			if l.Type == "vxlan" {
				which = []nl.NetlinkRequestData{&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: l.index}}
			}
			err := k.sock.dump(unix.RTM_GETNEIGH, func(data []byte) {
				if a := host(data, linkNames, device); a.IsValid() {
					out[a] = lastUse(data)
				}
			}, which...)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the use of %s: %w", device, err)
	}
	return out, nil
}

// host returns the address of the host that an entry of a device leads to; the zero value if it leads to none.
func host(b []byte, links names, device string) netip.Addr {
	switch o, permanent := decodeNeigh(b, links); o := o.(type) {
	case FDB:
		if permanent && o.Link == device {
			return o.Dst
		}
	case Neigh:
		if o.Link == device {
			return o.IP
		}
	}
	return netip.Addr{}
}

// lastUse reads the second number of a struct nda_cacheinfo (include/uapi/linux/neighbour.h).
func lastUse(b []byte) time.Duration {
	for kind, data := range attributes(b[unix.SizeofNdMsg:]) {
		if kind == unix.NDA_CACHEINFO && len(data) >= 8 {
			return time.Duration(native.Uint32(data[4:])) * clockTick
		}
	}
	return 0
}
