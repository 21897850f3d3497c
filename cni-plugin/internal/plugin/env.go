package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"flanneld/subnet"
)

// mandatory are the lines without which a subnet file is not whole: one of each group.
var mandatory = [][]string{
	{"FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"},
	{"FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"},
	{"FLANNEL_MTU"},
	{"FLANNEL_IPMASQ"},
}

// unknownEnv stands for a subnet file that is gone when something is to be freed. An IPAM plugin finds what a container
// has by the container's name and not by its range, but wants one that is valid; rules of masquerading are looked for.
var unknownEnv = subnet.Env{Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, MTU: 1500}

// readEnv reads the subnet file and sees that it is whole.
func readEnv(path string) (subnet.Env, error) {
	text, err := subnet.ReadFile(path, subnet.MaxEnvSize)
	if errors.Is(err, fs.ErrNotExist) {
		return subnet.Env{}, fmt.Errorf("the subnet file %s does not exist", path)
	}
	if err != nil {
		return subnet.Env{}, fmt.Errorf("read subnet file: %w", err)
	}
	e, err := ParseEnv(text)
	if err != nil {
		return subnet.Env{}, fmt.Errorf("subnet file %s: %w", path, err)
	}
	return e, nil
}

// ParseEnv reads the text of a subnet file, and refuses one that is not whole.
func ParseEnv(text []byte) (subnet.Env, error) {
	var e subnet.Env
	if err := e.UnmarshalText(text); err != nil {
		return subnet.Env{}, err
	}
	if err := whole(e, text); err != nil {
		return subnet.Env{}, err
	}
	return e, nil
}

func whole(e subnet.Env, text []byte) error {
	values := subnet.EnvValues(text)
	var errs []error
	for _, group := range mandatory {
		if !slices.ContainsFunc(group, func(key string) bool { _, ok := values[key]; return ok }) {
			errs = append(errs, fmt.Errorf("the line %s is missing", strings.Join(group, " or ")))
		}
	}
	if len(errs) == 0 && e.MTU <= 0 {
		errs = append(errs, fmt.Errorf("FLANNEL_MTU=%d is no MTU", e.MTU))
	}
	return errors.Join(errs...)
}
