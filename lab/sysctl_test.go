package lab_test

import (
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// distributions are settings that distributions and their hardening guides give to all interfaces that come later.
var distributions = map[string]map[string]string{
	"strict reverse paths": {"net/ipv4/conf/default/rp_filter": "1", "net/ipv4/conf/all/rp_filter": "1"},
	"loose reverse paths":  {"net/ipv4/conf/default/rp_filter": "2", "net/ipv4/conf/all/rp_filter": "2"}, // systemd's
	"hardened": {
		"net/ipv4/conf/default/forwarding": "0", "net/ipv4/conf/default/accept_redirects": "0",
		"net/ipv4/conf/default/send_redirects":      "0",
		"net/ipv4/conf/default/accept_source_route": "0", "net/ipv4/conf/default/arp_ignore": "1",
		"net/ipv4/conf/default/arp_announce": "2",
		"net/ipv4/conf/default/log_martians": "1", "net/ipv6/conf/default/accept_ra": "0",
		"net/ipv6/conf/default/accept_redirects": "0",
		"net/ipv6/conf/default/autoconf":         "0", "net/ipv6/conf/default/router_solicitations": "0",
	},
	"IPv6 off on new interfaces": {"net/ipv6/conf/default/disable_ipv6": "1"},
	"privacy addresses":          {"net/ipv6/conf/default/use_tempaddr": "2", "net/ipv6/conf/default/addr_gen_mode": "3"},
}

// TestSettingsOfDistributionsForNewInterfacesDoNoHarm starts a host where each of the devices comes up with such
// settings.
func TestSettingsOfDistributionsForNewInterfacesDoNoHarm(t *testing.T) {
	t.Parallel()
	backends := []string{"vxlan", "udp", "wireguard"}
	if kernelHasAll {
		backends = append(backends, "ipip")
	}
	for _, backend := range backends {
		for name, settings := range distributions {
			t.Run(backend+", "+name, func(t *testing.T) {
				t.Parallel()
				n := network{backend, familiesOf(backend)}
				c := newClusterWith(t, lab.Options{Families: n.families})
				hosts, e := c.hosts(2), c.etcd(n.config())
				set := func(value func(string) string) {
					for key := range settings {
						c.ok(hosts[0].Sysctl(key, value(key)))
					}
				}
				before := map[string]string{}
				for key := range settings {
					before[key] = must[string](t)(hosts[0].Output("cat /proc/sys/" + key))
				}
				set(func(key string) string { return settings[key] })
				daemons := c.startAll(hosts, e)
				set(func(key string) string { return before[key] }) // what follows is not the daemon's
				pods := c.pods(hosts...)
				c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{Size: n.mtu(), DontFragment: true})
				c.reaches(pods[1].Namespace, pods[0], lab.PingOptions{})
				c.wantState(daemons[0], api.StateReady, "")
			})
		}
	}
}
