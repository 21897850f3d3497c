package ip

import "fmt"

// Remains returns the operations that delete all that stands in the kernel of a scope, in the order to apply them. What
// stands on a device goes with it, and is not named.
func Remains(k Kernel, s Scope) ([]Op, error) {
	have, err := k.Dump(s)
	if err != nil {
		return nil, fmt.Errorf("read what is left in the kernel: %w", err)
	}
	devices := map[string]bool{}
	for _, l := range have.Links {
		devices[l.Name] = true
	}
	left := State{Links: have.Links, Addrs: notOn(devices, have.Addrs), FDB: notOn(devices, have.FDB),
		Neighs: notOn(devices, have.Neighs), Routes: notOn(devices, have.Routes)}
	return Diff(left.Snapshot(), Snapshot{}), nil
}

// notOn returns the objects that stand on none of the devices.
func notOn[T Object](devices map[string]bool, objects []T) []T {
	var out []T
	for _, o := range objects {
		if !devices[o.Device()] {
			out = append(out, o)
		}
	}
	return out
}
