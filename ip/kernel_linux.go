package ip

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// LinuxKernel is the Kernel of the network namespace that the thread of NewKernel was in. All threads that call it must
// be in that namespace, as those of a daemon are: settings under /proc/sys are those of the caller's.
type LinuxKernel struct {
	log         *slog.Logger
	watchBuffer int // bytes; the kernel doubles it

	fixedSettings bool // /proc/sys is read-only, as in a container that is not privileged

	mu     sync.Mutex // one request at a time
	sock   *socket
	handle *netlink.Handle // for changes of links and look-ups
}

// NewKernel opens a netlink socket in the network namespace of the calling thread.
func NewKernel(log *slog.Logger) (*LinuxKernel, error) {
	s, err := dial()
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err == nil {
		// Not NETLINK_GET_STRICT_CHK: the kernel then refuses the library's look-ups of IPv6 routes, for their flag
		// RTM_F_LOOKUP_TABLE (inet6_rtm_valid_getroute_req in net/ipv6/route.c).
		err = h.SetSocketTimeout(answerTime)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("open netlink handle: %w", err)
	}
	return &LinuxKernel{log: log, watchBuffer: watchBuffer, fixedSettings: settingsFixed(), sock: s, handle: h}, nil
}

// FixedSettings reports whether the settings under /proc/sys cannot be changed from here, as in a container that is not
// privileged. The kernel's defaults for new devices are in force then (net.ipv6.conf.default of the host).
func (k *LinuxKernel) FixedSettings() bool { return k.fixedSettings }

// Close closes the sockets.
func (k *LinuxKernel) Close() {
	k.sock.close()
	k.handle.Close()
}

// Apply implements Kernel. Links are handled one by one where they stand in the order, because what follows needs their
// numbers; all else between them goes in batches.
func (k *LinuxKernel) Apply(ops []Op) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs OpErrors
	for len(ops) > 0 {
		if l, ok := ops[0].Object.(Link); ok {
			if err := k.applyLink(l, ops[0].Delete); err != nil {
				errs = append(errs, &OpError{ops[0], err})
			}
			ops = ops[1:]
			continue
		}
		n := slices.IndexFunc(ops, func(o Op) bool { return o.Object.Kind() == KindLink })
		if n < 0 {
			n = len(ops)
		}
		failed, err := k.applyBatches(ops[:n], errs)
		errs = append(errs, failed...)
		if err != nil {
			return errors.Join(errs.orNil(), err)
		}
		ops = ops[n:]
	}
	return errs.orNil()
}

// applyBatches carries out operations on everything but links. before are the errors of those on links.
func (k *LinuxKernel) applyBatches(ops []Op, before OpErrors) (failed OpErrors, err error) {
	links, err := k.indexes(ops)
	if err != nil {
		return nil, err
	}
	ops, failed = present(ops, links, before)
	enableIPv6(ops)
	for chunk := range slices.Chunk(ops, batchSize) {
		errs, err := k.sock.batch(len(chunk), func(m *messages, i int) { encode(m, chunk[i], links) })
		if err != nil {
			return failed, fmt.Errorf("apply %d operations: %w", len(chunk), err)
		}
		if err := k.unshadow(chunk, errs, links); err != nil {
			return failed, err
		}
		if err := k.nameConflicts(chunk, errs); err != nil {
			return failed, err
		}
		for i, op := range chunk {
			if err := errs[i]; err != nil && !harmless(op, err) {
				failed = append(failed, &OpError{op, explain(op, err)})
			}
		}
	}
	return failed, nil
}

