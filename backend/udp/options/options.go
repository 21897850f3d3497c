// Package options reads the options of the udp backend in the network configuration. Whoever checks a configuration
// needs no more of the backend.
package options

import (
	"encoding/json"
	"errors"
	"fmt"

	"flanneld/subnet"
)

const minUnderlayMTU = 576 // RFC 791: what every IPv4 host must take

// Type is the name of the backend in the network configuration; records name none.
const Type = "udp"

// Options are the options of the backend in the network configuration.
type Options struct {
	Port    uint16 // UDP port of all hosts
	MTU     int    // of the underlay, in bytes; 0: that of the interface
	Offload bool   // use what the kernel offers to carry many packets in one call
	Kernel  bool   // carry packets inside the kernel, by BPF programs, where that is possible
}

// Parse reads the object "Backend" of the network configuration. The error joins all that is wrong.
func Parse(raw []byte) (Options, error) {
	in := struct {
		Port    int
		MTU     int
		Offload *bool
		Kernel  *bool
	}{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &in); err != nil {
			return Options{}, fmt.Errorf("backend udp: %w", subnet.WrongType(err))
		}
	}
	if in.Port == 0 {
		in.Port = 8285
	}
	var errs []error
	if in.Port < 1 || in.Port > 1<<16-1 {
		errs = append(errs, fmt.Errorf("backend udp: Port is %d, want 1 to 65535", in.Port))
	}
	if in.MTU != 0 && (in.MTU < minUnderlayMTU || in.MTU > 1<<16-1) {
		errs = append(errs, fmt.Errorf("backend udp: MTU is %d, want %d to 65535", in.MTU, minUnderlayMTU))
	}
	if err := errors.Join(errs...); err != nil {
		return Options{}, err
	}
	o := Options{Port: uint16(in.Port), MTU: in.MTU, Offload: in.Offload == nil || *in.Offload}
	o.Kernel = (in.Kernel == nil || *in.Kernel) && o.Offload
	return o, nil
}
