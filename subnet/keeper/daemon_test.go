package keeper_test

import (
	"context"
	"sync"

	"flanneld/subnet"
	"flanneld/subnet/keeper"
)

// daemon is the part of flanneld that makes a keeper: it waits for the configuration first.
type daemon struct {
	store subnet.Store
	o     keeper.Options

	mu      sync.Mutex // guards all below
	keeper  *keeper.Keeper
	waiting subnet.Status // for the configuration
}

func newDaemon(store subnet.Store, o keeper.Options) *daemon { return &daemon{store: store, o: o} }

// Run runs a keeper as soon as there is a configuration, until ctx ends.
func (d *daemon) Run(ctx context.Context) error {
	n, err := keeper.WaitConfig(ctx, d.store, keeper.ConfigOptions{
		Prefix: d.o.Prefix, Check: d.o.Check, State: d.o.State, Log: d.o.Log,
		Report: func(s subnet.Status) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.waiting = s
		},
	})
	if err != nil {
		return nil
	}
	k := keeper.New(d.store, n, d.o)
	k.LeaveReserved()
	d.mu.Lock()
	d.keeper = k
	d.mu.Unlock()
	return k.Run(ctx)
}

func (d *daemon) running() *keeper.Keeper {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keeper
}

func (d *daemon) View() subnet.View {
	if k := d.running(); k != nil {
		return k.View()
	}
	return subnet.View{Status: d.Status()}
}

func (d *daemon) Status() subnet.Status {
	if k := d.running(); k != nil {
		return k.Status()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting
}

func (d *daemon) Refresh() {
	if k := d.running(); k != nil {
		k.Refresh()
	}
}

func (d *daemon) Memory() subnet.Memory {
	if k := d.running(); k != nil {
		return k.Memory()
	}
	return d.o.State.Memory
}
