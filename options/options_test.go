package options_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"flanneld/options"
	"flanneld/subnet"
)

var equalOptions = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}),
	cmp.Comparer(func(a, b *regexp.Regexp) bool { return a.String() == b.String() }),
}

// builtin are the values that hold when nothing is given: a promise to existing unit files.
func builtin() options.Options {
	return options.Options{
		EtcdEndpoints:             []string{"http://127.0.0.1:4001", "http://127.0.0.1:2379"},
		EtcdPrefix:                "/coreos.com/network",
		EtcdEmbeddedListen:        netip.MustParseAddrPort("127.0.0.1:2379"),
		JoinPort:                  8474,
		SubnetFile:                "/run/flannel/subnet.env",
		StateDir:                  "/var/lib/flannel",
		SubnetLeaseTTL:            24 * time.Hour,
		SubnetLeaseRenewMargin:    time.Hour,
		OnLostSubnet:              subnet.LostMove,
		PeerGrace:                 10 * time.Minute,
		IPTablesResync:            5 * time.Second,
		IPTablesForwardRules:      true,
		StrictIngress:             true,
		HealthzIP:                 netip.MustParseAddr("0.0.0.0"),
		ProbePort:                 8473,
		ProbeInterval:             10 * time.Second,
		LogFormat:                 "text",
		KubeAnnotationPrefix:      "flannel.alpha.coreos.com",
		SetNodeNetworkUnavailable: true,
	}
}

func TestWithoutFlagsTheDefaultsHold(t *testing.T) {
	var out bytes.Buffer
	got, err := options.Parse(nil, nil, &out)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(builtin(), got, equalOptions); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if out.Len() > 0 {
		t.Errorf("output is %q, want none", out.String())
	}
}

