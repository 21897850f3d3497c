package doctor_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/doctor"
	"flanneld/ip"
	"flanneld/probe"
	"flanneld/subnet"
)

const config = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`

var (
	now  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	own  = netip.MustParsePrefix("10.5.1.0/24")
	peer = netip.MustParsePrefix("10.5.2.0/24")
)

func record(identity, host string, p netip.Prefix, public string) subnet.Record {
	return subnet.Record{Identity: identity, Host: host, Leases: []subnet.Lease{{
		Subnet: p, Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(public), BackendType: "vxlan",
			BackendData: `{"VNI":1,"VtepMAC":"02:00:00:00:00:0` + public[len(public)-1:] + `"}`},
	}}}
}

// healthy are the facts of a host with one peer and nothing wrong.
func healthy() *doctor.Facts {
	entry := func(r subnet.Record) *subnet.Entry { return &subnet.Entry{Record: r, Key: r.Key(), LeaseID: 7} }
	mine, other := record("me", "a", own, "192.0.2.1"), record("you", "b", peer, "192.0.2.2")
	until := now.Add(time.Hour)
	return &doctor.Facts{
		Now: now, SubnetFile: "/run/flannel/subnet.env", Socket: "/run/flannel/subnet.sock",
		StateFile: "/var/lib/flannel/x.json",
		Status: api.Status{
			Version: "v2", Started: now.Add(-time.Hour), State: api.StateReady, Ready: true, Subnets: []netip.Prefix{own},
			Devices: []string{"flannel.1"}, MTU: 1450,
			Interface: "eth0", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
			Lease:  api.Lease{Held: true, Until: &until},
			Daemon: &api.Daemon{PID: 9, ProbePort: 8473}, Firewall: &api.Firewall{StrictIngress: true}, Peers: 1,
		},
		State: subnet.State{Identity: "me", Own: mine, MACs: map[string]string{"flannel.1": "02:00:00:00:00:01"}},
		Env:   subnet.Env{Subnets: []netip.Prefix{own}, MTU: 1450},
		Store: doctor.Store{Endpoints: []string{"http://192.0.2.9:2379"}, Prefix: "/coreos.com/network",
			From: "the daemon", Clocks: []doctor.Clock{{Endpoint: "http://192.0.2.9:2379"}}},
		Snapshot: subnet.Snapshot{Config: []byte(config), Entries: []*subnet.Entry{entry(mine), entry(other)}},
		Links: []ip.Interface{
			link("eth0", 1500, "192.0.2.1/24"), link("flannel.1", 1450, "10.5.1.0/32"), link("cni0", 1450, "10.5.1.1/24"),
		},
		Routes: []doctor.Route{
			route("0.0.0.0/0", "192.0.2.254", "eth0", "dhcp"), route("192.0.2.0/24", "", "eth0", "kernel"),
			route("10.5.1.0/24", "", "cni0", "kernel"),
			route("10.5.2.0/24", "10.5.2.0", "flannel.1", fmt.Sprint(ip.Protocol)),
		},
		Sysctls: map[string]int{
			"net/ipv4/ip_forward": 1, "net/ipv4/conf/all/rp_filter": 0, "net/ipv4/conf/flannel.1/rp_filter": 0,
			"net/ipv4/conf/eth0/rp_filter":  2,
			"net/ipv4/conf/eth0/forwarding": 1, "net/ipv4/conf/flannel.1/forwarding": 1, "net/ipv4/conf/cni0/forwarding": 1,
			"net/ipv4/neigh/default/gc_thresh3": 1024, "net/netfilter/nf_conntrack_count": 10,
			"net/netfilter/nf_conntrack_max": 1000,
		},
		Rules: []doctor.Rules{{Program: "iptables-nft", Table: "filter", Text: "-P FORWARD ACCEPT\n"},
			{Program: "iptables-nft", Table: "raw", Text: "-P PREROUTING ACCEPT\n"}},
		Sums:   []doctor.Checksums{{Protocol: "Udp", In: 1000, Bad: 1}},
		Hops:   map[netip.Prefix]doctor.Hop{peer: {Hop: ip.Hop{Link: "flannel.1"}}},
		Probes: map[netip.Prefix]probe.Result{peer: {Sent: 3, RoundTrip: time.Millisecond, PathMTU: 1450, Version: "v2"}},
		Pings:  map[netip.Addr]bool{},
		CNI:    cni(),
	}
}

func link(name string, mtu int, addrs ...string) ip.Interface {
	l := ip.Interface{Name: name, MTU: mtu, Up: true, Running: true, MAC: ip.MAC{2, 0, 0, 0, 0, 1}}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, netip.MustParsePrefix(a))
	}
	return l
}

func route(dst, gateway, dev, protocol string) doctor.Route {
	return doctor.Route{Dst: netip.MustParsePrefix(dst), Gateway: gateway, Dev: dev, Protocol: protocol}
}

// dead takes the daemon away.
func dead(f *doctor.Facts) { f.Status, f.DaemonErr = api.Status{}, api.ErrNoDaemon }

func find(t *testing.T, f *doctor.Facts, check string) doctor.Finding {
	t.Helper()
	f.Derive()
	all := doctor.Diagnose(f)
	i := slices.IndexFunc(all, func(d doctor.Finding) bool { return d.Check == check })
	if i < 0 {
		t.Fatalf("no check %s", check)
	}
	return all[i]
}

func TestAHealthyHostRaisesNothing(t *testing.T) {
	f := healthy()
	f.Derive()
	for _, d := range doctor.Diagnose(f) {
		if d.Result != doctor.Good || d.Fix != "" || d.Repair != nil {
			t.Errorf("%+v", d)
		}
	}
}

// failing is one case of TestFaults.
type failing struct {
	name, check string
	fault       func(f *doctor.Facts)
	result      doctor.Verdict
	says        string // part of the evidence
	fix         string // part of the fix
}

var faults = []failing{
	{"no daemon", "daemon", dead, doctor.Failure, "no daemon answers", "systemctl restart flanneld"},
	{"degraded", "ready", func(f *doctor.Facts) {
		f.Status.State, f.Status.Reasons = api.StateDegraded, []string{"peer b does not answer"}
	}, doctor.Warning, "peer b does not answer", ""},
	{"not ready", "ready", func(f *doctor.Facts) {
		f.Status.State, f.Status.Ready, f.Status.Reasons = api.StateNotReady, false, []string{"no free subnet"}
	}, doctor.Failure, "no free subnet", ""},
	{"a change is pending", "ready", func(f *doctor.Facts) { f.Status.Pending = "VNI 2" }, doctor.Warning,
		"waits for a restart", "restart"},
	{"the state file is corrupt", "state", func(f *doctor.Facts) {
		var v int
		f.State, f.StateErr = subnet.State{}, fmt.Errorf("read state: %w", json.Unmarshal([]byte("{"), &v))
	}, doctor.Failure, "new identity", "restore"},
	{"the disk does not give the state", "state", func(f *doctor.Facts) {
		f.State, f.StateErr = subnet.State{}, errors.New("read state: input/output error")
	}, doctor.Failure, "input/output", "disk"},
	{"the list of peers is corrupt", "state", func(f *doctor.Facts) { f.StateErr = errors.New("read peers: invalid") },
		doctor.Warning, "identity can be read", "restart"},
	{"no state", "state", func(f *doctor.Facts) { f.State = subnet.State{} }, doctor.Warning, "no identity",
		"--state-dir"},
	{"no state, and no lease yet", "state", func(f *doctor.Facts) { f.State, f.Status.Subnets = subnet.State{}, nil },
		doctor.Skipped, "written with the first lease", ""},
	{"the store is away", "store", func(f *doctor.Facts) { f.StoreErr = errors.New("list records: refused") },
		doctor.Failure, "endpoints from the daemon", "http://192.0.2.9:2379"},
	{"no right to write", "store-rights", func(f *doctor.Facts) { f.WriteErr = errors.New("permission denied") },
		doctor.Failure, "permission denied", "grant-permission"},
	{"the clock of the store is ahead", "clock", func(f *doctor.Facts) { f.Store.Clocks[0].Behind = -time.Hour },
		doctor.Failure, "differs", "set-ntp"},
	{"the clock of the store is behind", "clock", func(f *doctor.Facts) { f.Store.Clocks[0].Behind = time.Hour },
		doctor.Failure, "1h0m0s", ""},
	{"a store that tells no time", "clock", func(f *doctor.Facts) { f.Store.Clocks = nil }, doctor.Skipped, "", ""},
	{"no subnet, and the daemon waits", "lease", func(f *doctor.Facts) {
		f.State, f.Status.Subnets = subnet.State{}, nil
	}, doctor.Failure, "no subnet", "check ready"},
	{"no subnet, and no daemon", "lease", func(f *doctor.Facts) {
		f.State, f.DaemonErr = subnet.State{}, api.ErrNoDaemon
	}, doctor.Failure, "no subnet", "start the daemon"},
	{"another record has the subnet", "lease", func(f *doctor.Facts) { f.Snapshot.Entries[0].Identity = "another" },
		doctor.Failure, "in the store it belongs to", "history"},
	{"the record is gone", "lease", func(f *doctor.Facts) { f.Snapshot.Entries = f.Snapshot.Entries[1:] }, doctor.Failure,
		"no record of it", ""},
	{"two records with one address", "duplicates", func(f *doctor.Facts) {
		f.Snapshot.Entries[1].Leases[0].PublicIP = f.Snapshot.Entries[0].Leases[0].PublicIP
	}, doctor.Failure, "address 192.0.2.1", ""},
	{"a VPN covers the network", "overlap",
		func(f *doctor.Facts) { f.Routes = append(f.Routes, route("10.0.0.0/8", "192.0.2.1", "tun0", "static")) },
		doctor.Failure, "10.0.0.0/8 via 192.0.2.1 dev tun0", ""},
	{"a VPN covers free subnets", "overlap", func(f *doctor.Facts) {
		f.Routes = append(f.Routes, route("10.5.128.0/17", "192.0.2.1", "tun0", "static"))
	}, doctor.Warning, "10.5.128.0/17", ""},
	{"the host's own network is where a peer is", "overlap",
		func(f *doctor.Facts) { f.Links = append(f.Links, link("eth1", 1500, "10.5.2.7/24")) }, doctor.Failure,
		"the network of eth1 (10.5.2.7), where the peer 10.5.2.0/24 at", "change the range"},
	{"a route of others has the place of a peer's", "peers", func(f *doctor.Facts) {
		f.Routes[3] = route("10.5.2.0/24", "", "eth1", "kernel")
		f.Hops[peer] = doctor.Hop{Hop: ip.Hop{Link: "eth1"}}
	}, doctor.Failure, "10.5.2.0/24 dev eth1 proto kernel of another program is in the way", "remove that route"},
	{"a route is missing", "peers", func(f *doctor.Facts) {
		f.Routes = f.Routes[:3]
		f.Hops[peer] = doctor.Hop{Hop: ip.Hop{Link: "eth0", Via: netip.MustParseAddr("192.0.2.254")}}
	}, doctor.Failure, "packets leave by eth0 via 192.0.2.254", "restart flanneld"},
	{"packets to a peer stay on this host", "peers", func(f *doctor.Facts) {
		f.Routes = f.Routes[:3]
		f.Hops[peer] = doctor.Hop{Hop: ip.Hop{Link: "lo"}}
	}, doctor.Failure, "packets leave by lo", "restart flanneld"},
	{"forwarding is off on the host", "forwarding", func(f *doctor.Facts) { f.Sysctls["net/ipv4/ip_forward"] = 0 },
		doctor.Failure, "ip_forward is 0", "sysctl -q -w net.ipv4.ip_forward=1"},
	{"forwarding is off on the underlay", "forwarding",
		func(f *doctor.Facts) { f.Sysctls["net/ipv4/conf/eth0/forwarding"] = 0 }, doctor.Failure, "off on eth0",
		"conf/eth0/forwarding=1"},
	{"forwarding is off on bridge and device", "forwarding", func(f *doctor.Facts) {
		f.Sysctls["net/ipv4/conf/cni0/forwarding"], f.Sysctls["net/ipv4/conf/flannel.1/forwarding"] = 0, 0
	}, doctor.Failure, "off on cni0, flannel.1", "conf/flannel.1/forwarding=1"},
	{"the reverse path filter is strict", "rp-filter",
		func(f *doctor.Facts) { f.Sysctls["net/ipv4/conf/flannel.1/rp_filter"] = 1 }, doctor.Warning, "strict on flannel.1",
		"rp_filter=2"},
	{"FORWARD drops", "forward-chain", func(f *doctor.Facts) { f.Rules[0].Text = "-P FORWARD DROP\n" }, doctor.Failure,
		"DROP", ""},
	{"FORWARD drops, and a rule accepts", "forward-chain",
		func(f *doctor.Facts) { f.Rules[0].Text = "-P FORWARD DROP\n-A FORWARD -s 10.5.0.0/16 -j ACCEPT\n" },
		doctor.Good, "", ""},
	{"docker has an earlier subnet", "bridge",
		func(f *doctor.Facts) { f.Links = append(f.Links, link("docker0", 1450, "10.5.7.1/24")) }, doctor.Failure,
		"docker0 has 10.5.7.1/24", "restart docker"},
	{"docker has a range of its own", "bridge",
		func(f *doctor.Facts) { f.Links = append(f.Links[:2], link("docker0", 1500, "172.17.0.1/16")) }, doctor.Good,
		"no bridge", ""},
	{"docker and CNI have one address", "bridge-addresses",
		func(f *doctor.Facts) { f.Links = append(f.Links, link("docker0", 1450, "10.5.1.1/24")) },
		doctor.Failure, "cni0 and docker0 both use 10.5.1.0/24", "--bip=10.5.1.1/25"},
	{"docker and CNI share by halves", "bridge-addresses", func(f *doctor.Facts) {
		f.Links = append(f.Links[:2], link("cni0", 1450, "10.5.1.129/25"), link("docker0", 1450, "10.5.1.1/25"))
	}, doctor.Good, "", ""},
	{"docker 28 drops direct packets, by iptables", "docker-routing", func(f *doctor.Facts) {
		f.Rules[1].Text = "-P PREROUTING ACCEPT\n-A PREROUTING -d 10.5.1.2/32 ! -i docker0 -j DROP\n"
	},
		doctor.Failure, "10.5.1.2", "allow-direct-routing"},
	{"docker 29 drops direct packets, by nftables", "docker-routing", func(f *doctor.Facts) {
		f.Rules = append(f.Rules,
			doctor.Rules{Program: "nft", Table: "raw",
				Text: "\t\tip daddr 10.5.1.3 iifname != \"docker0\" counter packets 0 bytes 0 " +
					"drop comment \"DROP DIRECT ACCESS\"\n"})
	}, doctor.Failure, "10.5.1.3", "allow-direct-routing"},
	{"docker drops packets of a bridge that is not in the network", "docker-routing",
		func(f *doctor.Facts) { f.Rules[1].Text = "-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP\n" },
		doctor.Good, "", ""},
	{"the tunnel port is filtered", "tunnel", unanswered(true, false), doctor.Failure, "filtered", "UDP port 8472"},
	{"another tunnel port is filtered", "tunnel", func(f *doctor.Facts) {
		unanswered(true, false)(f)
		f.Snapshot.Config = []byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","port":4789}}`)
	}, doctor.Failure, "filtered", "UDP port 4789, for example iptables -I INPUT -p udp --dport 4789"},
	{"the protocol of the tunnel is filtered", "tunnel", func(f *doctor.Facts) {
		unanswered(true, false)(f)
		f.Snapshot.Config = []byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"ipip"}}`)
		for _, e := range f.Snapshot.Entries {
			for i := range e.Leases {
				e.Leases[i].BackendType = "ipip"
			}
		}
	}, doctor.Failure, "filtered", "allow IP protocol 4"},
	{"a peer is down", "tunnel", unanswered(false, false), doctor.Failure, "neither", "ping"},
	{"the daemon of a peer is dead", "tunnel", unanswered(true, true), doctor.Warning, "does not answer probes", "doctor"},
	{"a peer does not answer handshakes", "handshakes", func(f *doctor.Facts) {
		f.Status.Backend, f.Status.Silent = "wireguard", []netip.Prefix{peer}
	}, doctor.Failure, "10.5.2.0/24", "flannelctl peers"},
	{"a peer does not answer handshakes any more", "handshakes", func(f *doctor.Facts) {
		f.Status.Backend, f.Status.Silent = "wireguard", []netip.Prefix{peer}
		f.Sessions = map[netip.Prefix]api.Session{peer: handshake(f, 5*time.Minute)}
	}, doctor.Failure, " (last handshake 5m0s ago)", "flannelctl peers"},
	{"a peer has never answered a handshake", "handshakes", func(f *doctor.Facts) {
		f.Status.Backend, f.Status.Silent = "wireguard", []netip.Prefix{peer}
		f.Sessions = map[netip.Prefix]api.Session{peer: {}}
	}, doctor.Failure, " (no handshake yet)", "flannelctl peers"},
	{"peers have sessions", "handshakes", func(f *doctor.Facts) {
		f.Status.Backend = "wireguard"
		f.Sessions = map[netip.Prefix]api.Session{peer: handshake(f, time.Minute),
			netip.MustParsePrefix("10.5.3.0/24"): handshake(f, 90*time.Second), netip.MustParsePrefix("10.5.4.0/24"): {}}
	}, doctor.Good, "last handshakes with 2 of 3 peers, 1m0s to 1m30s ago", ""},
	{"no peer was sent anything", "handshakes", func(f *doctor.Facts) {
		f.Status.Backend, f.Sessions = "wireguard", map[netip.Prefix]api.Session{peer: {}}
	}, doctor.Good, "no handshakes yet", ""},
	{"large packets are lost", "path-mtu", func(f *doctor.Facts) { f.Probes[peer] = probe.Result{Sent: 3, PathMTU: 1350} },
		doctor.Failure, "1350", "network edit"},
	{"a peer is behind", "versions", func(f *doctor.Facts) { f.Probes[peer] = probe.Result{Sent: 3, Version: "v1"} },
		doctor.Warning, "10.5.2.0/24", "upgrade"},
	{"wrong checksums", "checksums", func(f *doctor.Facts) { f.Sums[0].Bad = 100 }, doctor.Failure,
		"100 of 1100 Udp", "ethtool"},
	{"the table of connections is full", "connection-table",
		func(f *doctor.Facts) { f.Sysctls["net/netfilter/nf_conntrack_count"] = 950 }, doctor.Failure,
		"950 of at most 1000", "sysctl"},
	{"more peers than neighbours", "neighbour-table",
		func(f *doctor.Facts) { f.Sysctls["net/ipv4/neigh/default/gc_thresh3"] = 1 }, doctor.Failure, "at most 1",
		"gc_thresh3=4"},
	{"a device of another network of this host", "leftovers", func(f *doctor.Facts) {
		f.Links, f.Others = append(f.Links, link("flannel.7", 1450)), []subnet.State{{Links: []string{"flannel.7"}}}
	}, doctor.Good, "", ""},
	{"a device of a former flannel", "leftovers",
		func(f *doctor.Facts) { f.Links = append(f.Links, link("flannel.7", 1450)) }, doctor.Warning, "flannel.7", "cleanup"},
}

// handshake is a session whose last one was some time ago.
func handshake(f *doctor.Facts, ago time.Duration) api.Session {
	at := f.Now.Add(-ago)
	return api.Session{Handshake: &at}
}

// unanswered are three lost probes; the peer's host answers pings on the underlay, and through the tunnel.
func unanswered(underlay, tunnel bool) func(*doctor.Facts) {
	return func(f *doctor.Facts) {
		f.Probes[peer] = probe.Result{Sent: 3, Lost: 3}
		f.Pings[netip.MustParseAddr("192.0.2.2")], f.Pings[peer.Addr()] = underlay, tunnel
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			f := healthy()
			tt.fault(f)
			d := find(t, f, tt.check)
			if d.Result != tt.result || !strings.Contains(d.Evidence, tt.says) || !strings.Contains(d.Fix, tt.fix) {
				t.Errorf("got %+v\nwant %s, %q, fix %q", d, tt.result, tt.says, tt.fix)
			}
		})
	}
}

// Whoever may not read the state must not be told that it is corrupt, and no advice may remove it.
func TestNoAdviceRemovesTheState(t *testing.T) {
	for name, err := range map[string]error{
		"permission": fmt.Errorf("read state: %w", fs.ErrPermission),
		"disk":       errors.New("read state: input/output error"),
		"corrupt":    fmt.Errorf("read state: %w", &json.SyntaxError{}),
	} {
		f := healthy()
		dead(f)
		f.State, f.StateErr = subnet.State{}, err
		f.Derive()
		for _, d := range doctor.Diagnose(f) {
			for _, word := range strings.FieldsFunc(d.Fix, func(r rune) bool { return r == ' ' || r == ';' || r == '&' }) {
				if word == "mv" || word == "rm" {
					t.Errorf("%s: %s advises %q", name, d.Check, d.Fix)
				}
			}
		}
		d := find(t, f, "state")
		if name == "permission" && (d.Result != doctor.Skipped || !strings.Contains(d.Evidence, "root")) {
			t.Errorf("a user without rights is told %+v", d)
		}
	}
}

func TestEveryCheckWithoutDaemonAndStoreSaysSomething(t *testing.T) {
	f := healthy()
	dead(f)
	f.StoreErr = errors.New("list records: refused")
	f.State.Config, f.State.Links = config, []string{"flannel.1"}
	f.State.Memory.Records = subnet.Stale(record("you", "b", peer, "192.0.2.2"))
	f.Derive()
	if len(f.Peers) != 1 || len(f.Subnets) != 1 || f.MTU != 1450 {
		t.Errorf("from the state alone: peers %v, subnets %v, MTU %d", f.Peers, f.Subnets, f.MTU)
	}
	for _, d := range doctor.Diagnose(f) {
		if d.Evidence == "" {
			t.Errorf("%s says nothing", d.Check)
		}
	}
}

func TestRecordsThatDoNotFitAConfiguration(t *testing.T) {
	entry := func(backend string, prefixes ...string) *subnet.Entry {
		r := subnet.Record{Host: "h"}
		for _, p := range prefixes {
			r.Leases = append(r.Leases,
				subnet.Lease{Subnet: netip.MustParsePrefix(p), Attrs: subnet.Attrs{BackendType: backend}})
		}
		return &subnet.Entry{Record: r, LeaseID: 1}
	}
	reservation := entry("udp", "10.5.1.0/24")
	reservation.LeaseID = 0
	tests := []struct {
		name, config string
		entry        *subnet.Entry
		want         string
	}{
		{"it fits", `{"Network":"10.5.0.0/16"}`, entry("udp", "10.5.1.0/24"), ""},
		{"outside the range", `{"Network":"10.6.0.0/16"}`, entry("udp", "10.5.1.0/24"), "not a /24 inside"},
		{"another length", `{"Network":"10.5.0.0/16","SubnetLen":25}`, entry("udp", "10.5.1.0/24"), "not a /25 inside"},
		{"another backend", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`, entry("udp", "10.5.1.0/24"),
			"its backend is udp"},
		{"a reservation that nobody has taken", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`, reservation, ""},
		{"a family that is off", `{"Network":"10.5.0.0/16"}`, entry("udp", "10.5.1.0/24", "fd00:5:0:1::/64"), "not enabled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := subnet.ParseConfig([]byte(tt.config))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(doctor.Unfit(c, []*subnet.Entry{tt.entry}), "; ")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
