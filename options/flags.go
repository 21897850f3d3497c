package options

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"flanneld/subnet"
)

// group is a theme of flags, as it appears in the usage text.
type group struct {
	title  string
	define func(*flag.FlagSet, *Options)
	kube   bool // of interest with that store only
}

var groups = []group{
	{title: "Store", define: storeFlags},
	{title: "Network configuration", define: networkFlags},
	{title: "Underlay (which interface carries the packets)", define: underlayFlags},
	{title: "Lease and state", define: leaseFlags},
	{title: "Firewall and routes", define: firewallFlags},
	{title: "Health and messages", define: healthFlags},
	{title: "Kubernetes API as the store", define: kubeFlags, kube: true},
}

// flags returns the flags of the group, bound to o, whose values are the defaults.
func (g group) flags(o *Options) *flag.FlagSet {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	g.define(fs, o)
	return fs
}

func storeFlags(fs *flag.FlagSet, o *Options) {
	fs.Var(endpoints(&o.EtcdEndpoints), "etcd-endpoints", "comma-separated `URLs` of etcd")
	fs.Var(keyPrefix(&o.EtcdPrefix), "etcd-prefix", "`key` prefix of the network in etcd")
	fs.Var(text(&o.EtcdCAFile), "etcd-cafile", "`file` with the certificate authorities of etcd")
	fs.Var(text(&o.EtcdCertfile), "etcd-certfile", "`file` with the client certificate for etcd")
	fs.Var(text(&o.EtcdKeyfile), "etcd-keyfile", "`file` with the key of the client certificate")
	fs.Var(secret(&o.EtcdUsername), "etcd-username", "`user` of etcd")
	fs.Var(secret(&o.EtcdPassword), "etcd-password", "`password` of the user; better given in the environment")
	fs.Var(toggle(&o.EtcdEmbedded), "etcd-embedded",
		"run an etcd member on this host, with its data in the state folder; with -join, a further member of a store")
	fs.Var(addrPort(&o.EtcdEmbeddedListen), "etcd-embedded-listen", "`address:port` that the embedded etcd listens on")
	fs.Var(toggle(&o.EtcdEmbeddedSecure), "etcd-embedded-secure",
		"secure the embedded etcd with TLS and users, also one that runs without; other hosts join it with a token")
	fs.Var(toggle(&o.EtcdEmbeddedInsecure), "etcd-embedded-insecure",
		"run the embedded etcd without TLS and users")
	fs.Var(joining(&o.Join), "join",
		"join a secured embedded etcd, as `TOKEN@HOST`[,HOST]...; @FILE reads this from a file")
	fs.Var(port(&o.JoinPort), "join-port", "TCP `port` on which a secured embedded etcd lets hosts join")
}

func networkFlags(fs *flag.FlagSet, o *Options) {
	fs.Var(networkConfig(&o.NetworkConfig), "network-config",
		"`JSON` or @file, written to etcd if it has no configuration yet")
	fs.Var(text(&o.NetConfigPath), "net-config-path",
		"`file` with the network configuration, used instead of the one in etcd; with -kube-subnet-mgr, unless given, "+
			"/etc/kube-flannel/net-conf.json")
}

func underlayFlags(fs *flag.FlagSet, o *Options) {
	fs.Var(list(&o.Iface), "iface",
		"interface by `name|address`; may be repeated or comma-separated, the first match wins")
	fs.Var(regexps(&o.IfaceRegex), "iface-regex",
		"`pattern` on addresses or names, tried after -iface; may be repeated, the first match wins")
	fs.Var(address(&o.IfaceCanReach), "iface-can-reach",
		"interface of the kernel's route to this `address`, tried last; without any of the three: that of the default route")
	fs.Var(publicAddress(&o.PublicIP, true), "public-ip", "IPv4 `address` to publish to peers, instead of the interface's")
	fs.Var(publicAddress(&o.PublicIPv6, false), "public-ipv6",
		"IPv6 `address` to publish to peers, instead of the interface's")
}

