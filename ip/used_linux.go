package ip

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of times in netlink messages (USER_HZ), whatever the kernel counts in.
const clockTick = time.Second / 100

// Used returns how long ago a packet was last sent to each destination of a vxlan device of ours: the kernel notes it in
// the FDB entry. A device that is not there has none.
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
			err := k.sock.dump(unix.RTM_GETNEIGH, neighFixed(unix.AF_BRIDGE, l.index, 0, 0), nil, func(got message) {
				if f, ok := decodeFDB(got.data, linkNames, device); ok {
					out[f.Dst] = lastUse(got.data)
				}
			})
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

// decodeFDB reads an entry of one device that leads to a host.
func decodeFDB(b []byte, links names, device string) (FDB, bool) {
	o, permanent := decodeNeigh(b, links)
	f, ok := o.(FDB)
	return f, ok && permanent && f.Link == device && f.Dst.IsValid()
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