// everyFlag has a value for each flag but -version, and what it leads to.
var everyFlag = []struct {
	flag, value string
	set         func(*options.Options)
}{
	{"etcd-endpoints", "https://192.0.2.1:2379, https://[2001:db8::1]:2379/", func(o *options.Options) {
		o.EtcdEndpoints = []string{"https://192.0.2.1:2379", "https://[2001:db8::1]:2379/"}
	}},
	{"etcd-prefix", "/cluster/two/", func(o *options.Options) { o.EtcdPrefix = "/cluster/two" }},
	{"etcd-cafile", "/ca.pem", func(o *options.Options) { o.EtcdCAFile = "/ca.pem" }},
	{"etcd-embedded", "true", func(o *options.Options) {
		o.EtcdEmbedded = true
		o.EtcdEndpoints = []string{"http://127.0.0.1:2379"}
	}},
	{"etcd-embedded-listen", "[::]:2400",
		func(o *options.Options) { o.EtcdEmbeddedListen = netip.MustParseAddrPort("[::]:2400") }},
	{"etcd-embedded-secure", "true", func(o *options.Options) { o.EtcdEmbeddedSecure = true }},
	{"etcd-embedded-insecure", "true", func(o *options.Options) { o.EtcdEmbeddedInsecure = true }},
	{"join", "token@192.0.2.1,[2001:db8::1]:8475", func(o *options.Options) {
		o.Join = "token@192.0.2.1,[2001:db8::1]:8475"
		o.EtcdEndpoints = []string{"https://192.0.2.1:2379", "https://[2001:db8::1]:2379"}
	}},
	{"join-port", "8475", func(o *options.Options) { o.JoinPort = 8475 }},
	{"network-config", `{"Network": "10.5.0.0/16"}`,
		func(o *options.Options) { o.NetworkConfig = `{"Network": "10.5.0.0/16"}` }},
	{"net-config-path", "/etc/kube-flannel/net-conf.json",
		func(o *options.Options) { o.NetConfigPath = "/etc/kube-flannel/net-conf.json" }},
	{"iface", "eth1,192.0.2.7", func(o *options.Options) { o.Iface = []string{"eth1", "192.0.2.7"} }},
	{"iface-regex", `10\.\d{1,3}\.`,
		func(o *options.Options) { o.IfaceRegex = []*regexp.Regexp{regexp.MustCompile(`10\.\d{1,3}\.`)} }},
	{"iface-can-reach", "192.0.2.1", func(o *options.Options) { o.IfaceCanReach = netip.MustParseAddr("192.0.2.1") }},
	{"public-ip", "203.0.113.9", func(o *options.Options) { o.PublicIP = netip.MustParseAddr("203.0.113.9") }},
	{"public-ipv6", "2001:db8::9", func(o *options.Options) { o.PublicIPv6 = netip.MustParseAddr("2001:db8::9") }},
	{"subnet-file", "/run/two.env", func(o *options.Options) { o.SubnetFile = "/run/two.env" }},
	{"state-dir", "/state", func(o *options.Options) { o.StateDir = "/state" }},
	{"subnet-lease-ttl", "1m", func(o *options.Options) {
		o.SubnetLeaseTTL = time.Minute
		o.SubnetLeaseRenewMargin = 30 * time.Second
	}},
	{"subnet-lease-renew-margin", "1439", func(o *options.Options) { o.SubnetLeaseRenewMargin = 1439 * time.Minute }},
	{"on-lost-subnet", "hold", func(o *options.Options) { o.OnLostSubnet = subnet.LostHold }},
	{"peer-grace", "0s", func(o *options.Options) { o.PeerGrace = 0 }},
	{"ip-masq", "true", func(o *options.Options) { o.IPMasq = true }},
	{"ip-masq-fully-random-disable", "true", func(o *options.Options) { o.IPMasqFullyRandomDisable = true }},
	{"iptables-resync", "60", func(o *options.Options) { o.IPTablesResync = time.Minute }},
	{"ip-forward", "true", func(o *options.Options) { o.IPForward = true }},
	{"iptables-forward-rules", "false", func(o *options.Options) { o.IPTablesForwardRules = false }},
	{"ip-blackhole-route", "1", func(o *options.Options) { o.IPBlackholeRoute = true }},
	{"strict-ingress", "false", func(o *options.Options) { o.StrictIngress = false }},
	{"healthz-ip", "::", func(o *options.Options) { o.HealthzIP = netip.MustParseAddr("::") }},
	{"healthz-port", "65535", func(o *options.Options) { o.HealthzPort = 65535 }},
	{"healthz-hosts", "node1.example.com, *.example.net", func(o *options.Options) {
		o.HealthzHosts = []string{"node1.example.com", "*.example.net"}
	}},
	{"probe-port", "0", func(o *options.Options) { o.ProbePort = 0 }},
	{"probe-interval", "1m", func(o *options.Options) { o.ProbeInterval = time.Minute }},
	{"log-format", "json", func(o *options.Options) { o.LogFormat = "json" }},
	{"v", "10", func(o *options.Options) { o.Verbosity = 10 }},
	{"kube-api-url", "https://192.0.2.1", func(o *options.Options) { o.KubeAPIURL = "https://192.0.2.1" }},
	{"kube-annotation-prefix", "example.com", func(o *options.Options) { o.KubeAnnotationPrefix = "example.com" }},
	{"kubeconfig-file", "/kube", func(o *options.Options) { o.KubeconfigFile = "/kube" }},
	{"set-node-network-unavailable", "false", func(o *options.Options) { o.SetNodeNetworkUnavailable = false }},
}

func TestEveryFlagIsReadFromEverywhere(t *testing.T) {
	for _, tt := range everyFlag {
		env := "FLANNELD_" + strings.ToUpper(strings.ReplaceAll(tt.flag, "-", "_"))
		for _, way := range []struct {
			name          string
			args, environ []string
		}{
			{"with one dash", []string{"-" + tt.flag + "=" + tt.value}, nil},
			{"with two dashes", []string{"--" + tt.flag + "=" + tt.value}, nil},
			{"from the environment", nil, []string{"PATH=/bin", env + "=" + tt.value}},
		} {
			t.Run(tt.flag+" "+way.name, func(t *testing.T) {
				var out bytes.Buffer
				got, err := options.Parse(way.args, way.environ, &out)
				if err != nil {
					t.Fatal(err)
				}
				want := builtin()
				tt.set(&want)
				if diff := cmp.Diff(want, got, equalOptions); diff != "" {
					t.Errorf("options (-want +got):\n%s", diff)
				}
				if strings.Contains(out.String(), "no such flag") {
					t.Errorf("output is %q", out.String())
				}
			})
		}
	}
}

