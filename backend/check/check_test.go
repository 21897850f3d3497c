package check_test

import (
	"strings"
	"testing"

	"flanneld/backend/check"
)

func TestANetworkIsRefusedWithTheReasonAndTheWayOut(t *testing.T) {
	for _, tt := range []struct{ backend, want string }{
		{`{"Type":"vxlan","VNI":7}`, ""},
		{`{"Type":"vxlan","VNI":-1}`, "VNI"},
		{`{"Type":"host-gw"}`, ""},
		{`{"Type":"wireguard","Mode":"fast"}`, "Mode"},
		{`{"Type":"ipsec","PSK":"secret"}`, `"wireguard", which also encrypts`},
		{`{"Type":"aws-vpc"}`, `"vxlan", which needs no rights in the cloud`},
		{`{"Type":"ali-vpc"}`, `"vxlan", which needs no rights in the cloud`},
		{`{"Type":"gce"}`, `"vxlan", which needs no rights in the cloud`},
		{`{"Type":"Tencent-VPC"}`, `"vxlan", which needs no rights in the cloud`},
		{`{"Type":"carrier-pigeon"}`, `"carrier-pigeon" is not available: want one of alloc, host-gw`},
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
