package ip

import (
	"errors"
	"fmt"
	"net"
)

// MAC is an Ethernet address. Unlike net.HardwareAddr it is comparable.
type MAC [6]byte

// ParseMAC reads the usual form aa:bb:cc:dd:ee:ff; it is an error if the address has not six bytes.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, fmt.Errorf("parse MAC %q: %w", s, err)
	}
	if len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("parse MAC %q: %d bytes, want 6", s, len(hw))
	}
	return MAC(hw), nil
}

// ParseMACs reads addresses by device. Those that cannot be read are left out and named in the error.
func ParseMACs(texts map[string]string) (map[string]MAC, error) {
	out := map[string]MAC{}
	var errs []error
	for device, text := range texts {
		m, err := ParseMAC(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("device %s: %w", device, err))
			continue
		}
		out[device] = m
	}
	return out, errors.Join(errs...)
}

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MAC) UnmarshalText(text []byte) error {
	parsed, err := ParseMAC(string(text))
	if err != nil {
		return err
	}
	*m = parsed
	return nil
}