func leaseFlags(fs *flag.FlagSet, o *Options) {
	fs.Var(filePath(&o.SubnetFile), "subnet-file", "`file` with the subnet and the MTU, for the container runtime")
	fs.Var(filePath(&o.StateDir), "state-dir", "`folder` that keeps the identity and the lease over a restart")
	fs.Var(duration(&o.SubnetLeaseTTL, leastLeaseTTL), "subnet-lease-ttl",
		"lease lifetime after the last renewal, as a `duration`")
	fs.Var(units(&o.SubnetLeaseRenewMargin, time.Minute, 1, 1439, "minutes"), "subnet-lease-renew-margin",
		"renew the lease at least these `minutes` before it expires")
	fs.Var(oneOf(&o.OnLostSubnet, subnet.LostMove, subnet.LostHold, subnet.LostExit), "on-lost-subnet",
		"what to do when another host has taken the subnet: `move|hold|exit`")
	fs.Var(duration(&o.PeerGrace, 0), "peer-grace", "`time` to keep peers whose records etcd has lost")
}

func firewallFlags(fs *flag.FlagSet, o *Options) {
	fs.Var(toggle(&o.IPMasq), "ip-masq", "masquerade traffic that leaves the network")
	fs.Var(toggle(&o.IPMasqFullyRandomDisable), "ip-masq-fully-random-disable",
		"do not randomise the source ports of masqueraded traffic")
	fs.Var(units(&o.IPTablesResync, time.Second, 1, 86400, "seconds"), "iptables-resync",
		"`seconds` after which a missing firewall rule is restored at the latest")
	fs.Var(toggle(&o.IPTablesForwardRules), "iptables-forward-rules", "accept forwarding from and to the network")
	fs.Var(toggle(&o.IPForward), "ip-forward", "turn on the kernel's forwarding for the families of the network")
	fs.Var(toggle(&o.IPBlackholeRoute), "ip-blackhole-route", "add a blackhole route for the host's own subnet")
	fs.Var(toggle(&o.StrictIngress), "strict-ingress", "accept tunnel packets from peers only")
}

func healthFlags(fs *flag.FlagSet, o *Options) {
	fs.Var(listenAddress(&o.HealthzIP), "healthz-ip", "`address` that the health server listens on")
	fs.Var(port(&o.HealthzPort), "healthz-port", "`port` of the health server, 0: none")
	fs.Var(list(&o.HealthzHosts), "healthz-hosts",
		"additional host `names` in requests to the health server, beside addresses and the host's name; comma-separated, "+
			"* at the start is a wildcard")
	fs.Var(port(&o.ProbePort), "probe-port", "UDP `port` inside the tunnel that all hosts answer probes on, 0: no probes")
	fs.Var(duration(&o.ProbeInterval, leastProbeInterval), "probe-interval",
		"`time` between two rounds of probes to a few peers")
	fs.Var(oneOf(&o.LogFormat, LogText, LogJSON), "log-format", "log format: `text|json`")
	fs.Var(verbosity(&o.Verbosity), "v", "verbosity `level`: 0 is info, 1 and above debug")
	fs.Var(toggle(&o.Version), "version",
		"print the version and exit; commit, date and Go version are printed to standard error")
}

func kubeFlags(fs *flag.FlagSet, o *Options) {
	fs.Var(toggle(&o.KubeSubnetMgr), "kube-subnet-mgr",
		"use the Kubernetes API as the store instead of etcd: the subnets of the host are the podCIDRs of its node")
	fs.Var(server(&o.KubeAPIURL), "kube-api-url",
		"`URL` of the API server; without this and -kubeconfig-file, the service account of the pod is used")
	fs.Var(text(&o.KubeAnnotationPrefix), "kube-annotation-prefix", "`prefix` of the names of the node annotations")
	fs.Var(text(&o.KubeconfigFile), "kubeconfig-file", "`file` with the credentials for the API server")
	fs.Var(toggle(&o.SetNodeNetworkUnavailable), "set-node-network-unavailable",
		"set the condition NetworkUnavailable of the node to False once packets flow")
}

