// Package options reads the options of the vxlan backend in the network configuration. Whoever checks a configuration
// needs no more of the backend.
package options

import (
	"encoding/json"
	"errors"
	"fmt"

	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration, and in records.
const Type = "vxlan"

const minUnderlayMTU = 576 // RFC 791: what every IPv4 host must take

// Options are the options of the backend in the network configuration.
type Options struct {
	VNI           uint32 // VXLAN network identifier, 24 bits
	Port          uint16 // UDP destination port
	MTU           int    // of the underlay, in bytes; 0: that of the interface
	GBP           bool   // group policy extension
	Learning      bool   // learn forwarding entries from packets received
	DirectRouting bool   // route directly to peers on the same link
}

// Parse reads the object "Backend" of the network configuration. The error joins all that is wrong.
func Parse(raw []byte) (Options, error) {
	var in struct {
		VNI           *int
		Port          *int
		MTU           int
		GBP           bool
		Learning      bool
		DirectRouting bool
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &in); err != nil {
			return Options{}, fmt.Errorf("backend vxlan: %w", subnet.WrongType(err))
		}
	}
	vni, port := 1, 8472
	if in.VNI != nil {
		vni = *in.VNI
	}
	if in.Port != nil && *in.Port != 0 {
		port = *in.Port
	}
	var errs []error
	check := func(name string, v, low, high int) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("backend vxlan: %s is %d, want %d to %d", name, v, low, high))
		}
	}
	check("VNI", vni, 1, 1<<24-1)
	check("Port", port, 1, 1<<16-1)
	if in.MTU != 0 {
		check("MTU", in.MTU, minUnderlayMTU, 1<<16-1)
	}
	if err := errors.Join(errs...); err != nil {
		return Options{}, err
	}
	return Options{uint32(vni), uint16(port), in.MTU, in.GBP, in.Learning, in.DirectRouting}, nil
}
