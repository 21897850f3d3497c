package check

import (
	ipip "flanneld/backend/ipip/options"
	udp "flanneld/backend/udp/options"
	vxlan "flanneld/backend/vxlan/options"
	wireguard "flanneld/backend/wireguard/options"
	"flanneld/subnet"
)

// Adjusts reports whether the main backends of two configurations differ only in options that a host may change while
// the backend runs, whatever the other hosts have.
func Adjusts(now, then subnet.Config) bool {
	if now.BackendType != then.BackendType {
		return false
	}
	switch now.BackendType {
	case "host-gw": // it has no options
		return true
	case ipip.Type: // it has one, which may change
		return Config(now) == nil && Config(then) == nil
	case vxlan.Type:
		return equal(now, then, vxlan.Parse, func(o *vxlan.Options) { o.MTU, o.DirectRouting, o.Learning = 0, false, false })
	case wireguard.Type:
		return equal(now, then, wireguard.Parse, func(o *wireguard.Options) { o.MTU, o.Keepalive = 0, 0 })
	case udp.Type:
		return equal(now, then, udp.Parse, func(o *udp.Options) { o.MTU, o.Kernel = 0, false })
	}
	return false
}

// equal compares options but for those that without takes away.
func equal[T comparable](a, b subnet.Config, parse func([]byte) (T, error), without func(*T)) bool {
	x, err := parse(a.Backend)
	if err != nil {
		return false
	}
	y, err := parse(b.Backend)
	if err != nil {
		return false
	}
	without(&x)
	without(&y)
	return x == y
}
