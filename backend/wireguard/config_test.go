package wireguard_test

import (
	"slices"
	"testing"

	"flanneld/backend/wireguard"
	"flanneld/subnet"
)

func TestTheDevicesOfANetwork(t *testing.T) {
	for _, tt := range []struct {
		config string
		want   []string
	}{
		{`{"Network": "10.5.0.0/16", "Backend": {"Type": "wireguard"}}`, []string{"flannel-wg"}},
		{`{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "EnableIPv6": true, "Backend": {"Type": "wireguard"}}`,
			[]string{"flannel-wg", "flannel-wg-v6"}},
		{`{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "EnableIPv6": true, "Backend": {"Type": "wireguard", "Mode": "auto"}}`, []string{"flannel-wg"}},
	} {
		c, err := subnet.ParseConfig([]byte(tt.config))
		if err != nil {
			t.Fatal(err)
		}
		if got := wireguard.Devices(c); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.config, got, tt.want)
		}
	}
}
