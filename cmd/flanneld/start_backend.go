package main

import (
	"context"
	"errors"
	"time"

	"flanneld/backend"
	"flanneld/backend/extension"
	"flanneld/backend/registry"
)

// Between two tries of a backend's start.
const (
	firstStartPause = time.Second
	lastStartPause  = 30 * time.Second
)

// startBackend makes the backend of a network. A command of the operator that fails is run again until it succeeds: what it needs may come.
func (d *process) startBackend(ctx context.Context, e registry.Env) (backend.Planner, error) {
	d.files.Drop(e.Config.BackendType) // of an earlier run with another backend
	said := ""
	for pause := firstStartPause; ; pause = min(2*pause, lastStartPause) {
		b, err := registry.New(ctx, e)
		if failed := (*extension.StartupError)(nil); !errors.As(err, &failed) {
			return b, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if said != err.Error() {
			said = err.Error()
			d.log.Warn("waiting for a command of the network configuration", "error", err)
		}
		d.status.Waiting("%v", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}
