package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"flanneld/api"
	"flanneld/ip"
	"flanneld/probe"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

// facts are what the checks look at, gathered once: from the daemon where it answers, else from its state, the store and the kernel.
type facts struct {
	app *app

	status    api.Status
	daemonErr error
	state     subnet.State
	stateErr  error
	env       subnet.Env
	envErr    error

	access   api.Store
	snap     subnet.Snapshot
	storeErr error
	rights   error
	config   subnet.Config
	confErr  error

	kernel    ip.Kernel
	links     []ip.Interface
	kernelErr error
	routes    []route

	subnets []netip.Prefix // own
	devices []string
	mtu     int
	peers   []subnet.Lease // of others, as this host should know them
	hosts   map[netip.Prefix]subnet.Record

	probed    map[netip.Prefix]probe.Result
	probeErr  error
	probeSkip string
}

// route is one line of "ip -j route".
type route struct {
	Dst      string `json:"dst"`
	Gateway  string `json:"gateway"`
	Dev      string `json:"dev"`
	Protocol string `json:"protocol"`
	Type     string `json:"type"`
	prefix   netip.Prefix
}

func gather(ctx context.Context, a *app) *facts {
	f := &facts{app: a, hosts: map[netip.Prefix]subnet.Record{}}
	f.status, f.daemonErr = ask[api.Status](ctx, a, api.PathStatus)
	if d := f.status.Daemon; d != nil {
		a.stateDir = d.StateDir
	}
	f.state, f.stateErr = subnet.PeekState(a.stateDir, a.subnetFile)
	f.env, f.envErr = subnet.ReadEnv(a.subnetFile)
	f.readStore(ctx)
	if f.kernel, f.kernelErr = ip.NewKernel(slog.New(slog.DiscardHandler)); f.kernelErr == nil {
		f.links, f.kernelErr = f.kernel.Interfaces()
	}
	f.readRoutes(ctx)
	f.conclude()
	f.probe(ctx)
	return f
}

func (f *facts) readStore(ctx context.Context) {
	var s *etcdv3.Store
	if f.access, f.storeErr = f.app.access(ctx); f.storeErr != nil {
		return
	}
	if s, f.storeErr = f.app.open(ctx); f.storeErr != nil {
		return
	}
	defer s.Close()
	if f.snap, f.storeErr = s.List(ctx); f.storeErr != nil {
		return
	}
	f.rights = s.MayWrite(ctx)
	f.config, f.confErr = subnet.ParseConfig(f.snap.Config)
}

func (f *facts) readRoutes(ctx context.Context) {
	for _, family := range []string{"-4", "-6"} {
		out, err := exec.CommandContext(ctx, "ip", "-j", family, "route", "show").Output()
		var routes []route
		if err != nil || json.Unmarshal(out, &routes) != nil {
			continue // no iproute2: the checks of routes see none
		}
		for _, r := range routes {
			if p, err := parsePrefix(r.Dst); err == nil {
				r.prefix = p
				f.routes = append(f.routes, r)
			}
		}
	}
}

// parsePrefix reads a destination, where an address alone stands for the whole of it.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// conclude says what this host should have.
func (f *facts) conclude() {
	f.subnets, f.devices, f.mtu = f.status.Subnets, f.status.Devices, f.status.MTU
	if f.daemonErr != nil || len(f.subnets) == 0 {
		f.subnets, f.devices, f.mtu = f.state.Own.Prefixes(), f.state.Links, f.env.MTU
	}
	if f.storeErr != nil || f.confErr != nil {
		f.config, _ = subnet.ParseConfig([]byte(f.state.Config)) // an empty one, where there is none
	}
	records := f.state.Peers
	if f.storeErr == nil {
		records = nil
		for _, e := range f.snap.Entries {
			if !unclaimed(*e) {
				records = append(records, e.Record)
			}
		}
	}
	for _, r := range records {
		if r.Identity != "" && r.Identity == f.state.Identity {
			continue
		}
		for _, l := range r.Leases {
			f.hosts[l.Subnet] = r
			pool, ok := f.config.Pool(l.Subnet)
			if ok && pool.Holds(l.Subnet) && l.BackendType == f.config.BackendType && !slices.Contains(f.subnets, l.Subnet) {
				f.peers = append(f.peers, l)
			}
		}
	}
}

// unclaimed reports whether a record is a reservation whose host has not taken it yet: nobody is there to be reached.
func unclaimed(e subnet.Entry) bool {
	return e.LeaseID == 0 && e.Identity == "" && !slices.ContainsFunc(e.Leases, func(l subnet.Lease) bool { return l.BackendData != "" })
}

// link returns a link by its name.
func (f *facts) link(name string) (ip.Interface, bool) {
	i := slices.IndexFunc(f.links, func(l ip.Interface) bool { return l.Name == name })
	if i < 0 {
		return ip.Interface{}, false
	}
	return f.links[i], true
}

// inNetwork reports whether a range lies in or over the network.
func (f *facts) inNetwork(p netip.Prefix) bool {
	return slices.ContainsFunc(f.config.Networks(), p.Overlaps)
}

// ownSubnet reports whether an address is of this host's subnets.
func (f *facts) ownSubnet(a netip.Addr) bool {
	return slices.ContainsFunc(f.subnets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// sysctl reads a number below /proc/sys.
func sysctl(key string) (int, error) {
	text, err := os.ReadFile(filepath.Join("/proc/sys", key))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// mostProbed bounds how many peers a diagnosis asks.
const mostProbed = 16

// probe asks peers over the tunnel, from this host's own address in it.
func (f *facts) probe(ctx context.Context) {
	port := uint16(8473)
	if d := f.status.Daemon; d != nil {
		port = d.ProbePort
	}
	tunnel := len(f.devices) > 0
	switch {
	case port == 0:
		f.probeSkip = "probes are switched off (-probe-port)"
	case f.config.BackendType == "alloc":
		f.probeSkip = "the backend alloc carries nothing"
	case len(f.subnets) == 0:
		f.probeSkip = "this host has no subnet"
	}
	if f.probeSkip != "" {
		return
	}
	f.probed = map[netip.Prefix]probe.Result{}
	for _, own := range f.subnets {
		local, targets, of := own.Addr(), []probe.Target(nil), map[netip.Addr]netip.Prefix{}
		if !tunnel {
			local = f.ownPublic(own)
		}
		for _, l := range f.peers {
			addr := l.Subnet.Addr()
			if !tunnel {
				addr = l.PublicIP
			}
			if f.hosts[l.Subnet].Identity == "" || addr.Is4() != local.Is4() || len(targets) == mostProbed {
				continue
			}
			of[addr] = l.Subnet
			targets = append(targets, probe.Target{Addr: addr, MTU: f.mtu, Full: true})
		}
		results, err := probe.Ask(ctx, local, port, targets)
		if err != nil {
			f.probeErr = err
		}
		for a, r := range results {
			f.probed[of[a]] = r
		}
	}
}

// ownPublic returns the address that this host tells its peers.
func (f *facts) ownPublic(own netip.Prefix) netip.Addr {
	for _, a := range f.status.Addresses {
		if a.Is4() == own.Addr().Is4() {
			return a
		}
	}
	for _, l := range f.state.Own.Leases {
		if l.Subnet == own {
			return l.PublicIP
		}
	}
	return netip.Addr{}
}

// named names a peer for a message.
func (f *facts) named(p netip.Prefix) string {
	r := f.hosts[p]
	return fmt.Sprintf("%s at %s", p, r)
}
