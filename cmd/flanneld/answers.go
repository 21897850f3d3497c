package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"flanneld/api"
	"flanneld/backend/check"
	"flanneld/drain"
	"flanneld/serve"
	"flanneld/source"
	"flanneld/version"
)

// fixed returns what the status says of the process itself.
func (d *daemon) fixed() api.Status {
	host, _ := os.Hostname() // an empty name says as much
	build := version.This()
	s := api.Status{
		Version: build.Version, Build: (*api.Build)(&build), Host: host, Identity: d.state.Identity,
		Started: time.Now().UTC(),
		Devices: []string{}, Addresses: []netip.Addr{}, PublicIPs: []netip.Addr{}, Subnets: []netip.Prefix{},
		Daemon: &api.Daemon{
			PID: os.Getpid(), SubnetFile: d.o.SubnetFile, StateDir: d.o.StateDir, ConfigFile: d.o.NetConfigPath,
			EmbeddedStore: d.o.EtcdEmbedded, ProbePort: d.o.ProbePort,
			IPMasq: d.o.IPMasq, ForwardRules: d.o.IPTablesForwardRules,
		},
	}
	source.Describe(s.Daemon, d.o)
	if addr, ok := d.o.Healthz(); ok {
		s.Daemon.Healthz = addr.String()
	}
	return s
}

// health returns the server for whoever may reach the health port.
func (d *daemon) health() serve.Health {
	addr, _ := d.o.Healthz() // without a port: no server
	return serve.Health{
		Addr: addr, Hosts: d.o.HealthzHosts, Alive: d.status.Alive, Ready: d.status.Ready,
		Status:  func() any { return d.status.Public() },
		Metrics: d.metrics.Handler(), Log: d.log,
		Page: serve.StatusPage(serve.PageSources{
			Status: d.status.Public, Peers: d.status.Peers, Events: d.journal.Events, Traffic: serve.Traffic,
		}),
	}
}

// socket returns the server for the operator of this host.
func (d *daemon) socket() serve.Socket {
	answers := serve.Answers{
		Ready:    d.status.Readiness,
		Status:   d.status.Report,
		Leases:   d.status.Leases,
		Peers:    d.status.Peers,
		Events:   d.journal.Events,
		Store:    func() api.Store { return source.Access(d.o) },
		Validate: check.Text,
		Drain:    d.drain,
		Rotate:   d.rotateKey, Joining: d.etcd,
	}
	if d.o.KubeSubnetMgr {
		answers.Kubernetes = d.kube.Inspect
	}
	return serve.Socket{Path: api.SocketPath(d.o.SubnetFile), Log: d.log, Handler: answers.Handler()}
}

// drain has the host leave the network, and returns when it has. Any goroutine may call it.
func (d *daemon) drain(ctx context.Context) (api.Drained, error) {
	if d.o.KubeSubnetMgr {
		return api.Drained{}, drain.ErrKubernetes
	}
	notJoined := func() error {
		return fmt.Errorf("the daemon has not joined the network: %s", d.status.Readiness().Reason)
	}
	store := d.store.Load()
	if store == nil {
		return api.Drained{}, notJoined()
	}
	return d.drains.Ask(ctx, store, notJoined)
}

// rotateKey has the backend replace the key of this host. Any goroutine may call it.
func (d *daemon) rotateKey(ctx context.Context) (api.Rotated, error) {
	rotate := d.rotate.Load()
	if rotate == nil {
		return api.Rotated{}, errors.New("this host has no key: it has not joined, or the backend is not wireguard")
	}
	public, err := (*rotate)(ctx)
	return api.Rotated{PublicKey: public}, err
}
