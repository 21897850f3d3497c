package main

import (
	"testing"

	"flanneld/subnet"
)

// FuzzArguments reads what operators give: subnets, addresses, environment files and their flags.
func FuzzArguments(f *testing.F) {
	f.Add("10.5.34.0/24, fd00:5:0:22::/64")
	f.Add("subnets/10.5.34.0-24&fd00:5:0:22::-64")
	f.Add("192.0.2.1,2001:db8::1")
	f.Add("FLANNELD_ETCD_ENDPOINTS='http://192.0.2.1:2379'\nFLANNEL_OPTIONS=\"-iface=eth1 --v 1 \\\"x\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		if prefixes, err := parseSubnets(text); err == nil {
			if _, err := subnet.ParseKey(subnet.Key(prefixes)); err != nil {
				t.Errorf("%q is read as %v: %v", text, prefixes, err)
			}
		}
		if addrs, err := parseAddrs(text); err == nil {
			for _, a := range addrs {
				if !a.IsValid() {
					t.Errorf("%q is read as %v", text, addrs)
				}
			}
		}
		parseConf(text)
		words(text)
	})
}
