package main

import (
	"context"
	"errors"
	"time"

	"flanneld/backend/registry"
	"flanneld/devicelock"
	"flanneld/subnet"
)

// devicePause is how long to wait before a device that another daemon has is tried again.
const devicePause = 2 * time.Second

// waitDevices takes the devices of a network as soon as no other daemon has one of them, and returns their names. A host where no lock can be made
// goes on without.
func (d *process) waitDevices(ctx context.Context, l *devicelock.Locks, c subnet.Config) ([]string, error) {
	said := ""
	for {
		names, err := l.All(registry.Devices(c), d.state.Links)
		if taken := (*devicelock.TakenError)(nil); !errors.As(err, &taken) {
			if err != nil {
				d.log.Warn("devices not locked: a second flanneld with the same device would not be noticed", "error", err)
			}
			return names, nil
		}
		if said != err.Error() {
			said = err.Error()
			d.log.Warn("waiting for a device", "reason", err)
		}
		d.status.Waiting("%v", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(devicePause):
		}
	}
}
