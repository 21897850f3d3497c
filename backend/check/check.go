// Package check reads the options of every backend without starting one: whether a network configuration can be used is
// the same for the daemon and for flannelctl.
package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	extension "flanneld/backend/extension/options"
	ipip "flanneld/backend/ipip/options"
	udp "flanneld/backend/udp/options"
	vxlan "flanneld/backend/vxlan/options"
	wireguard "flanneld/backend/wireguard/options"
	"flanneld/subnet"
)

// options has the types of backends, each with the check of a configuration that names it. Packages without options are
// not linked for their name.
var options = map[string]func(subnet.Config) error{
	ipip.Type: func(c subnet.Config) error {
		_, err := ipip.Parse(c)
		return err
	},
	vxlan.Type:     parses(vxlan.Parse),
	udp.Type:       parses(udp.Parse),
	wireguard.Type: parses(wireguard.Parse),
	extension.Type: parses(extension.Parse),
	"host-gw":      none,
	"alloc":        none,
}

// replacements are the types that only flannel has or had, each with what to use instead.
var replacements = map[string]string{
	"ipsec":       `use "wireguard", which also encrypts`,
	"aws-vpc":     cloud,
	"ali-vpc":     cloud,
	"gce":         cloud,
	"tencent-vpc": cloud,
}

const cloud = `it wrote routes into the cloud's route table; use "vxlan", which needs no rights in the cloud, ` +
	`or "wireguard", which also encrypts`

func parses[T any](parse func([]byte) (T, error)) func(subnet.Config) error {
	return func(c subnet.Config) error {
		_, err := parse(c.Backend)
		return err
	}
}

func none(subnet.Config) error { return nil }

// Config says what is wrong with the backend that a network configuration names.
func Config(c subnet.Config) error {
	check, ok := options[c.BackendType]
	if ok {
		return check(c)
	}
	if instead, ok := replacements[c.BackendType]; ok {
		return fmt.Errorf("backend %q is not available: %s", c.BackendType, instead)
	}
	return fmt.Errorf("backend %q is not available: want one of %s", c.BackendType, strings.Join(Types(), ", "))
}

// Types returns the types of backends, sorted.
func Types() []string { return slices.Sorted(maps.Keys(options)) }

// Text says what is wrong with a network configuration, its backends included.
func Text(text []byte) error {
	c, err := Network(text)
	if err != nil {
		return err
	}
	return Moves(c)
}

// Network reads a network configuration, the options of its backend included.
func Network(text []byte) (subnet.Config, error) {
	c, err := subnet.ParseConfig(text)
	if err != nil {
		return c, err
	}
	return c, Config(c)
}
