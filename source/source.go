package source

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"flanneld/api"
	"flanneld/backend/check"
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
	// Peers returns the records of all others, to be remembered over a restart, and the position that they stand at.
	Peers() (subnet.Position, []subnet.Record)
	Inventory() (subnet.Position, []subnet.Listed)
}

// Host is what a source must know of this host. The functions are called once the source runs.
type Host struct {
	Options options.Options
	Version string
	State   subnet.State
	// Attrs returns what a lease of this host says to others.
	Attrs func(netip.Prefix) subnet.Attrs
	// Valid says why a lease of another host is of no use.
	Valid func(subnet.Lease) error
	// Avoid returns ranges that no subnet is chosen from, Reserved those that this host may not take even where it had them before.
	Avoid, Reserved func() []netip.Prefix
	Report          Report
	Log             *slog.Logger
}

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

// WithUnderlay adds the host's own address where peers are told another one.
func WithUnderlay(a subnet.Attrs, own netip.Addr) subnet.Attrs {
	if own.IsValid() && own != a.PublicIP {
		a.Underlay = own
	}
	return a
}

// Access says how an operator of this host reaches the store.
func Access(o options.Options) api.Store {
	if o.KubeSubnetMgr {
		return api.Store{Kubernetes: true}
	}
	return api.Store{
		Endpoints: o.EtcdEndpoints, Prefix: o.EtcdPrefix, CAFile: o.EtcdCAFile, CertFile: o.EtcdCertfile, KeyFile: o.EtcdKeyfile,
		Username: string(o.EtcdUsername), Password: string(o.EtcdPassword),
	}
}
