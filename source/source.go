package source

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"flanneld/api"
	"flanneld/backend/check"
	"flanneld/ip"
	"flanneld/options"
	"flanneld/subnet"
)

// Source is where the leases come from, and what the daemon asks of it.
type Source interface {
	// View returns the present leases.
	View() subnet.View
	// Changed receives after every change of them.
	Changed() <-chan struct{}
	// Run follows the store until ctx ends, and returns nil then.
	Run(ctx context.Context) error
	// Refresh says that what this host publishes may have changed.
	Refresh()
	Status() subnet.Status
	Position() subnet.Position
	// Memory returns what is to be remembered over a restart.
	Memory() subnet.Memory
	Inventory() (subnet.Position, []subnet.Listed)
}

// Conditioned is a source that shows others that pods of this host reach the network: SetReady is called once they do.
type Conditioned interface{ SetReady() }

// Node is what this host is to use once its Node object is known.
type Node struct {
	PublicIPs [2]netip.Addr     // of the flags, else those that the operator gives in annotations; IPv4 and IPv6
	MACs      map[string]string // by device: of an earlier run, also of another implementation
}

// Host is what a source must know of this host. The functions are called once the source runs.
type Host struct {
	Options options.Options
	Version string
	State   subnet.State
	// Follow has the host follow to the backends of a changed network configuration.
	Follow func(subnet.Config) error
	// Backend returns the backend, Underlay the interface in use, and Connected what this host reaches otherwise.
	Backend   func() Backend
	Underlay  func() ip.Underlay
	Connected func() Connected
	Report    Report
	Log       *slog.Logger
}

// Backend is what is asked of the backend.
type Backend interface {
	// Attrs returns what this host publishes with the lease of a subnet.
	Attrs(prefix netip.Prefix) subnet.Attrs
	// Valid says why a lease of another host is of no use.
	Valid(l subnet.Lease) error
}

// Connected is what is asked of what this host reaches otherwise of the network's ranges.
type Connected interface {
	// Prefixes returns the ranges that no subnet is chosen from.
	Prefixes() []netip.Prefix
	// Reserved returns those that this host may not take even where it had them before.
	Reserved(underlay string) []netip.Prefix
}

// live is what a source keeps of the host: not the saved state, which is as large as the cluster.
func (h Host) live() Host {
	h.State = subnet.State{}
	return h
}

// attrs returns what a lease of this host says to others: also its own address where peers are told another one.
func (h Host) attrs(p netip.Prefix) subnet.Attrs {
	a := h.Backend().Attrs(p)
	if own := h.Underlay().Addr(p); own.IsValid() && own != a.PublicIP {
		a.Underlay = own
	}
	return a
}

func (h Host) valid(l subnet.Lease) error { return h.Backend().Valid(l) }

// Report is told what is waited for.
type Report interface {
	Waiting(format string, args ...any)
	Awaiting(subnet.Status)
}

// Network names the network that the state of a host belongs to.
func Network(o options.Options) string {
	if o.KubeSubnetMgr {
		return "kubernetes:" + o.KubeAnnotationPrefix
	}
	return o.EtcdPrefix
}

// configOf reads the network configuration from a file.
func configOf(path string) (subnet.Config, []byte, error) {
	text, err := subnet.ReadFile(path, options.MaxConfigSize)
	if err != nil {
		return subnet.Config{}, nil, fmt.Errorf("read -net-config-path: %w", err)
	}
	c, err := check.Network(text)
	if err != nil {
		return subnet.Config{}, nil, fmt.Errorf("network configuration %s: %w", path, err)
	}
	return c, text, nil
}

// Access says how an operator of this host reaches the store.
func Access(o options.Options) api.Store {
	if o.KubeSubnetMgr {
		return api.Store{Kubernetes: true}
	}
	o = Resolve(o)
	return api.Store{
		Endpoints: o.EtcdEndpoints, Prefix: o.EtcdPrefix, CAFile: o.EtcdCAFile, CertFile: o.EtcdCertfile,
		KeyFile:  o.EtcdKeyfile,
		Username: string(o.EtcdUsername), Password: string(o.EtcdPassword),
	}
}

// Describe adds what the status shows of the store, without credentials.
func Describe(d *api.Daemon, o options.Options) {
	if d.Kubernetes, d.Endpoints = o.KubeSubnetMgr, []string{}; d.Kubernetes {
		return
	}
	d.Prefix = o.EtcdPrefix
	for _, e := range o.EtcdEndpoints {
		d.Endpoints = append(d.Endpoints, options.WithoutUser(e))
	}
}
