package plugin

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"flanneld/subnet"
)

const (
	defaultBridge = "cni0"
	sysClassNet   = "/sys/class/net"
)

// bridge is what stands in the kernel of the bridge that a delegate is going to use.
type bridge struct {
	name  string
	index int
	addrs []netip.Prefix // with the host's part
	lock  *os.File       // held while the address is changed
}

// close lets go of the lock.
func (b *bridge) close() {
	if b != nil && b.lock != nil {
		_ = b.lock.Close()
	}
}

// prepareBridge sees to it that the delegate finds a bridge whose address is that of this host's subnet. After the
// subnet has changed, a bridge without containers is given the new address, by way of forceAddress in the delegate's
// configuration; one with containers is left alone, for they would lose their gateway. Of ADDs at the same time, one
// changes the address and the others wait for it: behind the lock, a port of the bridge can only be an old container's.
// The caller closes the bridge when the delegate has ended.
func (c Conf) prepareBridge(config object, e subnet.Env) (*bridge, error) {
	if b := bridgeOf(config); b == nil || !b.stale(e) {
		return nil, nil
	}
	held, err := c.lockBridges()
	if err != nil {
		return nil, busyOr(err)
	}
	b := bridgeOf(config)
	if b == nil || !b.stale(e) {
		return nil, held.Close()
	}
	b.lock = held
	if err := b.refuse(e, c); err != nil {
		b.close()
		return nil, err
	}
	if b.ports() > 0 { // of IPv6, old and new addresses go together
		b.close()
		return nil, nil
	}
	config.set("forceAddress", true)
	if err := b.flush6(e); err != nil {
		b.close()
		return nil, ioFailure(err)
	}
	return b, nil
}

// lockBridges lets one ADD at a time change a bridge's address. The delegate inherits the lock.
func (c Conf) lockBridges() (*os.File, error) {
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder of saved configurations: %w", err)
	}
	f, err := os.Open(c.DataDir)
	if err != nil {
		return nil, fmt.Errorf("lock the bridges: %w", err)
	}
	if err := flock(f, lockWait); err != nil {
		return nil, fmt.Errorf("lock the bridges: %w", err)
	}
	return f, inherit(f)
}

// bridgeStatus says whether prepareBridge would refuse.
func (c Conf) bridgeStatus(config object, e subnet.Env) *types.Error {
	if b := bridgeOf(config); b != nil && b.stale(e) {
		return b.refuse(e, c)
	}
	return nil
}

// bridgeOf returns the bridge that a configuration gives an address to; nil if it gives none, if the administrator has
// decided what happens to another address, or if there is no bridge yet.
func bridgeOf(config object) *bridge {
	_, decided := config["forceAddress"]
	gateway := config.isTrue("isGateway") || config.isTrue("isDefaultGateway")
	if _, vlan := config["vlan"]; config.text("type") != "bridge" || decided || !gateway || vlan {
		return nil
	}
	name := config.text("bridge")
	if name == "" {
		name = defaultBridge
	}
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	b := &bridge{name: name, index: link.Index}
	addrs, err := link.Addrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			b.addrs = append(b.addrs, p)
		}
	}
	return b
}

// gatewayOf is the address that the bridge plugin gives the bridge.
func gatewayOf(s netip.Prefix) netip.Prefix { return netip.PrefixFrom(s.Addr().Next(), s.Bits()) }

// stale reports whether the bridge has an address of a subnet that was this host's before.
func (b *bridge) stale(e subnet.Env) bool { return len(b.old(e, true)) > 0 || len(b.old(e, false)) > 0 }

// old returns the addresses that are not the host's subnet's any more. Of IPv6, that is one inside the network; a
// bridge may have others beside ours, whereas the bridge plugin accepts only one of IPv4.
func (b *bridge) old(e subnet.Env, is4 bool) []netip.Prefix {
	var out []netip.Prefix
	if !slices.ContainsFunc(e.Subnets, func(s netip.Prefix) bool { return s.Addr().Is4() == is4 }) {
		return nil
	}
	for _, a := range b.addrs {
		isGateway := slices.ContainsFunc(e.Subnets, func(s netip.Prefix) bool { return a == gatewayOf(s) })
		inNetwork := slices.ContainsFunc(e.Networks, func(n netip.Prefix) bool { return n.Contains(a.Addr()) })
		switch {
		case a.Addr().Is4() != is4:
		case is4 && isGateway: // the bridge plugin looks no further
			return out
		case !isGateway && (is4 || inNetwork):
			out = append(out, a)
		}
	}
	return out
}

// refuse returns an error if the bridge has containers of an old IPv4 range, or of another network.
func (b *bridge) refuse(e subnet.Env, c Conf) *types.Error {
	old := b.old(e, true)
	ports := b.ports()
	if len(old) == 0 || ports == 0 {
		return nil
	}
	inside := func(a netip.Prefix) bool {
		return slices.ContainsFunc(e.Networks, func(n netip.Prefix) bool { return n.Contains(a.Addr()) })
	}
	foreign := !slices.ContainsFunc(old, inside)
	for i := range old {
		old[i] = old[i].Masked()
	}
	serves := fmt.Sprintf("the bridge %s still serves %d interface(s) of containers with addresses of %s", b.name, ports,
		join(old))
	const separate = "give each network a bridge of its own: set \"bridge\" in \"delegate\" of this network's " +
		"configuration, for example " +
		"\"delegate\": {\"bridge\": \"cni1\"}"
	if other := (store{c.DataDir}).networkOn(b.name, c.Name); foreign && other != "" {
		return types.NewError(errSubnetChanged,
			fmt.Sprintf("the bridge %s belongs to the network %q: %s, and this host's subnet in the network %q is %s",
				b.name, other, serves, c.Name, join(e.Subnets)), separate)
	}
	details := fmt.Sprintf("end the containers with addresses of %s, or restart them all at once (no other host "+
		"reaches them any more); the next container then gives the bridge its new "+
		"address. Or set \"forceAddress\": true in \"delegate\": it takes the old ones' gateway away", join(old))
	if foreign {
		details = "if these containers belong to another network, " + separate +
			". If this network had another range before: " + details
	}
	return types.NewError(errSubnetChanged, fmt.Sprintf("this host's subnet is %s now, but %s", join(e.Subnets), serves),
		details)
}

// ports counts the interfaces on the bridge. Where it cannot be seen, the bridge counts as used.
func (b *bridge) ports() int {
	dir := filepath.Join(sysClassNet, b.name)
	index, err := os.ReadFile(filepath.Join(dir, "ifindex"))
	if err != nil || strings.TrimSpace(string(index)) != strconv.Itoa(b.index) {
		return 1 // sysfs shows another network namespace
	}
	ports, err := os.ReadDir(filepath.Join(dir, "brif"))
	if err != nil {
		return 1
	}
	return len(ports)
}

// flush6 takes old IPv6 addresses from a bridge without containers, and with them the route to a subnet that may be
// another host's by now. The kernel drops all addresses of a link when IPv6 is switched off there.
func (b *bridge) flush6(e subnet.Env) error {
	if len(b.old(e, false)) == 0 {
		return nil
	}
	file := filepath.Join("/proc/sys/net/ipv6/conf", b.name, "disable_ipv6")
	for _, value := range []string{"1", "0"} {
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			return fmt.Errorf("flush IPv6 addresses of %s: %w", b.name, err)
		}
	}
	return nil
}

func join(prefixes []netip.Prefix) string {
	parts := make([]string, len(prefixes))
	for i, p := range prefixes {
		parts[i] = p.String()
	}
	return strings.Join(parts, ", ")
}
