// Package options reads what can be said of the backend wireguard, for programs that run no tunnel: the options in the
// network configuration, and where the private key lies.
package options

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration and in records.
const Type = "wireguard"

// minUnderlayMTU is what every IPv4 host must take, in bytes (RFC 791).
const minUnderlayMTU = 576

// Mode says which devices there are, and over which family of the underlay their packets travel.
type Mode string

// The modes. With Separate each family of the network has a device of its own, whose packets travel over the same
// family of the underlay. With the others one device carries both families.
const (
	Separate Mode = "separate"
	Auto     Mode = "auto"
	IPv4     Mode = "ipv4"
	IPv6     Mode = "ipv6"
)

var modes = []Mode{Separate, Auto, IPv4, IPv6}

// Options are the options of the backend in the network configuration.
type Options struct {
	PSK          Secret // of all pairs of hosts; the zero value: none
	ListenPort   uint16 // UDP
	ListenPortV6 uint16 // UDP, of the second device
	MTU          int    // of the underlay, in bytes; 0: that of the interface
	Mode         Mode
	Keepalive    time.Duration // whole seconds; 0: none
}

// Secret is a key that is not printed.
type Secret struct{ key [keySize]byte }

const keySize = 32 // bytes

// Key returns the key; the zero value: there is none.
func (s Secret) Key() [32]byte { return s.key }

// String hides the key.
func (s Secret) String() string {
	if s.key == ([keySize]byte{}) {
		return "none"
	}
	return "REDACTED"
}

// GoString hides the key.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the key.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Parse reads the object "Backend" of the network configuration. The error joins all that is wrong, and
// never shows the key.
func Parse(raw []byte) (Options, error) {
	in := struct {
		PSK                         string
		ListenPort, ListenPortV6    int
		MTU                         int
		Mode                        Mode
		PersistentKeepaliveInterval int
	}{ListenPort: 51820, ListenPortV6: 51821, Mode: Separate}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &in); err != nil {
			return Options{}, fmt.Errorf("backend wireguard: %w", subnet.WrongType(err))
		}
	}
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("backend wireguard: "+format, args...))
	}
	check := func(name string, v, low, high int) {
		if v < low || v > high {
			fail("%s is %d, want %d to %d", name, v, low, high)
		}
	}
	check("ListenPort", in.ListenPort, 1, math.MaxUint16)
	check("ListenPortV6", in.ListenPortV6, 1, math.MaxUint16)
	check("PersistentKeepaliveInterval", in.PersistentKeepaliveInterval, 0, math.MaxUint16)
	if in.MTU != 0 {
		check("MTU", in.MTU, minUnderlayMTU, math.MaxUint16)
	}
	if !slices.Contains(modes, in.Mode) {
		fail("Mode is %.20q, want separate, auto, ipv4 or ipv6", in.Mode)
	}
	if in.Mode == Separate && in.ListenPort == in.ListenPortV6 {
		fail("ListenPort and ListenPortV6 are both %d, and each device needs its own", in.ListenPort)
	}
	var psk [keySize]byte
	if in.PSK != "" {
		b, err := base64.StdEncoding.DecodeString(in.PSK)
		if copy(psk[:], b); err != nil || len(b) != keySize {
			fail("PSK is not a key: want 32 bytes in base64, as \"wg genpsk\" prints them")
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Options{}, err
	}
	return Options{
		PSK: Secret{psk}, ListenPort: uint16(in.ListenPort), ListenPortV6: uint16(in.ListenPortV6), MTU: in.MTU,
		Mode: in.Mode, Keepalive: time.Duration(in.PersistentKeepaliveInterval) * time.Second,
	}, nil
}
