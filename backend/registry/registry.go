// Package registry has one line for each backend: what makes it, and which devices it needs. The check of its options
// is in package backend/check, which links no datapath.
package registry

import (
	"context"
	"errors"
	"time"

	"flanneld/backend"
	"flanneld/backend/alloc"
	"flanneld/backend/check"
	"flanneld/backend/extension"
	"flanneld/backend/hostgw"
	"flanneld/backend/ipip"
	"flanneld/backend/udp"
	"flanneld/backend/vxlan"
	"flanneld/backend/wireguard"
	wgoptions "flanneld/backend/wireguard/options"
	"flanneld/ip"
	"flanneld/retry"
	"flanneld/subnet"
)

// Env is what backends may need of this process.
type Env struct {
	Config subnet.Config
	Host   ip.Host
	Former []subnet.Record    // the peers of the last run
	Files  udp.Keeper         // keeps open files over a restart
	Keys   wgoptions.KeyFiles // where private keys are
}

// entry is one backend. devices returns the devices that a network needs, the names that each may have in their order.
type entry struct {
	create  func(context.Context, Env) (backend.Planner, error)
	devices func(subnet.Config) [][]string
}

var entries = map[string]entry{
	alloc.Type:     {plain(alloc.New), none},
	extension.Type: {newExtension, none},
	hostgw.Type:    {plain(hostgw.New), none},
	ipip.Type:      {plain(ipip.New), fixed(ipip.Devices)},
	udp.Type:       {newUDP, func(subnet.Config) [][]string { return [][]string{udp.Devices()} }},
	vxlan.Type:     {plain(vxlan.New), fixed(vxlan.Devices)},
	wireguard.Type: {newWireGuard, fixed(wireguard.Devices)},
}

// New makes the backend that a network configuration names. What that takes time for ends with ctx.
func New(ctx context.Context, e Env) (backend.Planner, error) {
	b, ok := entries[e.Config.BackendType]
	if !ok {
		return nil, check.Config(e.Config)
	}
	return b.create(ctx, e)
}

// Between two tries of a backend's start.
const (
	firstStartPause = time.Second
	lastStartPause  = 30 * time.Second
)

// Start is New, and runs a command of the operator that fails again until it succeeds: what it needs may come. waiting
// is called when the reason to wait is a new one.
func Start(ctx context.Context, e Env, waiting func(reason error)) (backend.Planner, error) {
	var b backend.Planner
	passes := func(err error) bool {
		failed := (*extension.StartupError)(nil)
		return errors.As(err, &failed)
	}
	loop := retry.Loop{First: firstStartPause, Last: lastStartPause, Again: passes, Waiting: waiting}
	err := loop.Run(ctx, func() (err error) {
		b, err = New(ctx, e)
		return err
	})
	if passes(err) {
		return nil, ctx.Err()
	}
	return b, err
}

// Devices returns the devices that a network needs, the names that each may have in their order.
func Devices(c subnet.Config) [][]string {
	b, ok := entries[c.BackendType]
	if !ok {
		return nil
	}
	return b.devices(c)
}

// plain is the usual case: a backend that needs its configuration and its host.
func plain[B backend.Planner](create func(subnet.Config, ip.Host) (B, error)) func(context.Context,
	Env) (backend.Planner, error) {
	return func(_ context.Context, e Env) (backend.Planner, error) { return create(e.Config, e.Host) }
}

func none(subnet.Config) [][]string { return nil }

// fixed is for devices that have one name each.
func fixed(names func(subnet.Config) []string) func(subnet.Config) [][]string {
	return func(c subnet.Config) (out [][]string) {
		for _, name := range names(c) {
			out = append(out, []string{name})
		}
		return out
	}
}

func newUDP(_ context.Context, e Env) (backend.Planner, error) {
	return udp.New(e.Config, e.Host, e.Files)
}

func newExtension(ctx context.Context, e Env) (backend.Planner, error) {
	return extension.New(ctx, e.Config, e.Host, e.Former)
}

func newWireGuard(_ context.Context, e Env) (backend.Planner, error) {
	return wireguard.New(e.Config, e.Host, e.Keys, e.Files)
}
