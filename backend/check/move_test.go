package check_test

import (
	"strings"
	"testing"

	"flanneld/backend/check"
	"flanneld/subnet"
)

func TestAMoveIsRefusedWithTheReasonAndTheWayOut(t *testing.T) {
	for _, tt := range []struct{ from, to, want string }{
		{`{"Type":"vxlan"}`, `{"Type":"wireguard"}`, ""},
		{`{"Type":"vxlan"}`, `{"Type":"vxlan","VNI":2,"Port":4789,"MTU":1400}`, ""},
		{`{"Type":"vxlan"}`, `{"Type":"vxlan","Port":4789}`, "another VNI, such as 3"},
		{`{"Type":"vxlan","VNI":2}`, `{"Type":"vxlan","VNI":65538}`, "another VNI"},
		{`{"Type":"vxlan"}`, `{"Type":"vxlan","VNI":2,"GBP":true}`, "another port"},
		{`{"Type":"vxlan"}`, `{"type":"VXLAN"}`, "has it already"},
		{`{"Type":"udp"}`, `{"Type":"udp","Port":4444}`, "move to another backend first"},
		{`{"Type":"wireguard"}`, `{"Type":"wireguard","ListenPort":4444}`, "move to another backend first"},
		{`{"Type":"vxlan"}`, `{"Type":"alloc"}`, "carries no packets"},
		{`{"Type":"extension","SubnetAddCommand":"a"}`, `{"Type":"vxlan"}`, "commands"},
		{`{"Type":"vxlan"}`, `{"Type":"wireguard","Mode":"fast"}`, "Mode"},
		{`{"Type":"vxlan"}`, `{"Type":"gce"}`, "not available"},
	} {
		text := []byte(`{"Network":"10.5.0.0/16","Backend":` + tt.from + `,"Next":` + tt.to + `}`)
		err := check.Text(text)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("from %s to %s: got %v, want %q", tt.from, tt.to, err, tt.want)
		}
		if _, err := check.Network(text); err != nil {
			t.Errorf("from %s to %s: the daemon does not start: %v", tt.from, tt.to, err)
		}
	}
}

func TestAWayIsTheBackendOfItsTypeAndVNI(t *testing.T) {
	vni2 := subnet.Setting{Type: "vxlan", Object: []byte(`{"Type":"vxlan","VNI":2}`)}
	for _, tt := range []struct {
		way  subnet.Offer
		is   subnet.Setting
		want bool
	}{
		{subnet.Offer{Type: "vxlan", Data: `{"VNI":2}`}, vni2, true},
		{subnet.Offer{Type: "vxlan", Data: `{"VNI":1}`}, vni2, false},
		{subnet.Offer{Type: "vxlan"}, vni2, false},
		{subnet.Offer{Type: "udp"}, vni2, false},
		{subnet.Offer{Type: "udp"}, subnet.Setting{Type: "udp"}, true},
	} {
		if got := check.Is(tt.way, tt.is); got != tt.want {
			t.Errorf("%v is %v: %v, want %v", tt.way, tt.is, got, tt.want)
		}
	}
}
