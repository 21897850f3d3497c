package drain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"flanneld/api"
	"flanneld/ip"
	"flanneld/subnet"
)

// Host is what is taken out of the network. All that would write again has ended before.
type Host struct {
	Store      Store
	Kernel     ip.Kernel
	Scope      ip.Scope // what the backend may have left in the kernel
	Firewall   Firewall
	SubnetFile string
	StateDir   *subnet.StateDir
}

// Firewall is what is asked of the firewall.
type Firewall interface {
	// Remove takes the rules away.
	Remove() error
}

// Leave takes the host out of the network, and forgets what would bring the lease back at the next start, the identity
// excepted. It reports false if the lease cannot be given back: nothing was changed then, and the host is to join
// again.
func (h Host) Leave(ctx context.Context, st *subnet.State) (out api.Drained, left bool, err error) {
	out, err = h.giveBack(ctx, st.Identity)
	if err != nil {
		return api.Drained{}, false, kept(err)
	}
	out.Removed, err = h.cleanKernel()
	return out, true, errors.Join(err, h.Firewall.Remove(), h.forget(st))
}

// giveBack deletes the record of this host; a reservation stays, it is the operator's.
func (h Host) giveBack(ctx context.Context, identity string) (api.Drained, error) {
	out := api.Drained{Subnets: []netip.Prefix{}, Removed: []string{}}
	snap, err := h.Store.List(ctx)
	if err != nil {
		return out, err
	}
	for _, e := range snap.Entries {
		if e.Identity != identity || e.LeaseID == 0 {
			continue
		}
		if err := h.Store.Delete(ctx, *e); err != nil {
			return out, err
		}
		out.Subnets = append(out.Subnets, e.Prefixes()...)
	}
	return out, nil
}

func (h Host) cleanKernel() ([]string, error) {
	removed := []string{}
	ops, err := ip.Remains(h.Kernel, h.Scope)
	if err != nil {
		return removed, err
	}
	for _, op := range ops {
		removed = append(removed, fmt.Sprintf("%s %s", op.Object.Kind(), op.Object))
	}
	return removed, h.Kernel.Apply(ops)
}

func (h Host) forget(st *subnet.State) error {
	st.Own, st.Links, st.Networks, st.Memory, st.Until = subnet.Record{}, nil, nil, subnet.Memory{}, time.Time{}
	err := os.Remove(h.SubnetFile)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, h.StateDir.Save(*st))
}
