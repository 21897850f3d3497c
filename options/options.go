package options

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/annotation"
)

// Options are the effective values of all flags. The table of flags is in flags.go.
type Options struct {
	EtcdEndpoints      []string
	EtcdPrefix         string // without a slash at the end: keys are this + "/" + name
	EtcdKeyfile        string
	EtcdCertfile       string
	EtcdCAFile         string
	EtcdUsername       Secret
	EtcdPassword       Secret
	EtcdEmbedded       bool
	EtcdEmbeddedListen netip.AddrPort

	EtcdEmbeddedSecure   bool   // TLS and rights, also for a store that had none
	EtcdEmbeddedInsecure bool   // neither
	Join                 Secret // TOKEN@HOST[:PORT],...: see Joins; empty: no secured store of others
	JoinPort             uint16

	NetworkConfig string // JSON, to be written to a store that has no configuration; empty: none
	NetConfigPath string // file that replaces the store's configuration; empty unless given explicitly

	Iface         []string         // names or addresses, in order of preference
	IfaceRegex    []*regexp.Regexp // on names or addresses, in order of preference
	IfaceCanReach netip.Addr
	PublicIP      netip.Addr
	PublicIPv6    netip.Addr

	SubnetFile             string
	StateDir               string
	SubnetLeaseTTL         time.Duration
	SubnetLeaseRenewMargin time.Duration
	OnLostSubnet           subnet.LostPolicy
	PeerGrace              time.Duration

	IPMasq                   bool
	IPMasqFullyRandomDisable bool
	IPTablesResync           time.Duration
	IPTablesForwardRules     bool
	IPBlackholeRoute         bool
	IPForward                bool
	StrictIngress            bool

	HealthzIP    netip.Addr
	HealthzPort  uint16   // 0: no server
	HealthzHosts []string // host names that requests may have

	ProbePort     uint16 // 0: no probes
	ProbeInterval time.Duration

	Verbosity int // 0 info, above debug
	LogFormat LogFormat
	Version   bool

	KubeSubnetMgr             bool
	KubeAPIURL                string
	KubeAnnotationPrefix      string
	KubeconfigFile            string
	SetNodeNetworkUnavailable bool
}

// LogFormat says how log lines are written.
type LogFormat string

const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

const (
	leastProbeInterval = 100 * time.Millisecond

	defaultRenewMargin = time.Hour
	leastLeaseTTL      = time.Minute
)

// kubeNetConfig is where the network configuration is with Kubernetes as the store unless a flag says otherwise.
const kubeNetConfig = "/etc/kube-flannel/net-conf.json"

// Defaults returns the values of all flags when nothing is given.
func Defaults() Options {
	return Options{
		EtcdEndpoints:             []string{"http://127.0.0.1:4001", "http://127.0.0.1:2379"},
		EtcdPrefix:                "/coreos.com/network",
		EtcdEmbeddedListen:        netip.MustParseAddrPort("127.0.0.1:2379"),
		JoinPort:                  8474,
		SubnetFile:                "/run/flannel/subnet.env",
		StateDir:                  "/var/lib/flannel",
		SubnetLeaseTTL:            24 * time.Hour,
		SubnetLeaseRenewMargin:    defaultRenewMargin,
		OnLostSubnet:              subnet.LostMove,
		PeerGrace:                 10 * time.Minute,
		IPTablesResync:            5 * time.Second,
		IPTablesForwardRules:      true,
		StrictIngress:             true,
		HealthzIP:                 netip.IPv4Unspecified(),
		ProbePort:                 8473,
		ProbeInterval:             10 * time.Second,
		LogFormat:                 LogText,
		KubeAnnotationPrefix:      annotation.DefaultPrefix,
		SetNodeNetworkUnavailable: true,
	}
}

// Parse reads the flags from the command line and, where it says nothing, from environment variables
// ("NAME=value", as os.Environ returns them). Usage and warnings go to output. The error joins everything that is
// wrong, also what check says; it is flag.ErrHelp if help was asked for. With -version nothing else is looked at.
func Parse(args, environ []string, output io.Writer, check ...func(Options) error) (Options, error) {
	o := Defaults()
	var errs []error
	var ignored []string
	fs := newFlagSet(&o, &ignored, &errs)
	fs.Usage = func() {}
	switch err := parseFlags(fs, args); {
	case errors.Is(err, flag.ErrHelp):
		writeUsage(output)
		return Options{}, err
	case err != nil:
		return Options{}, fmt.Errorf("%w (see \"flanneld -help\")", err)
	}
	if o.Version {
		return Options{Version: true}, nil
	}
	if i := slices.IndexFunc(fs.Args(), func(arg string) bool { return arg != "" }); i >= 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q: every flag starts with a dash, and a switch takes its "+
			"value as in -ip-masq=true", fs.Arg(i)))
	}
	onLine := given(fs)
	unknown := readEnviron(fs, environ)
	set := given(fs)
	o.settle(onLine, set)
	errs = append(errs, o.Validate())
	if onLine["etcd-endpoints"] && o.Join != "" {
		errs = append(errs, fmt.Errorf("%s and -etcd-endpoints are both given: the members of a store that is joined are "+
			"known from it, want one of the two", Named("join")))
	}
	for _, f := range check {
		errs = append(errs, f(o))
	}
	o.warn(output, set, unknown, ignored)
	return o, errors.Join(errs...)
}

