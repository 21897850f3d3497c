package main

import (
	"context"
	"errors"

	"flanneld/api"
)

// keyed is a backend whose hosts have keys.
type keyed interface {
	Rotate(ctx context.Context, publish func()) (public string, err error)
}

// rotator replaces the key of a joined host.
type rotator func(context.Context) (public string, err error)

// rotate has the backend replace the key of this host. Any goroutine may call it.
func (d *process) rotate(ctx context.Context) (api.Rotated, error) {
	r := d.rotator.Load()
	if r == nil {
		return api.Rotated{}, errors.New("this host has no key: the backend is not wireguard, or the daemon has not joined the network")
	}
	public, err := (*r)(ctx)
	return api.Rotated{PublicKey: public}, err
}
