package ip

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Forwarding is what the kernel's settings (Documentation/networking/ip-sysctl.rst) say about packets of pods that are
// to leave the host or to come in.
type Forwarding struct {
	// Off are the settings that keep the kernel from forwarding, as "name = value" for sysctl(8) with the value that is
	// wanted.
	Off []string
	// TakesRA says that the link obeys router advertisements now, and would no longer once forwarding is turned on.
	TakesRA bool
}

// ReadForwarding looks at the families of the networks and at the link of the underlay.
func ReadForwarding(link string, networks []netip.Prefix) (Forwarding, error) {
	var f Forwarding
	for _, s := range forwardingSettings(networks) {
		value, err := readSysctl(s)
		if err != nil {
			return Forwarding{}, err
		}
		if value == "0" {
			f.Off = append(f.Off, strings.ReplaceAll(s, "/", ".")+" = 1")
		}
	}
	if !slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Addr().Is6() }) {
		return f, nil
	}
	accept, err := readSysctl(linkSetting(link, "accept_ra"))
	if err != nil {
		return Forwarding{}, err
	}
	forwards, err := readSysctl(linkSetting(link, "forwarding"))
	f.TakesRA = accept == "1" && forwards == "0"
	return f, err
}

// KeepRA makes a link obey router advertisements whether or not it forwards. The value 1 means only as long as it does
// not, and turning forwarding on takes the default routes that came that way (dev_forward_change in
// net/ipv6/addrconf.c).
func KeepRA(link string) error { return writeSysctl(linkSetting(link, "accept_ra"), "2") }

// enableIPv6 does so on the devices that get an IPv6 address, where the host turns IPv6 off on every new device
// (net.ipv6.conf.default.disable_ipv6) or somebody has: the kernel would refuse the address, and says so where a
// setting cannot be changed.
func enableIPv6(ops []Op) {
	for _, op := range ops {
		a, ok := op.Object.(Addr)
		if !ok || op.Delete || !a.Prefix.Addr().Is6() {
			continue
		}
		setting := linkSetting(a.Link, "disable_ipv6")
		if value, err := readSysctl(setting); err == nil && value != "0" {
			_ = writeSysctl(setting, "0")
		}
	}
}

// TurnOnForwarding does so for the families of the networks.
func TurnOnForwarding(networks []netip.Prefix) error {
	for _, s := range forwardingSettings(networks) {
		if value, err := readSysctl(s); err == nil && value != "0" {
			continue
		}
		if err := writeSysctl(s, "1"); err != nil {
			return err
		}
	}
	return nil
}

// NotForwarding returns those of the links that IPv4 packets are dropped on when they arrive there and are for others,
// although the host as a whole forwards. Links that are not there are left out. IPv6 has the setting of the whole host
// alone.
func NotForwarding(links []string) (off []string) {
	if value, err := readSysctl("net/ipv4/ip_forward"); err != nil || value == "0" {
		return nil
	}
	for _, link := range links {
		if value, err := readSysctl(linkForwarding(link)); err == nil && value == "0" {
			off = append(off, link)
		}
	}
	return off
}

// TurnOnLinkForwarding lets IPv4 packets for others arrive on a link.
func TurnOnLinkForwarding(link string) error { return writeSysctl(linkForwarding(link), "1") }

func linkForwarding(link string) string { return "net/ipv4/conf/" + link + "/forwarding" }

func forwardingSettings(networks []netip.Prefix) []string {
	var out []string
	for _, n := range networks {
		name := "net/ipv4/ip_forward"
		if n.Addr().Is6() {
			name = "net/ipv6/conf/all/forwarding"
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// linkSetting is the path of an IPv6 setting of one link. A dot in the name of a link stands there as it is.
func linkSetting(link, name string) string { return "net/ipv6/conf/" + link + "/" + name }

// settingsFixed reports whether settings are on a read-only file system.
func settingsFixed() bool {
	return unix.Access("/proc/sys/net/ipv4/ip_forward", unix.W_OK) == unix.EROFS
}

func readSysctl(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil {
		return "", fmt.Errorf("read setting: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

func writeSysctl(name, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
		return fmt.Errorf("change setting: %w", err)
	}
	return nil
}
