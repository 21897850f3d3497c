package subnet_test

import (
	"testing"

	"flanneld/subnet"
)

func TestAMoveChangesNothingElseInTheConfiguration(t *testing.T) {
	vxlan := subnet.Setting{Type: "vxlan", Object: []byte(`{"Type":"vxlan"}`)}
	wg := subnet.Setting{Type: "wireguard", Object: []byte(`{"Type":"wireguard","PSK":"x"}`)}
	none, udp := subnet.Setting{}, subnet.Setting{Type: "udp"}
	for _, tt := range []struct {
		name, text                     string
		main, next, previous, migrated subnet.Setting
		want                           string
	}{
		{"it begins", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"},"Mine":[1, 2]}`, vxlan, wg, none, none,
			`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"},"Mine":[1,2],"Next":{"Type":"wireguard","PSK":"x"}}`},
		{"it switches", `{"network":"10.5.0.0/16","backend":{"Type":"vxlan"},"next":{"Type":"wireguard"}}`, wg, none, vxlan,
			none, `{"network":"10.5.0.0/16","backend":{"Type":"wireguard","PSK":"x"},"Previous":{"Type":"vxlan"}}`},
		{"it ends", `{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard"},"Previous":{"Type":"vxlan"}}`, wg, none, none, vxlan,
			`{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard","PSK":"x"},"Migrated":{"Type":"vxlan"}}`},
		{"a configuration without a backend", `{"Network":"10.5.0.0/16"}`, udp, vxlan, none, none,
			`{"Network":"10.5.0.0/16","Backend":{"Type":"udp"},"Next":{"Type":"vxlan"}}`},
		{"lines stay lines", "{\n  \"Network\": \"10.5.0.0/16\"\n}\n", vxlan, none, none, none,
			"{\n  \"Network\": \"10.5.0.0/16\",\n  \"Backend\": {\n    \"Type\": \"vxlan\"\n  }\n}"},
	} {
		got, err := subnet.Move([]byte(tt.text), tt.main, tt.next, tt.previous, tt.migrated)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: got %s, %v, want %s", tt.name, got, err, tt.want)
		}
		if _, err := subnet.ParseConfig(got); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if got, err := subnet.Move([]byte(`[]`), vxlan, none, none, none); err == nil {
		t.Errorf("of no object: %s", got)
	}
}
