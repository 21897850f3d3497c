package main

import (
	"log/slog"
	"net/netip"

	"flanneld/backend"
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
func tunnelOf(p backend.Planner) firewall.Ingress {
	i, ok := p.(backend.Ingress)
	if !ok {
		return firewall.Ingress{}
	}
	port, vni := i.Ingress()
	return firewall.Ingress{Port: port, VXLAN: vni != 0, VNI: vni}
}

// withUnderlay adds the host's own address where peers are told another one.
func withUnderlay(a subnet.Attrs, own netip.Addr) subnet.Attrs {
	if own.IsValid() && own != a.PublicIP {
		a.Underlay = own
	}
	return a
}
