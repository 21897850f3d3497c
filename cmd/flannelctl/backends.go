package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"flanneld/backend/alloc"
	"flanneld/backend/hostgw"
	"flanneld/backend/udp"
	"flanneld/backend/vxlan"
	wireguard "flanneld/backend/wireguard/options"
	"flanneld/subnet"
)

// backends are the types of a network, each with the check of its options.
var backends = map[string]func(options []byte) error{
	wireguard.Type: checkOptions(wireguard.Parse),
	vxlan.Type:     checkOptions(vxlan.ParseOptions),
	udp.Type:       checkOptions(udp.ParseOptions),
	hostgw.Type:    func([]byte) error { return nil },
	alloc.Type:     func([]byte) error { return nil },
}

func checkOptions[T any](parse func([]byte) (T, error)) func([]byte) error {
	return func(options []byte) error {
		_, err := parse(options)
		return err
	}
}

// parseNetwork reads a network configuration, the options of its backend included.
func parseNetwork(text []byte) (subnet.Config, error) {
	c, err := subnet.ParseConfig(text)
	if err != nil {
		return c, err
	}
	check, ok := backends[c.BackendType]
	if !ok {
		return c, fmt.Errorf("the backend type %q is not available, want %s", c.BackendType,
			strings.Join(slices.Sorted(maps.Keys(backends)), ", "))
	}
	return c, check(c.Backend)
}
