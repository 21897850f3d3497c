package vxlan

import "flanneld/backend/vxlan/options"

// Options are the options of the backend in the network configuration.
type Options options.Options

// ParseOptions reads the object "Backend" of the network configuration. The error joins all that is wrong.
func ParseOptions(raw []byte) (Options, error) {
	o, err := options.Parse(raw)
	return Options(o), err
}
