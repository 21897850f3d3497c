// Package options reads the options of the ipip backend in the network configuration. Whoever checks a configuration
// needs no more of the backend.
package options

import (
	"encoding/json"
	"errors"
	"fmt"

	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration, and in records.
const Type = "ipip"

// Options are the options of the backend in the network configuration.
type Options struct {
	DirectRouting bool // route directly to peers on the same link
}

// Parse reads the options of a network configuration, whose networks must be of IPv4.
func Parse(c subnet.Config) (Options, error) {
	var o Options
	for _, n := range c.Networks() {
		if !n.Addr().Is4() {
			return o, errors.New(`backend ipip: it carries IPv4 only: remove EnableIPv6, or use "vxlan", which carries both`)
		}
	}
	if len(c.Backend) > 0 {
		if err := json.Unmarshal(c.Backend, &o); err != nil {
			return o, fmt.Errorf("backend ipip: %w", subnet.WrongType(err))
		}
	}
	return o, nil
}