// ignoredFlags are those of flannel's logging library and of a retired feature. They change nothing that matters
// here, and stand in unit files. The value says whether the flag is a switch.
var ignoredFlags = map[string]bool{
	"add_dir_header":         true,
	"alsologtostderr":        true,
	"log_backtrace_at":       false,
	"log_dir":                false,
	"log_file":               false,
	"log_file_max_size":      false,
	"logtostderr":            true,
	"one_output":             true,
	"skip_headers":           true,
	"skip_log_headers":       true,
	"stderrthreshold":        false,
	"use-multi-cluster-cidr": true,
	"vmodule":                false,
}

// newFlagSet returns all flags bound to o. A bad value does not end the parsing, it is appended to errs; an ignored
// flag that was given is appended to ignored.
func newFlagSet(o *Options, ignored *[]string, errs *[]error) *flag.FlagSet {
	all := flag.NewFlagSet("flanneld", flag.ContinueOnError)
	all.SetOutput(io.Discard)
	for _, g := range groups {
		g.flags(o).VisitAll(func(f *flag.Flag) {
			all.Var(gathered{f.Value, f.Name, errs}, f.Name, f.Usage)
		})
	}
	for name, isSwitch := range ignoredFlags {
		all.Var(ignoredValue{name, isSwitch, ignored}, name, "")
	}
	return all
}

// Group is a theme of flags, as it appears in the usage text and the manual page.
type Group struct {
	Title string
	Flags []Flag
}

// Flag describes one flag to those who read about it.
type Flag struct {
	Name    string
	Arg     string // what the value is; empty for a switch
	Text    string
	Default string   // empty: none, or false for a switch
	Choices []string // the values that it may have; nil: any
}

// Variable returns the environment variable of the flag.
func (f Flag) Variable() string { return Variable(f.Name) }

// Groups returns all flags by theme, from their definitions.
func Groups() []Group {
	o := Defaults()
	var out []Group
	for _, g := range groups {
		described := Group{Title: g.title}
		g.flags(&o).VisitAll(func(f *flag.Flag) {
			d := Flag{Name: f.Name, Default: f.DefValue}
			d.Arg, d.Text = flag.UnquoteUsage(f)
			if d.Default == "false" {
				d.Default = ""
			}
			if v, ok := f.Value.(interface{ Choices() []string }); ok {
				d.Choices = v.Choices()
			}
			described.Flags = append(described.Flags, d)
		})
		out = append(out, described)
	}
	return out
}

// writeUsage prints all flags by theme, one line each.
func writeUsage(w io.Writer) {
	fmt.Fprint(w, "Usage: flanneld [OPTION]...\n\n"+
		"Joins this host to an overlay network whose leases are kept in etcd or in the Kubernetes API.\n")
	for _, g := range Groups() {
		fmt.Fprintf(w, "\n%s:\n", g.Title)
		columns := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
		for _, f := range g.Flags {
			text := f.Text
			if f.Default != "" {
				text += " (default " + f.Default + ")"
			}
			fmt.Fprintf(columns, "  %s\t%s\n", strings.TrimSpace("-"+f.Name+" "+f.Arg), text)
		}
		_ = columns.Flush() // nothing to do for a reader who has gone
	}
	fmt.Fprintf(w, `
Every flag but -version may also come from the environment: -etcd-endpoints is %s.
The command line wins. A switch takes its value after an equals sign: -iptables-forward-rules=false.

Examples:
`, Variable("etcd-endpoints"))
	for _, e := range Examples() {
		fmt.Fprintf(w, "  # %s\n  %s\n", e.For, e.Line())
	}
}
