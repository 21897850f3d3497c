package check_test

import (
	"testing"

	"flanneld/backend/check"
	"flanneld/subnet"
)

func TestOptionsThatAHostMayChangeByItself(t *testing.T) {
	for _, tt := range []struct {
		now, then string
		want      bool
	}{
		{`{"Type":"vxlan"}`, `{"Type":"vxlan","MTU":1400}`, true},
		{`{"Type":"vxlan","MTU":1400,"Port":8472}`, `{"Type":"vxlan","VNI":1,"DirectRouting":true}`, true},
		{`{"Type":"vxlan"}`, `{"Type":"vxlan","Port":4789}`, false},
		{`{"Type":"vxlan"}`, `{"Type":"vxlan","VNI":2}`, false},
		{`{"Type":"vxlan"}`, `{"Type":"vxlan","GBP":true,"MTU":1400}`, false},
		{`{"Type":"vxlan"}`, `{"Type":"vxlan","MTU":-1}`, false},
		{`{"Type":"vxlan"}`, `{"Type":"udp"}`, false},
		{`{"Type":"udp"}`, `{"Type":"udp","MTU":1400}`, true},
		{`{"Type":"udp"}`, `{"Type":"udp","Port":4444}`, false},
		{`{"Type":"wireguard"}`, `{"Type":"wireguard","MTU":1400,"PersistentKeepaliveInterval":25}`, true},
		{`{"Type":"wireguard"}`, `{"Type":"wireguard","ListenPort":4444}`, false},
		{`{"Type":"wireguard"}`, `{"Type":"wireguard","Mode":"auto"}`, false},
		{`{"Type":"ipip"}`, `{"Type":"ipip","DirectRouting":true}`, true},
		{`{"Type":"host-gw"}`, `{"Type":"host-gw","any":1}`, true},
		{`{"Type":"alloc"}`, `{"Type":"alloc"}`, false},
	} {
		config := func(backend string) subnet.Config {
			c, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":` + backend + `}`))
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		if got := check.Adjusts(config(tt.now), config(tt.then)); got != tt.want {
			t.Errorf("from %s to %s: %v, want %v", tt.now, tt.then, got, tt.want)
		}
	}
}
