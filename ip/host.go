package ip

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
)

// Host is what a backend is given of the host that it runs on.
type Host struct {
	Kernel Kernel
	Log    *slog.Logger
	// Underlay returns the interface in use now; it may be called by any goroutine.
	Underlay func() Underlay
	// Leftovers is what earlier runs may have left behind, to be cleaned up in the first pass.
	Leftovers Scope
	// Identity is the random name of the host, that hardware addresses are derived from.
	Identity string
	// MACs are the hardware addresses of earlier runs, by device.
	MACs map[string]MAC
}

// Underlay is the interface and the addresses that this host sends tunnel packets from.
type Underlay struct {
	Link        string
	MTU         int          // bytes
	MAC         MAC          // to tell a clone from a host that moved, in messages
	Addrs       []netip.Addr // own addresses, one for each family that it has
	PublicAddrs []netip.Addr // what peers are told, one for each family
	Reason      string       // why this interface
}

// Addr returns the own address of the family of a prefix; the zero value if there is none.
func (u Underlay) Addr(prefix netip.Prefix) netip.Addr { return ofFamily(u.Addrs, prefix) }

// PublicAddr returns the address that peers are told, of the family of a prefix; the zero value if there is none.
func (u Underlay) PublicAddr(prefix netip.Prefix) netip.Addr { return ofFamily(u.PublicAddrs, prefix) }

func ofFamily(addrs []netip.Addr, prefix netip.Prefix) netip.Addr {
	for _, a := range addrs {
		if a.Is4() == prefix.Addr().Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// With returns the union of both scopes. BootGateways is that of the receiver.
func (s Scope) With(o Scope) Scope {
	s.Links = append(slices.Clone(s.Links), o.Links...)
	s.Networks = append(slices.Clone(s.Networks), o.Networks...)
	return s
}

// PeersOnly reports whether an error of Reconcile consists of failed operations on single peers, or is ErrFight: what this
// host itself needs is in place.
func PeersOnly(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if !PeersOnly(e) {
				return false
			}
		}
		return true
	}
	if errors.Is(err, ErrFight) {
		return true
	}
	var op *OpError
	return errors.As(err, &op) && op.Op.Object.Kind() >= KindFDB
}
