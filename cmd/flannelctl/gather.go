package main

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"flanneld/api"
	"flanneld/backend/check"
	"flanneld/doctor"
	"flanneld/ip"
	"flanneld/options"
	"flanneld/probe"
	"flanneld/subnet"
)

// gather collects all facts, once.
func gather(ctx context.Context, a *app) *doctor.Facts {
	f := &doctor.Facts{Now: time.Now(), SubnetFile: a.subnetFile, Socket: a.daemon().Path()}
	f.Status, f.DaemonErr = ask[api.Status](ctx, a, api.PathStatus)
	if d := f.Status.Daemon; d != nil {
		a.stateDir = d.StateDir
	}
	if f.Status.Backend == "wireguard" {
		f.Sessions = askSessions(ctx, a)
	}
	f.StateFile = subnet.StateFiles(a.stateDir, a.subnetFile)[0]
	f.State, f.StateErr = subnet.ReadState(a.stateDir, a.subnetFile)
	f.Others = subnet.ReadOtherStates(a.stateDir, a.subnetFile)
	f.Env, f.EnvErr = subnet.ReadEnv(a.subnetFile)
	a.gatherStore(ctx, f)
	f.Pod, f.CNI = pod(), readCNI(cniFolder, cniBinFolders)
	f.Routes = readRoutes(ctx)
	f.Rules = readRules(ctx)
	f.Sums = readChecksums()
	k, err := ip.NewKernel(slog.New(slog.DiscardHandler))
	if f.LinksErr = err; err == nil {
		f.Links, f.LinksErr = k.Interfaces()
	}
	f.Derive()
	if f.StoreErr == nil && f.ConfigErr == nil {
		_, f.ConfigErr = check.Network(f.Snapshot.Config) // also the options of the backend
	}
	if err == nil {
		f.Hops = askRoutes(k, f.Peers)
	}
	f.Sysctls = readSysctls(f)
	askPeers(ctx, f)
	pingUnreached(ctx, f)
	return f
}

// askSessions returns what the daemon knows of the sessions of its tunnel; nil: it does not say.
func askSessions(ctx context.Context, a *app) map[netip.Prefix]api.Session {
	peers, err := ask[[]api.Peer](ctx, a, api.PathPeers)
	if err != nil {
		return nil // the check of the daemon says why
	}
	out := map[netip.Prefix]api.Session{}
	for _, p := range peers {
		if p.Session != nil {
			out[p.Subnet] = *p.Session
		}
	}
	return out
}

func (a *app) gatherStore(ctx context.Context, f *doctor.Facts) {
	access, err := a.access(ctx)
	f.Store = doctor.Store{Endpoints: access.Endpoints, Prefix: access.Prefix, From: a.storeFrom}
	if err == nil && access.Kubernetes {
		gatherCluster(ctx, a, f)
		err = doctor.ErrKubernetes
	}
	if f.StoreErr = err; err != nil {
		return
	}
	s, err := a.open(ctx)
	if f.StoreErr = err; err != nil {
		return
	}
	defer s.Close()
	if f.Snapshot, f.StoreErr = s.List(ctx); f.StoreErr != nil {
		return
	}
	f.WriteErr = s.MayWrite(ctx)
	f.Store.Clocks = readClocks(ctx, access.Endpoints)
}

// askRoutes asks the kernel where it would send packets to each peer.
func askRoutes(k ip.Kernel, peers []subnet.Lease) map[netip.Prefix]doctor.Hop {
	out := map[netip.Prefix]doctor.Hop{}
	for _, l := range peers {
		hop, err := k.RouteTo(l.Subnet.Addr().Next())
		out[l.Subnet] = doctor.Hop{Hop: hop, Err: err}
	}
	return out
}

const mostProbed = 16 // peers that a diagnosis asks

// askPeers asks peers over the tunnel, from this host's own address in it.
func askPeers(ctx context.Context, f *doctor.Facts) {
	port := options.Defaults().ProbePort
	if d := f.Status.Daemon; d != nil {
		port = d.ProbePort
	}
	switch {
	case port == 0:
		f.NoProbes = "probes are switched off (-probe-port)"
	case f.Config.BackendType == "alloc":
		f.NoProbes = "the backend alloc carries no packets"
	case len(f.Subnets) == 0:
		f.NoProbes = "this host has no subnet"
	}
	if f.NoProbes != "" {
		return
	}
	f.Probes = map[netip.Prefix]probe.Result{}
	for _, own := range f.Subnets {
		local, targets := probeTargets(f, own)
		of := map[netip.Addr]netip.Prefix{}
		var list []probe.Target
		for p, t := range targets {
			of[t.Addr] = p
			list = append(list, t)
		}
		results, err := probe.Ask(ctx, local, port, list)
		if err != nil {
			f.ProbeErr = err
		}
		for a, r := range results {
			f.Probes[of[a]] = r
		}
	}
}

// probeTargets returns the peers to ask from one of the own subnets, and the address to ask from: those of the
// tunnel, or of the hosts where there is none.
func probeTargets(f *doctor.Facts, own netip.Prefix) (local netip.Addr, targets map[netip.Prefix]probe.Target) {
	tunnel := len(f.Devices) > 0
	if local = own.Addr(); !tunnel {
		local = publicAddr(f, own)
	}
	targets = map[netip.Prefix]probe.Target{}
	for _, l := range f.Peers {
		addr := l.Subnet.Addr()
		if !tunnel {
			addr = l.PublicIP
		}
		if f.Records[l.Subnet].Identity == "" || addr.Is4() != local.Is4() || len(targets) == mostProbed {
			continue
		}
		targets[l.Subnet] = probe.Target{Addr: addr, MTU: f.MTU, Full: true}
	}
	return local, targets
}

// publicAddr returns the address that this host tells its peers.
func publicAddr(f *doctor.Facts, own netip.Prefix) netip.Addr {
	for _, a := range f.Status.Addresses {
		if a.Is4() == own.Addr().Is4() {
			return a
		}
	}
	for _, l := range f.State.Own.Leases {
		if l.Subnet == own {
			return l.PublicIP
		}
	}
	return netip.Addr{}
}

// pingUnreached asks the hosts of a few peers that do not answer probes, on the underlay and through the tunnel.
func pingUnreached(ctx context.Context, f *doctor.Facts) {
	f.Pings = map[netip.Addr]bool{}
	lost := f.Unreached()
	for _, p := range lost[:min(len(lost), doctor.MostPinged)] {
		if f.Probes[p].Silent() {
			continue
		}
		public := f.Lease(p).PublicIP
		if f.Pings[public] = pings(ctx, public); f.Pings[public] && len(f.Devices) > 0 {
			f.Pings[p.Addr()] = pings(ctx, p.Addr())
		}
	}
}
