package wireguard

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// The configuration protocol of WireGuard devices in user space: lines of key=value
// (https://www.wireguard.com/xplatform/#configuration-protocol).

// encode writes a configuration.
func encode(c wgtypes.Config) string {
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s=%v\n", key, value) }
	if c.PrivateKey != nil {
		line("private_key", hexOf(*c.PrivateKey))
	}
	if c.ListenPort != nil {
		line("listen_port", *c.ListenPort)
	}
	if c.FirewallMark != nil {
		line("fwmark", *c.FirewallMark)
	}
	for _, p := range c.Peers {
		line("public_key", hexOf(p.PublicKey))
		if p.Remove {
			line("remove", true)
			continue
		}
		if p.PresharedKey != nil {
			line("preshared_key", hexOf(*p.PresharedKey))
		}
		if p.Endpoint != nil {
			line("endpoint", addrPort(p.Endpoint))
		}
		if p.PersistentKeepaliveInterval != nil {
			line("persistent_keepalive_interval", int(p.PersistentKeepaliveInterval.Seconds()))
		}
		if p.ReplaceAllowedIPs {
			line("replace_allowed_ips", true)
		}
		for _, n := range p.AllowedIPs {
			line("allowed_ip", prefixOf(n))
		}
	}
	return b.String()
}

// decode reads the answer of a device.
func decode(name, text string) (*wgtypes.Device, error) {
	d := &wgtypes.Device{Name: name, Type: wgtypes.Userspace}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if err := decodeLine(d, key, value); err != nil {
			return nil, fmt.Errorf("read %s of device %s: %w", key, name, err) // values may be secret
		}
	}
	return d, nil
}

func decodeLine(d *wgtypes.Device, key, value string) (err error) {
	switch key {
	case "private_key":
		d.PrivateKey, err = keyOf(value)
		d.PublicKey = d.PrivateKey.PublicKey()
		return err
	case "listen_port":
		d.ListenPort, err = strconv.Atoi(value)
		return err
	case "fwmark":
		d.FirewallMark, err = strconv.Atoi(value)
		return err
	case "public_key":
		p := wgtypes.Peer{}
		p.PublicKey, err = keyOf(value)
		d.Peers = append(d.Peers, p)
		return err
	}
	if len(d.Peers) == 0 {
		return nil // not known here
	}
	return decodePeerLine(&d.Peers[len(d.Peers)-1], key, value)
}

func decodePeerLine(p *wgtypes.Peer, key, value string) (err error) {
	number := func() (n int64) {
		n, err = strconv.ParseInt(value, 10, 64)
		return n
	}
	switch key {
	case "preshared_key":
		p.PresharedKey, err = keyOf(value)
	case "endpoint":
		var a netip.AddrPort
		a, err = netip.ParseAddrPort(value)
		p.Endpoint = net.UDPAddrFromAddrPort(a)
	case "persistent_keepalive_interval":
		p.PersistentKeepaliveInterval = time.Duration(number()) * time.Second
	case "last_handshake_time_sec":
		if s := number(); s != 0 {
			p.LastHandshakeTime = time.Unix(s, 0)
		}
	case "rx_bytes":
		p.ReceiveBytes = number()
	case "tx_bytes":
		p.TransmitBytes = number()
	case "allowed_ip":
		var n netip.Prefix
		n, err = netip.ParsePrefix(value)
		p.AllowedIPs = append(p.AllowedIPs, ipNet(n))
	}
	return err
}

func hexOf(k wgtypes.Key) string { return hex.EncodeToString(k[:]) }

func keyOf(text string) (wgtypes.Key, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("not hexadecimal")
	}
	return wgtypes.NewKey(b)
}
