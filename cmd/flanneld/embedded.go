package main

import (
	"context"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"flanneld/subnet/etcdv3/member"
)

// memberWait is how long the embedded etcd is waited for before the network is joined without it.
const memberWait = 5 * time.Second

// runMember keeps the embedded etcd running, in g, and returns once it serves or has failed. Its failures are shown, and end nothing:
// this host and all others go on without a store. It is offered the network configuration whenever it begins to serve, for its data
// may have been moved away.
func (d *process) runMember(ctx context.Context, g *errgroup.Group) {
	d.status.Waiting("starting the embedded etcd")
	told, served := make(chan struct{}, 1), make(chan struct{}, 1)
	o := member.Options{Dir: filepath.Join(d.o.StateDir, "etcd"), Listen: d.o.EtcdEmbeddedListen, Log: d.log}
	last := ""
	g.Go(func() error {
		member.Run(ctx, o, func(err error) {
			d.status.Member(err)
			switch {
			case err == nil:
				last = ""
				poke(served)
			case err.Error() != last:
				last = err.Error()
				d.log.Warn("embedded etcd not available", "reason", last)
			}
			poke(told)
		})
		return nil
	})
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-served:
			}
			if err := d.offerConfig(ctx); err != nil {
				return err
			}
		}
	})
	select {
	case <-ctx.Done():
	case <-told:
	case <-time.After(memberWait):
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