// unshadow puts IPv6 routes again that were refused because of a route that others have. The kernel looks for the next
// hop, which lies in the subnet, by the routes that stand there, and refuses it if the best one leaves by another
// device, onlink or not (ip6_route_check_nh_onlink in net/ipv6/route.c): the one that is to be replaced, one of another
// metric, or one to a larger network. For that moment the next hop gets a route of its own. What remains of the errors
// is the outcome.
func (k *LinuxKernel) unshadow(ops []Op, errs map[int]error, links indexes) error {
	var again []int
	for i, op := range ops {
		if r, ok := op.Object.(Route); ok && !op.Delete && r.Onlink && r.Dst.Addr().Is6() && errors.Is(errs[i], unix.EINVAL) {
			again = append(again, i)
		}
	}
	const messagesEach = 3
	outcome, err := k.sock.batch(messagesEach*len(again), func(m *messages, n int) {
		op := ops[again[n/messagesEach]]
		r := op.Object.(Route)
		own := Route{Dst: netip.PrefixFrom(r.Via, r.Via.BitLen()), Link: r.Link, Protocol: Protocol}
		switch n % messagesEach {
		case 0:
			op = Op{Object: own}
		case 2:
			op = Op{Delete: true, Object: own}
		}
		encode(m, op, links)
	})
	if err != nil {
		return fmt.Errorf("replace %d routes: %w", len(again), err)
	}
	for n, i := range again {
		if delete(errs, i); outcome[messagesEach*n+1] != nil {
			errs[i] = outcome[messagesEach*n+1]
		}
	}
	return nil
}

// present returns the operations whose device is there. Without it, a delete has nothing to do, and a put fails: with
// an error of its own only if the failure of the device is not in before.
func present(ops []Op, links indexes, before OpErrors) (there []Op, failed OpErrors) {
	if !slices.Contains(slices.Collect(maps.Values(links)), 0) {
		return ops, nil
	}
	for _, op := range ops {
		name := op.Object.Device()
		switch {
		case name == "" || links[name] != 0:
			there = append(there, op)
		case !op.Delete && !before.on(name):
			failed = append(failed, &OpError{op, fmt.Errorf("find device %s: %w", name, unix.ENODEV)})
		}
	}
	return there, failed
}

// on reports whether one of the errors is about a device.
func (e OpErrors) on(name string) bool {
	return slices.ContainsFunc(e, func(op *OpError) bool { return op.Op.Object.Device() == name })
}

// indexes looks up the numbers of all devices that the operations name; one that is not there has number 0.
func (k *LinuxKernel) indexes(ops []Op) (indexes, error) {
	links := indexes{}
	last := ""
	for _, op := range ops {
		name := op.Object.Device()
		if f, ok := op.Object.(FDB); ok && f.Dst.Zone() != "" {
			if err := k.addIndex(links, f.Dst.Zone()); err != nil {
				return nil, err
			}
		}
		if name == "" || name == last {
			continue
		}
		last = name
		if err := k.addIndex(links, name); err != nil {
			return nil, err
		}
	}
	return links, nil
}

// addIndex looks up the number of a device that is not known yet.
func (k *LinuxKernel) addIndex(links indexes, name string) error {
	if _, known := links[name]; known {
		return nil
	}
	l, err := k.linkByName(name)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	links[name] = l.index
	return nil
}

// harmless reports whether an error means that the wanted state stands already: what shall be deleted is not there, or
// its device is gone, and it with it.
func harmless(op Op, err error) bool {
	if !op.Delete {
		return false
	}
	for _, gone := range []error{unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.EADDRNOTAVAIL} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

// explain adds what an operator can do about an error.
func explain(op Op, err error) error {
	switch l, isLink := op.Object.(Link); {
	case isLink && l.Type == "vxlan" && errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w: another device has VNI %d and port %d: delete it, or choose another VNI",
			err, l.VXLAN.VNI, l.VXLAN.Port)
	case isLink && l.Tunnel != (Tunnel{}) && errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w: another %s device has the local address %s and no remote one: delete it", err, l.Type,
			l.Tunnel.Local)
	case op.Object.Kind() == KindAddr && errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: IPv6 is turned off on the device: sysctl net.ipv6.conf.%s.disable_ipv6=0",
			err, op.Object.Device())
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: CAP_NET_ADMIN is needed", err)
	case isLink && errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: the kernel has no support for devices of type %s", err, l.Type)
	}
	return err
}
