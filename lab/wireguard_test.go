package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/lab"
)

// wireguardConfig is a network configuration with options for the backend.
func wireguardConfig(families lab.Families, options string) string {
	return fmt.Sprintf(`{"EnableIPv4":%t,"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","EnableIPv6":%t,"IPv6Network":"fd00:5::/48",
		"Backend":{"Type":"wireguard"%s}}`, families.Has(lab.IPv4), families.Has(lab.IPv6), options)
}

const psk = "cHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrMTI="

// TestWireGuardCarriesPacketsInEachMode has two hosts exchange packets of the largest size, and looks at the wire.
func TestWireGuardCarriesPacketsInEachMode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		families lab.Families
		options  string
		ports    string // that packets go to
	}{
		{"IPv4", lab.IPv4, ``, "51820"},
		{"IPv6", lab.IPv6, ``, "51821"},
		{"separate", lab.Dual, `,"PSK":"` + psk + `","PersistentKeepaliveInterval":25,"ListenPort":4500,"ListenPortV6":4501`,
			"4500 4501"},
		{"auto", lab.Dual, `,"Mode":"auto"`, "51820"},
		{"ipv4", lab.Dual, `,"Mode":"ipv4"`, "51820"},
		{"ipv6", lab.Dual, `,"Mode":"ipv6","ListenPort":4500`, "4500"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			hosts, e := c.hosts(2), c.etcd(wireguardConfig(tt.families, tt.options))
			wire := must[*lab.Capture](t)(hosts[0].Capture("eth0"))
			defer wire.Stop()
			c.startAll(hosts, e)
			pods := c.pods(hosts...)
			for i, addr := range pods[1].Addrs {
				_, err := pods[0].Ping(c.ctx, addr, lab.PingOptions{Size: 1420, DontFragment: true})
				c.ok(err)
				c.transfer(pods[0].Namespace, pods[1].Namespace, addr, 5<<20)
				c.transfer(pods[1].Namespace, pods[0].Namespace, pods[0].Addrs[i], 5<<20)
			}
			wantEncrypted(t, wire, [2]*lab.Pod{pods[0], pods[1]}, tt.ports)
			c.await(func() error { // what the daemon knows of the device is a few seconds old
				for _, p := range ctlJSON[[]api.Peer](c, hosts[0], "peers") {
					if t := p.Traffic; t == nil || t.SentBytes < 5<<20 || t.ReceivedBytes < 5<<20 {
						return fmt.Errorf("the traffic of %s is %+v", p.Subnet, t)
					}
				}
				return nil
			})
		})
	}
}

// restartGap bounds how long traffic is away while a daemon restarts whose process holds the sessions, on an idle
// machine. A peer that did not get a handshake at the start of the daemon would wait 15 s.
var restartGap = scaled(time.Second)

// TestWireGuardInTheDaemon goes through what can happen to the devices of the daemon's own process, in one cluster.
//
// Slow: a peer counts as silent when it has had 15 s to answer a handshake.
func TestWireGuardInTheDaemon(t *testing.T) {
	if !kernelHasAll { // else it takes the module from all tests
		t.Parallel()
	}
	c := newCluster(t)
	c.withoutWireGuard()
	hosts, e := c.hosts(3), c.etcd(wireguardConfig(lab.Dual, `,"PSK":"`+psk+`"`))
	daemons := c.startAll(hosts, e)
	pods := c.pods(hosts...)
	s := &wireguardSite{c, hosts, daemons, pods}
	t.Run("records name key and port", func(t *testing.T) { s.records(t, e) })
	t.Run("no secret is told", s.secrets)
	t.Run("what is deleted comes back", s.tampered)
	t.Run("a restart interrupts traffic only until the first handshakes", func(t *testing.T) { s.restarted(t, e) })
	t.Run("the key is kept without the run folder", func(t *testing.T) { s.rebooted(t, e) })
	t.Run("a new key interrupts traffic for a moment only", func(t *testing.T) { s.rotated(t, e) })
	t.Run("a peer that does not answer handshakes is named", func(t *testing.T) { s.silent(t, e) })
	t.Run("a host that leaves is no peer any more", func(t *testing.T) { s.left(t, e) })
}

type wireguardSite struct {
	*cluster
	hosts   []*lab.Host
	daemons []*lab.Daemon
	pods    []*lab.Pod
}

func (s *wireguardSite) reachable(t *testing.T) {
	t.Helper()
	for _, from := range s.pods {
		for _, to := range s.pods {
			for _, addr := range to.Addrs {
				s.await(func() error {
					_, err := from.Ping(s.ctx, addr, lab.PingOptions{})
					return err
				})
			}
		}
	}
}

func (s *wireguardSite) records(t *testing.T, e *lab.Etcd) {
	s.reachable(t)
	for _, text := range must[map[string]string](t)(e.Records(s.ctx)) {
		var r struct {
			BackendType                string
			BackendData, BackendV6Data struct {
				PublicKey string
				Port      int
			}
		}
		s.ok(json.Unmarshal([]byte(text), &r))
		if r.BackendType != "wireguard" || len(r.BackendData.PublicKey) != 44 ||
			r.BackendV6Data.PublicKey != r.BackendData.PublicKey ||
			r.BackendData.Port != 51820 || r.BackendV6Data.Port != 51821 {
			t.Errorf("record %s", text)
		}
	}
}

