package main

import (
	"net/netip"
	"os"
	"time"

	"flanneld/api"
	"flanneld/subnet"
)

// fixed returns what the status says of the process itself.
func (d *process) fixed() api.Status {
	host, _ := os.Hostname() // an empty name says as much
	s := api.Status{
		Version: version, Host: host, Identity: d.state.Identity, Started: time.Now().UTC(),
		Devices: []string{}, Addresses: []netip.Addr{}, PublicIPs: []netip.Addr{}, Subnets: []netip.Prefix{},
		Daemon: &api.Daemon{
			PID: os.Getpid(), SubnetFile: d.o.SubnetFile, StateDir: d.o.StateDir, Prefix: d.o.EtcdPrefix, EmbeddedStore: d.o.EtcdEmbedded,
			IPMasq: d.o.IPMasq, ForwardRules: d.o.IPTablesForwardRules, ConfigFile: d.o.NetConfigPath,
		},
	}
	for _, e := range d.o.EtcdEndpoints {
		s.Daemon.Endpoints = append(s.Daemon.Endpoints, withoutUser(e))
	}
	if addr, ok := d.o.Healthz(); ok {
		s.Daemon.Healthz = addr.String()
	}
	return s
}

// publicStatus is the status for whoever may reach the health server: without what concerns this host's files and the store.
func (d *process) publicStatus() api.Status {
	s := d.status.report()
	s.Daemon = nil
	return s
}

// socket returns the server for the operator of this host.
func (d *process) socket() Socket {
	return Socket{Path: api.SocketPath(d.o.SubnetFile), Log: d.log, Handler: Answers{
		Ready:    d.status.readiness,
		Status:   d.status.report,
		Leases:   d.status.leases,
		Peers:    d.status.peers,
		Events:   d.journal.Events,
		Store:    d.storeAccess,
		Validate: validateConfig,
		Drain:    d.drain,
	}.Handler()}
}

func (d *process) storeAccess() api.Store {
	return api.Store{
		Endpoints: d.o.EtcdEndpoints, Prefix: d.o.EtcdPrefix, CAFile: d.o.EtcdCAFile, CertFile: d.o.EtcdCertfile, KeyFile: d.o.EtcdKeyfile,
		Username: string(d.o.EtcdUsername), Password: string(d.o.EtcdPassword),
	}
}

// validateConfig says what is wrong with a network configuration, its backend included.
func validateConfig(text []byte) error {
	c, err := subnet.ParseConfig(text)
	if err != nil {
		return err
	}
	return checkBackend(c)
}
