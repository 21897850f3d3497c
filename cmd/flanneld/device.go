package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"flanneld/backend/ipip"
	"flanneld/backend/udp"
	"flanneld/backend/vxlan"
	"flanneld/backend/wireguard"
	"flanneld/devicelock"
	"flanneld/subnet"
)

// devicePause is how long to wait before a device that another daemon has is tried again.
const devicePause = 2 * time.Second

// devicesOf returns the devices that a network needs, the names that each may have in their order. last are those of the last run.
func devicesOf(c subnet.Config, last []string) [][]string {
	var fixed []string
	switch c.BackendType {
	case vxlan.Type:
		fixed = vxlan.Devices(c)
	case wireguard.Type:
		fixed = wireguard.Devices(c)
	case ipip.Type:
		fixed = []string{ipip.Device}
	case udp.Type:
		names := udp.Devices()
		used := slices.IndexFunc(names, func(name string) bool { return slices.Contains(last, name) })
		if used > 0 {
			names = slices.Concat(names[used:used+1], names[:used], names[used+1:])
		}
		return [][]string{names}
	}
	var out [][]string
	for _, name := range fixed {
		out = append(out, []string{name})
	}
	return out
}

// waitDevices takes the devices of a network as soon as no other daemon has one of them, and returns their names. A host where no lock can be made
// goes on without.
func (d *process) waitDevices(ctx context.Context, l *devicelock.Locks, c subnet.Config) ([]string, error) {
	said := ""
	for {
		names, err := l.All(devicesOf(c, d.state.Links))
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