// secrets looks for the keys in what the daemon says.
func (s *wireguardSite) secrets(t *testing.T) {
	h, d := s.hosts[0], s.daemons[0]
	key := strings.TrimSpace(string(must[[]byte](t)(os.ReadFile(filepath.Join(filepath.Dir(h.SubnetFile()), "wgkey")))))
	_, status, err := d.Get(s.ctx, "/status")
	s.ok(err)
	_, metrics, err := d.Get(s.ctx, "/metrics")
	s.ok(err)
	file := filepath.Join(h.Dir(), "secrets.tar.gz")
	s.ctlOK(h, "bundle", "-f", file)
	bundle := must[string](t)(h.Output("tar -xzOf " + file))
	if !strings.Contains(bundle, "flannel-wg-v6") {
		t.Error("the bundle does not name the device")
	}
	for where, text := range map[string]string{"log": d.Log(), "status": status, "metrics": metrics, "bundle": bundle} {
		for what, secret := range map[string]string{"private key": key, "preshared key": psk} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s is in the %s", what, where)
			}
		}
	}
}

func (s *wireguardSite) tampered(t *testing.T) {
	h := s.hosts[0]
	for _, command := range []string{
		"ip link del flannel-wg", "ip link set flannel-wg-v6 down", "ip link set flannel-wg mtu 1300",
		"ip addr flush dev flannel-wg", "ip -6 route flush dev flannel-wg-v6 proto 70",
	} {
		before := must[string](t)(h.Output("ip -br addr show dev flannel-wg"))
		pings := must[*lab.Pings](t)(s.pods[0].Pings(s.pods[1].Addrs[0], lab.PingOptions{}))
		answered(t, s.cluster, pings, 3)
		s.ok(h.Run(command))
		s.reachable(t)
		answered(t, s.cluster, pings, 3)
		s.inTime("the gap in the traffic after "+command, pings.Stop().LongestGap, scaled(2*time.Second))
		if after := must[string](t)(h.Output("ip -br addr show dev flannel-wg")); after != before {
			t.Errorf("%s: %s, before %s", command, after, before)
		}
	}
}

// restarted wants the shortest of some gaps to be in time: what else the machine does makes others longer.
func (s *wireguardSite) restarted(t *testing.T, e *lab.Etcd) {
	shortest := time.Hour
	for range 5 {
		pings := must[*lab.Pings](t)(s.pods[1].Pings(s.pods[0].Addrs[0], lab.PingOptions{}))
		answered(t, s.cluster, pings, 3)
		s.ok(s.daemons[0].Stop(s.ctx))
		s.daemons[0] = s.flanneld(s.hosts[0], e)
		answered(t, s.cluster, pings, 3)
		gap := pings.Stop().LongestGap
		t.Logf("a restart took the traffic away for %s", gap.Round(time.Millisecond))
		shortest = min(shortest, gap)
	}
	s.inTime("the shortest gap in the traffic", shortest, restartGap)
	s.reachable(t)
}

func (s *wireguardSite) rebooted(t *testing.T, e *lab.Etcd) {
	public := s.public(t, e)
	h := s.hosts[0]
	s.ok(s.daemons[0].Stop(s.ctx))
	s.ok(os.RemoveAll(filepath.Dir(h.SubnetFile())))
	s.daemons[0] = s.flanneld(h, e)
	if now := s.public(t, e); now != public {
		t.Errorf("public key %s, before %s", now, public)
	}
	s.reachable(t)
}

// silent has doctor look at a host that starts while a peer's daemon is dead. The pings make it ask for a session.
// (Where there is one, it is good for three minutes.)
func (s *wireguardSite) silent(t *testing.T, e *lab.Etcd) {
	pings := must[*lab.Pings](t)(s.pods[0].Pings(s.pods[1].Addrs[0], lab.PingOptions{}))
	defer pings.Cut()
	s.find(t, s.hosts[0], fault{name: "doctor", check: "handshakes", says: "do not answer handshakes: ",
		inject: func() error {
			err := errors.Join(s.daemons[1].Stop(s.ctx), s.daemons[0].Stop(s.ctx))
			s.daemons[0] = s.flanneld(s.hosts[0], e)
			return err
		},
		undo: func() error {
			s.daemons[1] = s.flanneld(s.hosts[1], e)
			return nil
		}})
	s.reachable(t)
}

// public returns the record of the first host.
func (s *wireguardSite) public(t *testing.T, e *lab.Etcd) string {
	t.Helper()
	for _, text := range must[map[string]string](t)(e.Records(s.ctx)) {
		if strings.Contains(text, `"`+s.hosts[0].Addr.String()+`"`) {
			return text
		}
	}
	t.Fatal("the first host has no record")
	return ""
}

func (s *wireguardSite) left(t *testing.T, e *lab.Etcd) {
	for key, text := range must[map[string]string](t)(e.Records(s.ctx)) {
		if strings.Contains(text, `"`+s.hosts[2].Addr.String()+`"`) {
			s.ok(s.daemons[2].Stop(s.ctx))
			s.ok(e.Delete(s.ctx, key))
		}
	}
	s.await(func() error {
		ctx, cancel := context.WithTimeout(s.ctx, 100*time.Millisecond)
		defer cancel()
		if _, err := s.pods[0].Ping(ctx, s.pods[2].Addrs[0], lab.PingOptions{}); err == nil {
			return errors.New("still reached")
		}
		return nil
	})
}