// warn says what was given and has no effect. It removes what must not be passed on.
func (o *Options) warn(output io.Writer, set map[string]bool, unknown, ignored []string) {
	log := slog.New(slog.NewTextHandler(output, nil))
	for _, name := range unknown {
		log.Warn("environment variable ignored: no such flag", "name", name)
	}
	if len(ignored) > 0 {
		log.Info("flags accepted for compatibility and ignored", "flags", ignored)
	}
	if plain := o.unencrypted(); len(plain) > 0 {
		log.Warn("certificates for etcd are given, but not used with these endpoints: want https://", "endpoints", plain)
	}
	if o.ignoresConfigInEtcd(set) {
		log.Warn("the network configuration is that of -net-config-path, and the one in etcd is not used: all hosts must "+
			"have the same file",
			"file", o.NetConfigPath, "ignored", o.EtcdPrefix+"/config")
	}
	if had := o.dropUsers(); len(had) > 0 {
		log.Warn("user names and passwords in the URLs of etcd are ignored: use -etcd-username and FLANNELD_ETCD_PASSWORD",
			"endpoints", had)
	}
}

// parseFlags passes over empty arguments where a flag could start: a unit has them from a variable that is empty and
// quoted. An empty value of a flag stays one. No flag starts behind "--".
func parseFlags(fs *flag.FlagSet, args []string) error {
	for {
		if err := fs.Parse(args); err != nil || fs.NArg() == 0 || fs.Arg(0) != "" {
			return err
		}
		if parsed := len(args) - fs.NArg(); parsed > 0 && args[parsed-1] == "--" {
			return nil
		}
		args = fs.Args()[1:]
	}
}

// given returns the names of the flags that were set so far.
func given(fs *flag.FlagSet) map[string]bool {
	names := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { names[f.Name] = true })
	return names
}

// settle fills in what depends on whether other flags were given, on the command line or at all. The packaged units
// name an endpoint of etcd in the environment, which is not meant for a host with the embedded one.
func (o *Options) settle(onLine, given map[string]bool) {
	if o.EtcdEmbedded && !onLine["etcd-endpoints"] {
		o.EtcdEndpoints = []string{"http://" + reachable(o.EtcdEmbeddedListen).String()}
	}
	if _, hosts := o.Joins(); len(hosts) > 0 && !onLine["etcd-endpoints"] {
		o.EtcdEndpoints = joinEndpoints(hosts)
	}
	if o.KubeSubnetMgr && o.NetConfigPath == "" {
		o.NetConfigPath = kubeNetConfig
	}
	if !given["subnet-lease-renew-margin"] {
		o.SubnetLeaseRenewMargin = min(defaultRenewMargin, o.SubnetLeaseTTL/2)
	}
}

// reachable returns where a server listening on a is to be called from its own host.
func reachable(a netip.AddrPort) netip.AddrPort {
	switch a.Addr() {
	case netip.IPv4Unspecified():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	case netip.IPv6Unspecified():
		return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
	}
	return a
}

// Healthz returns the address of the health server; ok is false if there is to be none.
func (o Options) Healthz() (addr netip.AddrPort, ok bool) {
	return netip.AddrPortFrom(o.HealthzIP, o.HealthzPort), o.HealthzPort != 0
}

// LogValue implements slog.LogValuer: the flags by name, without secrets and empty ones.
func (o Options) LogValue() slog.Value {
	var attrs []slog.Attr
	for _, g := range groups {
		fs := g.flags(&o)
		if g.kube && !o.KubeSubnetMgr {
			continue
		}
		fs.VisitAll(func(f *flag.Flag) {
			if s := f.Value.String(); s != "" {
				attrs = append(attrs, slog.String(f.Name, s))
			}
		})
	}
	return slog.GroupValue(attrs...)
}
