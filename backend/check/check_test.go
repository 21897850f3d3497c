package check_test

import (
	"slices"
	"strings"
	"testing"

	"flanneld/backend/alloc"
	"flanneld/backend/check"
	"flanneld/backend/hostgw"
	"flanneld/backend/udp"
	"flanneld/backend/vxlan"
	"flanneld/backend/wireguard"
)

func TestANetworkIsRefusedWithTheReasonAndTheWayOut(t *testing.T) {
	for _, tt := range []struct{ backend, want string }{
		{`{"Type":"vxlan","VNI":7}`, ""},
		{`{"Type":"vxlan","VNI":-1}`, "VNI"},
		{`{"Type":"host-gw"}`, ""},
		{`{"Type":"ipip","DirectRouting":true}`, ""},
		{`{"Type":"extension","SubnetAddCommand":"ip route replace $SUBNET via $PUBLIC_IP"}`, ""},
		{`{"Type":"extension","SubnetAddCommand":"a; b"}`, "for a shell"},
		{`{"Type":"ipip","DirectRouting":1}`, "DirectRouting is of the type number, want true or false"},
		{`{"Type":"udp","Port":"x"}`, "Port is of the type string, want a whole number"},
		{`{"Type":"wireguard","PSK":123456}`, "PSK is of the type number, want a string"},
		{`{"Type":"wireguard","Mode":"fast"}`, "Mode"},
		{`{"Type":"ipsec","PSK":"secret"}`, `"wireguard", which also encrypts`},
		{`{"Type":"aws-vpc"}`, `"vxlan", which needs no rights in the cloud`},
		{`{"Type":"ali-vpc"}`, `"vxlan", which needs no rights in the cloud`},
		{`{"Type":"gce"}`, `"vxlan", which needs no rights in the cloud`},
		{`{"Type":"Tencent-VPC"}`, `"vxlan", which needs no rights in the cloud`},
		{`{"Type":"carrier-pigeon"}`, `"carrier-pigeon" is not available: want one of alloc, extension, host-gw`},
	} {
		_, err := check.Network([]byte(`{"Network":"10.5.0.0/16","Backend":` + tt.backend + `}`))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.backend, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows a secret: %v", tt.backend, err)
		}
	}
}

func TestEveryBackendHasItsName(t *testing.T) {
	for _, name := range []string{alloc.Type, hostgw.Type, udp.Type, vxlan.Type, wireguard.Type} {
		if !slices.Contains(check.Types(), name) {
			t.Errorf("%s is not among %q", name, check.Types())
		}
	}
}