func TestParse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "net.json")
	if err := os.WriteFile(file, []byte(`{"Network": "10.6.0.0/16"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		args    []string
		environ []string
		set     func(*options.Options)
	}{
		{"the command line wins over the environment", []string{"-healthz-port=1"}, []string{"FLANNELD_HEALTHZ_PORT=2"},
			func(o *options.Options) { o.HealthzPort = 1 }},
		{"-iface on the command line hides that of the environment", []string{"-iface=eth0"}, []string{"FLANNELD_IFACE=eth1"},
			func(o *options.Options) { o.Iface = []string{"eth0"} }},
		{"an empty environment variable is none", nil, []string{"FLANNELD_ETCD_ENDPOINTS=", "FLANNELD_IP_MASQ="},
			func(*options.Options) {}},
		{"a switch needs no value", []string{"--ip-masq", "-iface", "eth0"}, nil,
			func(o *options.Options) { o.IPMasq, o.Iface = true, []string{"eth0"} }},
		{"repeated interfaces and patterns keep their order",
			[]string{"-iface=b", "-iface-regex=y,z", "-iface=a,c", "-iface-regex=x"}, nil,
			func(o *options.Options) {
				o.Iface = []string{"b", "a", "c"}
				o.IfaceRegex = []*regexp.Regexp{regexp.MustCompile("y,z"), regexp.MustCompile("x")}
			}},
		{"empty interface flags, as unit files with unset variables have, count as none",
			[]string{"-iface=", "-iface-regex=", "-iface-can-reach=", "-public-ip=", "-public-ipv6=", "-healthz-ip="}, nil,
			func(*options.Options) {}},
		{"endpoints may lack a scheme or be a socket", []string{"-etcd-endpoints=etcd.example:2379,unix:///run/etcd.sock"},
			nil,
			func(o *options.Options) { o.EtcdEndpoints = []string{"etcd.example:2379", "unix:///run/etcd.sock"} }},
		{"the prefix / is the root", []string{"-etcd-prefix=/"}, nil, func(o *options.Options) { o.EtcdPrefix = "" }},
		{"an embedded etcd is called where it listens", []string{"-etcd-embedded", "-etcd-embedded-listen=0.0.0.0:2400"}, nil,
			func(o *options.Options) {
				o.EtcdEmbedded, o.EtcdEmbeddedListen = true, netip.MustParseAddrPort("0.0.0.0:2400")
				o.EtcdEndpoints = []string{"http://127.0.0.1:2400"}
			}},
		{"an embedded etcd on all IPv6 addresses is called on the loopback one",
			[]string{"-etcd-embedded", "-etcd-embedded-listen=[::]:2400"}, nil,
			func(o *options.Options) {
				o.EtcdEmbedded, o.EtcdEmbeddedListen = true, netip.MustParseAddrPort("[::]:2400")
				o.EtcdEndpoints = []string{"http://[::1]:2400"}
			}},
		{"endpoints that flags name stand beside an embedded etcd",
			[]string{"-etcd-embedded", "-etcd-endpoints=http://192.0.2.1:2379"}, nil,
			func(o *options.Options) { o.EtcdEmbedded, o.EtcdEndpoints = true, []string{"http://192.0.2.1:2379"} }},
		{"the endpoint of the unit is not meant for an embedded etcd", []string{"-etcd-embedded-listen=192.0.2.1:2379"},
			[]string{"FLANNELD_ETCD_ENDPOINTS=http://127.0.0.1:2379", "FLANNELD_ETCD_EMBEDDED=true"},
			func(o *options.Options) {
				o.EtcdEmbedded, o.EtcdEmbeddedListen = true, netip.MustParseAddrPort("192.0.2.1:2379")
				o.EtcdEndpoints = []string{"http://192.0.2.1:2379"}
			}},
		{"the endpoint of the unit is not meant for a host that joins", []string{"-join=t@192.0.2.1:8475"},
			[]string{"FLANNELD_ETCD_ENDPOINTS=http://127.0.0.1:2379"},
			func(o *options.Options) {
				o.Join, o.EtcdEndpoints = "t@192.0.2.1:8475", []string{"https://192.0.2.1:2379"}
			}},
		{"a network configuration comes from a file", []string{"-network-config=@" + file}, nil,
			func(o *options.Options) { o.NetworkConfig = `{"Network": "10.6.0.0/16"}` }},
		{"user and password are read", nil, []string{"FLANNELD_ETCD_USERNAME=u", "FLANNELD_ETCD_PASSWORD=p=w"},
			func(o *options.Options) { o.EtcdUsername, o.EtcdPassword = "u", "p=w" }},
		{"an IPv4-mapped address is an IPv4 address", []string{"-iface-can-reach=::ffff:192.0.2.1"}, nil,
			func(o *options.Options) { o.IfaceCanReach = netip.MustParseAddr("192.0.2.1") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := options.Parse(tt.args, tt.environ, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			want := builtin()
			tt.set(&want)
			if diff := cmp.Diff(want, got, equalOptions); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVersionAsksForNothingElse(t *testing.T) {
	got, err := options.Parse([]string{"--version", "-healthz-port=none"}, nil, io.Discard)
	if err != nil || !got.Version {
		t.Errorf("Parse = %v, %v, want Version", got.Version, err)
	}
	got, err = options.Parse(nil, []string{"FLANNELD_VERSION=v0.26.1"}, io.Discard)
	if err != nil || got.Version {
		t.Errorf("with FLANNELD_VERSION, which images set: Parse = %v, %v, want neither Version nor an error", got.Version,
			err)
	}
}

func TestUsage(t *testing.T) {
	var out bytes.Buffer
	if _, err := options.Parse([]string{"--help"}, nil, &out); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("error is %v, want flag.ErrHelp", err)
	}
	names := []string{"etcd-certfile", "etcd-keyfile", "etcd-username", "etcd-password", "kube-subnet-mgr", "version"}
	for _, f := range everyFlag {
		names = append(names, f.flag)
	}
	for _, name := range names {
		if n := len(regexp.MustCompile(`(?m)^  -`+name+` .*\w`).FindAllString(out.String(), -1)); n != 1 {
			t.Errorf("usage has %d lines for -%s, want 1", n, name)
		}
	}
	if got, want := strings.Count(out.String(), "\n  -"), len(names); got != want {
		t.Errorf("usage has %d flags, want the %d that this test knows", got, want)
	}
	if !strings.Contains(out.String(), "(default /run/flannel/subnet.env)") {
		t.Errorf("usage names no defaults:\n%s", out.String())
	}
}

func TestAnUnknownFlagIsOneLineWithAHint(t *testing.T) {
	var out bytes.Buffer
	_, err := options.Parse([]string{"-etcd-endpoint=x"}, nil, &out)
	if err == nil || errors.Is(err, flag.ErrHelp) || !strings.Contains(err.Error(), "-etcd-endpoint") ||
		!strings.Contains(err.Error(), `"flanneld -help"`) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v, want a line that names the flag and the help", err)
	}
	if out.Len() > 0 {
		t.Errorf("output is %q, want none", out.String())
	}
}

func TestWrongValuesAreRefused(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string // part of the error
	}{
		{"a switch is true or false", []string{"-ip-masq=yes"}, `-ip-masq (FLANNELD_IP_MASQ) is "yes": want true or false`},
		{"a switch takes no argument of its own", []string{"-ip-masq", "false"}, `unexpected argument "false"`},
		{"the margin is at least a minute", []string{"-subnet-lease-renew-margin=0"}, "want 1 to 1439 minutes"},
		{"the margin is less than a day", []string{"-subnet-lease-renew-margin=1440"}, "want 1 to 1439 minutes"},
		{"the margin is less than the lease", []string{"-subnet-lease-renew-margin=60", "-subnet-lease-ttl=1h"},
			"want less than -subnet-lease-ttl"},
		{"a lease lives at least a minute", []string{"-subnet-lease-ttl=59s"}, "at least 1m"},
		{"a lease is a duration", []string{"-subnet-lease-ttl=24"}, "want a duration such as 90s"},
		{"the grace is not negative", []string{"-peer-grace=-1s"}, "at least 0s"},
		{"the resync has a bound", []string{"-iptables-resync=0"}, "want 1 to 86400 seconds"},
		{"a number of seconds does not overflow", []string{"-iptables-resync=99999999999999999999"},
			"want 1 to 86400 seconds"},
		{"a port has 16 bits", []string{"-healthz-port=65536"}, "want a port, 0 to 65535"},
		{"a listen address is no name", []string{"-healthz-ip=localhost"}, "want an IP address"},
		{"verbosity is a number", []string{"-v=high"}, "want a number"},
		{"the policy is one of three", []string{"-on-lost-subnet=stay"}, `want move, hold or exit`},
		{"a pattern must compile", []string{"-iface-regex=("}, "want a regular expression"},
		{"an address to reach is an address", []string{"-iface-can-reach=example.com"}, "want an IP address"},
		{"a public IP is of IPv4", []string{"-public-ip=2001:db8::1"}, "want an IPv4 address"},
		{"a public IP can be sent to", []string{"-public-ip=127.0.0.1"}, "want an IPv4 address"},
		{"a public IPv6 is of IPv6", []string{"-public-ipv6=192.0.2.1"}, "want an IPv6 address"},
		{"a public IPv6 is not link-local", []string{"-public-ipv6=fe80::1"}, "want an IPv6 address"},
		{"an endpoint has a port", []string{"-etcd-endpoints=http://192.0.2.1"}, `not "http://192.0.2.1"`},
		{"an endpoint speaks HTTP", []string{"-etcd-endpoints=ftp://192.0.2.1:21"}, "want http://HOST:PORT"},
		{"there is an endpoint", []string{"-etcd-endpoints=,"}, "want one URL"},
		{"there is a prefix", []string{"-etcd-prefix="}, "want a key"},
		{"an embedded etcd listens on an address and port", []string{"-etcd-embedded-listen=:2379"},
			"want an IP address and a port"},
		{"a certificate has a key", []string{"-etcd-certfile=/c.pem"}, "want both or neither"},
		{"a user has a password", []string{"-etcd-username=u"}, "want both or neither"},
		{"there is a subnet file", []string{"-subnet-file="}, "want a path"},
		{"there is a state folder", []string{"-state-dir="}, "want a path"},
		{"a network configuration is JSON", []string{"-network-config=10.5.0.0/16"}, "want a network configuration"},
		{"a network configuration is valid", []string{`-network-config={"Network": "10.5.0.0/29"}`},
			"Network is 10.5.0.0/29"},
		{"the file of a network configuration exists", []string{"-network-config=@/does/not/exist"}, "no such file"},
		{"there is one network configuration", []string{`-network-config={"Network": "10.5.0.0/16"}`, "-net-config-path=/n"},
			"are both set"},
		{"a host that joins names a member", []string{"-join=token"}, "-join (FLANNELD_JOIN) is wrong: want TOKEN@HOST"},
		{"a member is a host", []string{"-join=token@http://192.0.2.1"}, "want an address or a name"},
		{"the file of a token exists", []string{"-join=@/does/not/exist"}, "no such file"},
		{"other members reach one that joins", []string{"-join=token@192.0.2.1", "-etcd-embedded"},
			"give -etcd-embedded-listen ADDRESS:2379"},
		{"a member joins a secured store", []string{"-join=token@192.0.2.1", "-etcd-embedded",
			"-etcd-embedded-insecure", "-etcd-embedded-listen=192.0.2.2:2379"}, "is secured"},
		{"a host joins or has endpoints", []string{"-join=token@192.0.2.1", "-etcd-endpoints=http://192.0.2.1:2379"},
			"want one of the two"},
		{"a host that joins has no certificates of its own", []string{"-join=token@192.0.2.1", "-etcd-cafile=/ca.pem"},
			"its own certificates"},
		{"a store is secured or not", []string{"-etcd-embedded-secure", "-etcd-embedded-insecure"}, "one of them at most"},
		{"an etcd beside Kubernetes", []string{"-kube-subnet-mgr", "-etcd-embedded"}, "there is no etcd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := options.Parse(tt.args, nil, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	_, err := options.Parse([]string{"-healthz-port=x", "-kube-subnet-mgr", "-etcd-embedded"},
		[]string{"FLANNELD_V=x", "FLANNELD_IP_MASQ=x"}, io.Discard)
	for _, want := range []string{"-healthz-port", "-kube-subnet-mgr", "-v (FLANNELD_V)", "-ip-masq"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct {
		name    string
		args    []string
		environ []string
		want    []string // parts of lines, one line each
	}{
		{"a variable like a flag that is none", nil,
			[]string{"FLANNELD_IFACES=eth0", "FLANNEL_MTU=1450", "FLANNELD_SERVICE_HOST=x"},
			[]string{"name=FLANNELD_IFACES", "name=FLANNELD_SERVICE_HOST"}},
		{"flags of the old logging library",
			[]string{"-logtostderr", "-vmodule=x=1", "--stderrthreshold", "INFO", "-alsologtostderr=false"},
			[]string{"FLANNELD_LOG_DIR=/x"},
			[]string{"[-logtostderr -vmodule -stderrthreshold -alsologtostderr -log_dir]"}},
		{"certificates for an endpoint in plain text",
			[]string{"-etcd-cafile=/ca.pem", "-etcd-endpoints=http://u:p@192.0.2.1:2379"}, nil,
			[]string{"want https://", "http://REDACTED@192.0.2.1:2379"}},
		{"a network configuration beside etcd", []string{"-net-config-path=/etc/kube-flannel/net-conf.json"},
			[]string{"FLANNELD_ETCD_PREFIX=/p"},
			[]string{"file=/etc/kube-flannel/net-conf.json ignored=/p/config"}},
		{"a network configuration and nothing about etcd", []string{"-ip-masq=false", "-net-config-path=/n"},
			[]string{"FLANNELD_LOG_DIR=/x"}, []string{"-log_dir"}},
		{"users in URLs", []string{"-etcd-endpoints=https://u:p@ss@192.0.2.1:2379,u:p@192.0.2.2:2379,unix:///run/a@b"}, nil,
			[]string{"[https://REDACTED@192.0.2.1:2379 REDACTED@192.0.2.2:2379]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if _, err := options.Parse(tt.args, tt.environ, &out); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("output has %d lines, want %d:\n%s", len(lines), len(tt.want), out.String())
			}
			for i, want := range tt.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("line %d is %q, want %q in it", i, lines[i], want)
				}
			}
		})
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	const password = "s3same"
	o, err := options.Parse([]string{"-etcd-password=" + password, "-etcd-endpoints=http://u:" + password +
		"@192.0.2.1:2379", "-kube-api-url=https://u:" + password + "@192.0.2.1",
		`-network-config={"Network": "10.5.0.0/16", "Backend": {"Type": "wireguard", "PSK": "` + password + `"}}`},
		[]string{"FLANNELD_ETCD_USERNAME=" + password}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"http://192.0.2.1:2379"}; !cmp.Equal(o.EtcdEndpoints, want) {
		t.Errorf("endpoints are %q, want %q", o.EtcdEndpoints, want)
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("text", "options", o, "password", o.EtcdPassword)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "options", o, "password", o.EtcdPassword)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", o.EtcdPassword)
	}
	_, err = options.Parse([]string{"-etcd-password=" + password, "-etcd-endpoints=ftp://u:" + password +
		"@192.0.2.1:2379"}, nil, &out)
	fmt.Fprintln(&out, err)
	if strings.Contains(out.String(), password) || strings.Contains(out.String(), fmt.Sprintf("%x", password)) {
		t.Errorf("the password is in\n%s", out.String())
	}
	if string(o.EtcdPassword) != password {
		t.Errorf("password is %q, want %q", string(o.EtcdPassword), password)
	}
}

func TestATokenIsNeverShown(t *testing.T) {
	const token = "flt1.s3same"
	var out bytes.Buffer
	o, err := options.Parse([]string{"-join=" + token + "@192.0.2.1"}, nil, &out)
	if err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("text", "options", o)
	for _, wrong := range []string{"-join=" + token, "-join=" + token + "@a/b"} {
		_, err = options.Parse([]string{wrong, "-etcd-embedded"}, nil, &out)
		fmt.Fprintln(&out, err)
	}
	if strings.Contains(out.String(), token) {
		t.Errorf("the token is in\n%s", out.String())
	}
	if got, hosts := o.Joins(); got != token || !cmp.Equal(hosts, []string{"192.0.2.1"}) {
		t.Errorf("joins %q with %q", hosts, got)
	}
}

func TestEffectiveValuesAreOneRecord(t *testing.T) {
	o, err := options.Parse([]string{"-iface=eth0", "-iface=eth1", "-subnet-lease-ttl=30m"}, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("start", "options", o)
	for _, want := range []string{"options.iface=eth0,eth1", "options.subnet-lease-ttl=30m ",
		"options.subnet-lease-renew-margin=15", "options.ip-masq=false"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("record is %q, want %q in it", out.String(), want)
		}
	}
	if strings.Contains(out.String(), "kube-") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("record is %q, want one line without the flags of a store that is not used", out.String())
	}
}

func FuzzParse(f *testing.F) {
	f.Add("-etcd-endpoints=http://h:1\n-ip-masq", "FLANNELD_IFACE=eth0,eth1")
	f.Add("-subnet-lease-ttl=1m\n-public-ip=192.0.2.1\n-iface-regex=^e", "FLANNELD_V=1\nFLANNELD_X=")
	f.Add(`-network-config={"Network":"10.5.0.0/16"}`, "FLANNELD_ETCD_USERNAME=u\nFLANNELD_ETCD_PASSWORD=p")
	f.Fuzz(func(t *testing.T, args, environ string) {
		if strings.Contains(args+environ, "=@") || strings.Contains(args, "\n@") {
			t.Skip("reads a file")
		}
		o, err := options.Parse(strings.Split(args, "\n"), strings.Split(environ, "\n"), io.Discard)
		if err != nil {
			return
		}
		if err := o.Validate(); err != nil {
			t.Errorf("Parse succeeded, Validate does not: %v", err)
		}
		slog.New(slog.NewTextHandler(io.Discard, nil)).Info("start", "options", o)
	})
}

func TestEmptyArgumentsArePassedOver(t *testing.T) {
	for _, args := range [][]string{
		{"", "-iface", "", "", "-ip-masq", ""},
		{"-ip-masq", "--", ""},
		{"-ip-masq", "", "--", "", ""},
	} {
		o, err := options.Parse(args, nil, io.Discard)
		if err != nil || !o.IPMasq {
			t.Errorf("%q: got %v, ip-masq %v, want no error and true", args, err, o.IPMasq)
		}
	}
}

func TestNoFlagStartsBehindTwoDashes(t *testing.T) {
	_, err := options.Parse([]string{"--", "", "-ip-masq"}, nil, io.Discard)
	if err == nil || !strings.Contains(err.Error(), `unexpected argument "-ip-masq"`) {
		t.Errorf("got %v, want an unexpected argument", err)
	}
}

func TestTheExamplesOfTheHelpAreAccepted(t *testing.T) {
	var usage strings.Builder
	if _, err := options.Parse([]string{"-help"}, nil, &usage); err == nil {
		t.Error("-help is no reason to end")
	}
	for _, e := range options.Examples() {
		if _, err := options.Parse(e.Args, nil, io.Discard); err != nil {
			t.Errorf("%s: %v", e.Line(), err)
		}
		if !strings.Contains(usage.String(), "  "+e.Line()+"\n") {
			t.Errorf("the help does not show %s:\n%s", e.Line(), &usage)
		}
	}
}
