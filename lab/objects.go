package lab

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// kernel returns a connection to the kernel of the namespace. Tests ask it what they would ask the command ip, where
// they ask often: a process for each question would be half of what they cost.
func (n *Namespace) kernel() (*netlink.Handle, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.netlink != nil {
		return n.netlink, nil
	}
	err := n.Do(func() (err error) {
		n.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", n.name, err)
	}
	return n.netlink, nil
}

// close ends what the namespace has open.
func (n *Namespace) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.netlink != nil {
		n.netlink.Close()
	}
	_ = n.file.Close()
}

// Objects describes the routes of one protocol, and devices with all that is on them, one object in a line, without
// the numbers that the kernel gives. A device that is not there is said to be missing.
func (n *Namespace) Objects(protocol netlink.RouteProtocol, devices ...string) (string, error) {
	k, err := n.kernel()
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := k.RouteListFiltered(family, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return "", fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			fmt.Fprintln(&out, describeRoute(k, r))
		}
	}
	for _, name := range devices {
		if err := describeDevice(&out, k, name); err != nil {
			return "", fmt.Errorf("look at %s: %w", name, err)
		}
	}
	return out.String(), nil
}

func describeRoute(k *netlink.Handle, r netlink.Route) string {
	link := "?"
	if l, err := k.LinkByIndex(r.LinkIndex); err == nil {
		link = l.Attrs().Name
	}
	return fmt.Sprintf("route %s via %s dev %s src %s proto %s scope %s metric %d mtu %d type %d table %d flags %v",
		r.Dst, r.Gw, link, r.Src, r.Protocol, r.Scope, r.Priority, r.MTU, r.Type, r.Table, r.ListFlags())
}

func describeDevice(out *strings.Builder, k *netlink.Handle, name string) error {
	l, err := k.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		fmt.Fprintf(out, "%s is missing\n", name)
		return nil
	}
	if err != nil {
		return err
	}
	a := l.Attrs()
	fmt.Fprintf(out, "link %s %s mac %s mtu %d flags %s", name, l.Type(), a.HardwareAddr, a.MTU, a.Flags)
	if v, ok := l.(*netlink.Vxlan); ok {
		fmt.Fprintf(out, " vni %d port %d local %s learning %t", v.VxlanId, v.Port, v.SrcAddr, v.Learning)
	}
	out.WriteString("\n")
	addrs, err := k.AddrList(l, unix.AF_UNSPEC)
	for _, a := range addrs {
		if a.Scope == unix.RT_SCOPE_UNIVERSE {
			fmt.Fprintf(out, "addr %s peer %v dev %s\n", a.IPNet, a.Peer, name)
		}
	}
	routes, errRoutes := k.RouteListFiltered(unix.AF_INET, &netlink.Route{LinkIndex: a.Index}, netlink.RT_FILTER_OIF)
	for _, r := range routes {
		fmt.Fprintln(out, describeRoute(k, r))
	}
	neighbours, errNeighbours := k.NeighList(a.Index, unix.AF_UNSPEC)
	entries, errEntries := k.NeighList(a.Index, unix.AF_BRIDGE)
	for _, n := range append(neighbours, entries...) {
		if n.State&unix.NUD_PERMANENT != 0 {
			fmt.Fprintf(out, "neighbour %v lladdr %s dev %s family %d flags %d\n", n.IP, n.HardwareAddr, name, n.Family,
				n.Flags)
		}
	}
	return errors.Join(err, errRoutes, errNeighbours, errEntries)
}

// loopback brings the loopback interface up.
func (n *Namespace) loopback() error {
	k, err := n.kernel()
	if err != nil {
		return err
	}
	lo, err := k.LinkByName("lo")
	if err == nil {
		err = k.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring up lo of %s: %w", n.name, err)
	}
	return nil
}

// has reports whether there is an interface of this name.
func (n *Namespace) has(link string) (bool, error) {
	k, err := n.kernel()
	if err != nil {
		return false, err
	}
	_, err = k.LinkByName(link)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return false, nil
	}
	return err == nil, err
}

// upError says what an interface still lacks to send in both families, or nil.
func (n *Namespace) upError(link string) error {
	k, err := n.kernel()
	if err != nil {
		return err
	}
	l, err := k.LinkByName(link)
	if err != nil {
		return fmt.Errorf("%s: %w", link, err)
	}
	if state := l.Attrs().OperState; state != netlink.OperUp {
		return fmt.Errorf("%s is %s", link, state)
	}
	addrs, err := k.AddrList(l, unix.AF_INET6)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", link, err)
	}
	for _, a := range addrs {
		if a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0 {
			return nil
		}
	}
	return fmt.Errorf("%s has no link-local address yet: %v", link, addrs)
}
