package main

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/spf13/pflag"

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
	Clean          = clean
	RemarkOn       = remarkOn
	StateError     = func(s api.Status) int { return exitCode(stateError(stateOf(s))) }
	Unreached      = unreached
	CleanText      = cleanText
	ParseConf      = parseConf
)

// Render prints two rows with a value, and an object with it as JSON.
func Render(t *testing.T, value string) (table, text string) {
	t.Helper()
	var b strings.Builder
	a := app{out: &b, output: "table"}
	show := func() string {
		b.Reset()
		err := a.print(map[string]string{"host": value}, func(w page) { w.row("host", value); w.line("host %s", value) })
		if err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	table, a.output = show(), "json"
	return table, show()
}

// Run runs flannelctl, and returns what it prints and its exit code.
func Run(t *testing.T, args ...string) (out, errors string, code int) {
	t.Helper()
	var stdout, stderr strings.Builder
	code = realMain(t.Context(), args, &stdout, &stderr)
	return stdout.String(), stderr.String(), code
}

// Settings returns how the store is reached with a folder of environment files and flags.
func Settings(t *testing.T, folder string, args ...string) (subnetFile, stateDir string, store api.Store, from string) {
	t.Helper()
	a := newApp(io.Discard)
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	a.flags(fs)
	if err := fs.Parse(append(args, "--config-dir", folder)); err != nil {
		t.Fatal(err)
	}
	if err := a.check(); err != nil {
		t.Fatal(err)
	}
	return a.subnetFile, a.stateDir, a.store, a.storeFrom
}

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
		app: newApp(io.Discard), config: config, access: api.Store{Endpoints: []string{c.Endpoint}}, status: api.Status{Version: "v2"},
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
