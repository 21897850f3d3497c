package subnet

import (
	"errors"
	"fmt"
	"slices"
)

// Following is how a host follows changes of its network configuration while it runs.
type Following struct {
	// Read reads a configuration, and says also what is wrong with its backend.
	Read func(text []byte) (Config, error)
	// Adjusts reports whether the main backends of two configurations differ only in options that hosts may change one by
	// one. nil: they never do.
	Adjusts func(now, then Config) bool
	// Follow has the host use the backends of a configuration; the error says why it does not. nil: a change of them waits
	// for a restart.
	Follow func(Config) error
}

// To returns the configuration of a text, which the host has followed to; the error says why it has not. What can take
// effect at once is the range of later leases, options of the backend, and the backends where the network moves from
// one to another; anything else waits for a restart, and nothing breaks meanwhile.
func (f Following) To(text []byte, now Config) (Config, error) {
	c, err := f.Read(text)
	if err != nil {
		return Config{}, fmt.Errorf("the network configuration is invalid, the previous one stays in use: %w", err)
	}
	same := c.SameSettings(now)
	switch {
	case f.Follow == nil && !same, !c.FollowedFrom(now) && !f.adjusts(now, c):
		return Config{}, errors.New("the backend in the network configuration has changed: restart flanneld to apply it")
	case !sameRange(c.Pools, now.Pools):
		return Config{}, errors.New("the network in the network configuration has changed: restart flanneld to apply it")
	case same:
		return c, nil
	}
	if err := f.Follow(c); err != nil {
		return Config{}, fmt.Errorf("the backend in the network configuration has changed, and cannot be used: %w", err)
	}
	return c, nil
}

func (f Following) adjusts(now, then Config) bool { return f.Adjusts != nil && f.Adjusts(now, then) }

// sameRange reports whether every lease that is valid under one configuration is valid under the other.
func sameRange(a, b []Pool) bool {
	return slices.EqualFunc(a, b, func(a, b Pool) bool { return a.Network == b.Network && a.SubnetLen == b.SubnetLen })
}

// Kinds returns the types of the backends that a host has at a time, in the order of preference.
func (c Config) Kinds() (types []string) {
	for _, s := range c.Settings() {
		types = append(types, s.Type)
	}
	return types
}
