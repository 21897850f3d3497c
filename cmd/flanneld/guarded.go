package main

import (
	"log/slog"
	"net/netip"

	"flanneld/backend"
	"flanneld/backend/vxlan"
	"flanneld/firewall"
	"flanneld/options"
	"flanneld/subnet"
)

func firewallOptions(o options.Options, log *slog.Logger) firewall.PolicyOptions {
	network := ""
	if o.EtcdPrefix != options.Defaults().EtcdPrefix {
		network = o.EtcdPrefix
	}
	return firewall.PolicyOptions{
		Network: network, Masquerade: o.IPMasq, FullyRandom: !o.IPMasqFullyRandomDisable, Forward: o.IPTablesForwardRules,
		StrictIngress: o.StrictIngress, Resync: o.IPTablesResync, Log: log,
	}
}

// tunnelOf returns the port that packets of peers arrive at; the zero value if it is not to be closed to others.
func tunnelOf(c subnet.Config) firewall.Ingress {
	if o, err := vxlan.ParseOptions(c.Backend); c.BackendType == vxlan.Type && err == nil {
		return firewall.Ingress{Port: o.Port, VXLAN: true, VNI: o.VNI}
	}
	return firewall.Ingress{}
}

// guarded is a backend behind the firewall: packets of a peer are admitted before any route leads to it.
type guarded struct {
	backend.Backend
	firewall *firewall.Applier
}

// Set implements backend.Backend.
func (g guarded) Set(self []subnet.Lease, peers subnet.Peers) error {
	g.firewall.Set(self, peers)
	return g.Backend.Set(self, peers)
}

// withUnderlay adds the host's own address where peers are told another one.
func withUnderlay(a subnet.Attrs, own netip.Addr) subnet.Attrs {
	if own.IsValid() && own != a.PublicIP {
		a.Underlay = own
	}
	return a
}
