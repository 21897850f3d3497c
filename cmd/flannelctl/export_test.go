package main

import (
	"context"
	"net/netip"

	"flanneld/api"
	"flanneld/ip"
	"flanneld/probe"
	"flanneld/subnet"
)

// What tests look at.
var (
	WithoutSecrets = withoutSecrets
	Words          = words
	FlannelRules   = flannelRules
	SNMP           = snmp
	Orphans        = orphans
	ParseSubnets   = parseSubnets
)

// Case is a situation that cannot be made in a namespace.
type Case struct {
	Endpoint string              // of the store
	Peers    int                 // other hosts
	Versions map[string]string   // of the daemons that answer, by subnet
	Bridges  map[string][]string // addresses of bridges, by name
	Routes   map[string]string   // gateway by destination
}

// Diagnosis makes one check in a situation.
func Diagnosis(ctx context.Context, name string, c Case) (result, evidence string) {
	config, _ := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`))
	f := &facts{
		app: newApp(), config: config, access: api.Store{Endpoints: []string{c.Endpoint}}, status: api.Status{Version: "v2"},
		subnets: []netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}, devices: []string{"flannel.1"}, mtu: 1450,
		peers: make([]subnet.Lease, c.Peers), probed: map[netip.Prefix]probe.Result{}, hosts: map[netip.Prefix]subnet.Record{},
	}
	for p, v := range c.Versions {
		f.probed[netip.MustParsePrefix(p)] = probe.Result{Sent: 3, Version: v}
	}
	for name, addrs := range c.Bridges {
		l := ip.Interface{Name: name, MTU: 1450}
		for _, a := range addrs {
			l.Addrs = append(l.Addrs, netip.MustParsePrefix(a))
		}
		f.links = append(f.links, l)
	}
	for dst, gateway := range c.Routes {
		f.routes = append(f.routes, route{prefix: netip.MustParsePrefix(dst), Gateway: gateway, Dev: "eth1", Protocol: "static"})
	}
	for _, check := range checks {
		if check.name == name {
			r := check.run(ctx, f)
			return string(r.Result), r.Evidence
		}
	}
	return "", "no such check"
}
