package ip

import (
	"errors"

	"golang.org/x/sys/unix"
)

// nameConflicts puts a Conflict in the place of each EEXIST of a route that was to be created. What stands in its place
// can only be found by reading the whole main table, which is done only then.
func (k *LinuxKernel) nameConflicts(ops []Op, errs map[int]error) error {
	in := map[Object]*Conflict{}
	families := map[uint8]bool{}
	for i, op := range ops {
		if r, ok := op.Object.(Route); ok && op.Create && errors.Is(errs[i], unix.EEXIST) {
			c := &Conflict{Want: r, Found: Route{Dst: r.Dst, Metric: r.Metric, Odd: true}} // of a kind that is not decoded
			errs[i], in[keyOf(r)], families[familyOf(r.Dst.Addr())] = c, c, true
		}
	}
	for family := range families {
		err := k.repeat(func() error {
			_, linkNames, err := k.dumpLinks()
			if err != nil {
				return err
			}
			return k.sock.dump(unix.RTM_GETROUTE, func(data []byte) {
				r, ok := decodeRoute(data, linkNames)
				if c := in[keyOf(r)]; ok && c != nil && c.Found.Protocol == 0 { // the first of several is the one in force
					c.Found = r
				}
			}, routeFilter{}.request(family)...)
		})
		if err != nil {
			return err
		}
	}
	for i, op := range ops {
		if c := (*Conflict)(nil); errors.As(errs[i], &c) && op.Object == Object(c.Found) {
			delete(errs, i) // stands already
		}
	}
	return nil
}
