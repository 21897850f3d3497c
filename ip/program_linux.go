package ip

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Hook is where a BPF program of the type sched_cls sees the packets of a link: attached to the link itself, or on
// kernels before 6.6 a filter of the qdisc clsact. It lives as long as that, whoever has loaded it. The program's name
// must be ProgramName.
type Hook struct {
	Link   int // number
	Egress bool
	// Device is the device of ours that the program works for. With the device, all its filters are deleted.
	Device string
	// Slot tells apart the devices of this host.
	Slot uint16
}

// programPriority is the priority of our filters among those of others: the number of our routing protocol.
const programPriority = Protocol

func (h Hook) name() string {
	if h.Egress {
		return h.Device + " egress"
	}
	return h.Device + " ingress"
}

func (h Hook) parent() uint32 {
	if h.Egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

// Attach has a program see the packets, in place of what was attached before. No packet meets neither.
func (h Hook) Attach(program int) error {
	if supported, err := h.attachTCX(program); err != nil || supported {
		return err
	}
	err := netlink.QdiscAdd(clsact(h.Link))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add qdisc clsact to link %d: %w", h.Link, err)
	}
	err = netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: h.Link, Parent: h.parent(), Handle: uint32(h.Slot) + 1,
			Priority: programPriority, Protocol: unix.ETH_P_ALL},
		Fd: program, Name: h.name(), DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("attach program %q to link %d: %w", h.name(), h.Link, err)
	}
	return nil
}

// Attached returns the number of the program that is attached; 0: none.
func (h Hook) Attached() (program int, err error) {
	if found, supported, err := h.tcx(); err != nil || supported {
		if found == nil {
			return 0, err
		}
		return found.id, unix.Close(found.fd)
	}
	filters, err := programs(h.Link, h.parent())
	for _, f := range filters {
		if f.Name == h.name() {
			program = f.Id
		}
	}
	return program, err
}

func clsact(link int) netlink.Qdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
}

// programs returns the filters with our priority at one side of a link.
func programs(link int, parent uint32) ([]*netlink.BpfFilter, error) {
	all, err := filters(link, parent)
	var out []*netlink.BpfFilter
	for _, f := range all {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Priority == programPriority {
			out = append(out, b)
		}
	}
	return out, err
}

// filters returns the filters at one side of a link; none where the link or its qdisc is not there.
func filters(link int, parent uint32) ([]netlink.Filter, error) {
	device := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: link}}
	all, err := netlink.FilterList(device, parent)
	for range 4 {
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
		all, err = netlink.FilterList(device, parent)
	}
	for _, none := range []error{unix.EINVAL, unix.ENODEV, unix.ENOENT, unix.EOPNOTSUPP} {
		if errors.Is(err, none) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list filters of link %d: %w", link, err)
	}
	return all, nil
}

// DetachPrograms detaches the programs of a device from all links but those in keep. The qdisc stays: to delete it
// would cost packets of others.
func DetachPrograms(device string, keep ...Hook) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range links {
		for _, egress := range []bool{false, true} {
			h := Hook{Link: l.Attrs().Index, Egress: egress, Device: device}
			if !kept(h, keep) {
				errs = append(errs, h.detachTCX(l.Attrs().Name == device), h.detachFilters())
			}
		}
	}
	return errors.Join(errs...)
}

func (h Hook) detachFilters() error {
	all, err := programs(h.Link, h.parent())
	if err != nil {
		return err
	}
	for _, f := range all {
		if f.Name != h.name() {
			continue
		}
		if err := netlink.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("detach program %q from link %d: %w", f.Name, h.Link, err)
		}
	}
	return nil
}

func kept(h Hook, keep []Hook) bool {
	for _, k := range keep {
		if k.Link == h.Link && k.Egress == h.Egress {
			return true
		}
	}
	return false
}

// Ethernet returns the number of a link, and whether its packets have Ethernet headers.
func Ethernet(link string) (index int, is bool, err error) {
	l, err := netlink.LinkByName(link)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		err = unix.ENODEV
	}
	if err != nil {
		return 0, false, fmt.Errorf("find device %s: %w", link, err)
	}
	return l.Attrs().Index, l.Attrs().EncapType == "ether", nil
}

// IPsec describes a policy of the kernel (ip xfrm policy) that may be meant for packets between hosts; empty: there is
// none.
func IPsec() (policy string, err error) {
	policies, err := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return "", nil // a kernel without IPsec
	case err != nil:
		return "", fmt.Errorf("list IPsec policies: %w", err)
	}
	for _, p := range policies {
		return strings.TrimSpace(fmt.Sprintf("%v to %v, %v", p.Src, p.Dst, p.Dir)), nil
	}
	return "", nil
}

// RouteMTU returns the MTU that is set at the route to an address, in bytes; 0: none is, or there is no route. What the
// kernel has learned of the path is not part of it.
func RouteMTU(dst, src netip.Addr) int {
	o := netlink.RouteGetOptions{SrcAddr: src.AsSlice(), FIBMatch: true}
	routes, err := netlink.RouteGetWithOptions(dst.AsSlice(), &o)
	if err != nil || len(routes) == 0 {
		return 0
	}
	return routes[0].MTU
}
