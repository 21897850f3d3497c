package main

import (
	"net/netip"
	"os"
	"time"

	"flanneld/api"
	"flanneld/backend/check"
	"flanneld/options"
	"flanneld/redact"
	"flanneld/serve"
)

// fixed returns what the status says of the process itself.
func (d *process) fixed() api.Status {
	host, _ := os.Hostname() // an empty name says as much
	s := api.Status{
		Version: version, Host: host, Identity: d.state.Identity, Started: time.Now().UTC(),
		Devices: []string{}, Addresses: []netip.Addr{}, PublicIPs: []netip.Addr{}, Subnets: []netip.Prefix{},
		Daemon: &api.Daemon{
			PID: os.Getpid(), SubnetFile: d.o.SubnetFile, StateDir: d.o.StateDir, Prefix: d.o.EtcdPrefix, EmbeddedStore: d.o.EtcdEmbedded,
			ProbePort: d.o.ProbePort, IPMasq: d.o.IPMasq, ForwardRules: d.o.IPTablesForwardRules, ConfigFile: d.o.NetConfigPath,
		},
	}
	for _, e := range d.o.EtcdEndpoints {
		s.Daemon.Endpoints = append(s.Daemon.Endpoints, options.WithoutUser(e))
	}
	if addr, ok := d.o.Healthz(); ok {
		s.Daemon.Healthz = addr.String()
	}
	return s
}

// health returns the server for whoever may reach the health port.
func (d *process) health() serve.Health {
	addr, _ := d.o.Healthz() // without a port: no server
	return serve.Health{
		Addr: addr, Hosts: d.o.HealthzHosts, Alive: d.status.Alive, Ready: d.status.Ready, Status: func() any { return d.publicStatus() },
		Metrics: d.metrics.Handler(), Log: d.log,
		Page: serve.StatusPage(serve.PageSources{
			Status: d.publicStatus, Peers: d.status.Peers, Events: d.journal.Events, Traffic: serve.Traffic,
		}),
	}
}

// publicStatus is the status for whoever may reach the health server: without what concerns this host's files and the store.
func (d *process) publicStatus() api.Status {
	s := d.status.Report()
	s.Daemon, s.Config = nil, redact.Config(s.Config)
	return s
}

// socket returns the server for the operator of this host.
func (d *process) socket() serve.Socket {
	answers := serve.Answers{
		Ready:    d.status.Readiness,
		Status:   d.status.Report,
		Leases:   d.status.Leases,
		Peers:    d.status.Peers,
		Events:   d.journal.Events,
		Store:    d.storeAccess,
		Validate: validateConfig,
		Drain:    d.drain,
		Rotate:   d.rotate,
	}
	if d.o.KubeSubnetMgr {
		answers.Kubernetes = d.inspection
	}
	return serve.Socket{Path: api.SocketPath(d.o.SubnetFile), Log: d.log, Handler: answers.Handler()}
}

func (d *process) storeAccess() api.Store {
	if d.o.KubeSubnetMgr {
		return api.Store{Kubernetes: true}
	}
	return api.Store{
		Endpoints: d.o.EtcdEndpoints, Prefix: d.o.EtcdPrefix, CAFile: d.o.EtcdCAFile, CertFile: d.o.EtcdCertfile, KeyFile: d.o.EtcdKeyfile,
		Username: string(d.o.EtcdUsername), Password: string(d.o.EtcdPassword),
	}
}

// validateConfig says what is wrong with a network configuration, its backend included.
func validateConfig(text []byte) error {
	_, err := check.Network(text)
	return err
}
