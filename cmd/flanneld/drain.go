package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"flanneld/api"
	"flanneld/backend"
	"flanneld/ip"
	"flanneld/subnet"
)

// drainWait is how long a request to drain waits for a daemon that has not joined yet.
const drainWait = 3 * time.Second

// drainRequest ends join: the host is to leave the network.
//
//	joined ──drain──▶ manager and loop end ──▶ record deleted ──▶ kernel, files cleaned ──▶ idle until the process ends
//	   ▲                                            │ store away
//	   └────────────────────────────────────────────┘
type drainRequest struct {
	answer  chan drainAnswer // capacity 1
	backend *backend.Loop
}

type drainAnswer struct {
	api.Drained
	err error
}

func (*drainRequest) Error() string { return "drained by the operator" }

// drain has the host leave the network, and returns when it has. Any goroutine may call it.
func (d *process) drain(ctx context.Context) (api.Drained, error) {
	if d.o.KubeSubnetMgr {
		return api.Drained{}, errors.New("the subnet belongs to the Node object: to take this node out of the network, " +
			"run kubectl drain and kubectl delete node")
	}
	notJoined := func() error {
		return fmt.Errorf("the daemon has not joined the network: %s", d.status.Readiness().Reason)
	}
	store := d.store.Load()
	if store == nil {
		return api.Drained{}, notJoined()
	}
	if _, err := store.List(ctx); err != nil {
		return api.Drained{}, fmt.Errorf("the lease cannot be given back, so nothing was changed: %w", err)
	}
	req := &drainRequest{answer: make(chan drainAnswer, 1)}
	select {
	case d.drains <- req:
	case <-ctx.Done():
		return api.Drained{}, ctx.Err()
	case <-time.After(drainWait):
		return api.Drained{}, notJoined()
	}
	select {
	case a := <-req.answer:
		return a.Drained, a.err
	case <-ctx.Done():
		return api.Drained{}, ctx.Err()
	}
}

// awaitDrain returns the request to drain, as an error, or nil when ctx ends.
func (d *process) awaitDrain(ctx context.Context, b *backend.Loop) error {
	select {
	case <-ctx.Done():
		return nil
	case req := <-d.drains:
		req.backend = b
		return req
	}
}

// leave answers a request after all that would write again has ended. It reports whether the host has left; else it is to join again.
func (d *process) leave(ctx context.Context, req *drainRequest) bool {
	out, err := d.giveBack(ctx)
	if err != nil {
		d.log.Error("drain failed, joining again", "error", err)
		st, loadErr := d.stateDir.Load()
		if loadErr != nil {
			d.log.Warn("saved state not used", "reason", loadErr)
		}
		d.state = st
		req.answer <- drainAnswer{err: fmt.Errorf("the lease cannot be given back, so nothing was changed: %w", err)}
		return false
	}
	out.Removed, err = d.cleanKernel(req.backend)
	err = errors.Join(err, d.policy.Remove(), d.forget())
	d.status.Leave()
	d.log.Info("drained by the operator: restart the daemon to join again", "subnets", out.Subnets, "removed", len(out.Removed))
	req.answer <- drainAnswer{out, err}
	return true
}

// giveBack deletes the record of this host; a reservation stays, it is the operator's.
func (d *process) giveBack(ctx context.Context) (api.Drained, error) {
	out := api.Drained{Subnets: []netip.Prefix{}, Removed: []string{}}
	store := d.store.Load()
	snap, err := store.List(ctx)
	if err != nil {
		return out, err
	}
	for _, e := range snap.Entries {
		if e.Identity != d.state.Identity || e.LeaseID == 0 {
			continue
		}
		if err := store.Delete(ctx, *e); err != nil {
			return out, err
		}
		out.Subnets = append(out.Subnets, e.Prefixes()...)
	}
	return out, nil
}

func (d *process) cleanKernel(b *backend.Loop) ([]string, error) {
	removed := []string{}
	ops, err := ip.Remains(d.kernel, b.Scope())
	if err != nil {
		return removed, err
	}
	for _, op := range ops {
		removed = append(removed, fmt.Sprintf("%s %s", op.Object.Kind(), op.Object))
	}
	return removed, d.kernel.Apply(ops)
}

// forget removes what would bring the lease back at the next start, the identity excepted.
func (d *process) forget() error {
	d.state.Own, d.state.Links, d.state.Networks, d.state.Peers, d.state.Until = subnet.Record{}, nil, nil, nil, time.Time{}
	err := os.Remove(d.o.SubnetFile)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, d.stateDir.Save(d.state))
}
