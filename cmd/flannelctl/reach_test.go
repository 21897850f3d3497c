package main_test

import (
	"net/netip"
	"strings"
	"testing"

	"flanneld/api"
	flannelctl "flanneld/cmd/flannelctl"
)

func TestWhatToPingIsFoundByNameSubnetAndAddress(t *testing.T) {
	peers := []api.Peer{
		{Host: "host2", Subnet: netip.MustParsePrefix("10.5.46.0/24"), PublicIP: netip.MustParseAddr("192.0.2.2")},
		{Host: "host2", Subnet: netip.MustParsePrefix("fd00:5:46::/64"), PublicIP: netip.MustParseAddr("2001:db8::2")},
		{Subnet: netip.MustParsePrefix("10.5.47.0/24"), PublicIP: netip.MustParseAddr("192.0.2.3")},
	}
	tunnel := api.Status{Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.9.0/24")}, Devices: []string{"flannel.1"}}
	for _, tt := range []struct {
		name   string
		text   string
		status api.Status
		want   string // the address, or a part of the error
	}{
		{"a pod", "10.5.46.7", tunnel, "10.5.46.7"},
		{"a pod with an IPv6 address", "fd00:5:46::7", tunnel, "fd00:5:46::7"},
		{"a host by its name", "host2", tunnel, "10.5.46.0"},
		{"a host by its address on the underlay", "192.0.2.3", tunnel, "10.5.47.0"},
		{"a host by its subnet", "fd00:5:46::/64", tunnel, "fd00:5:46::"},
		{"a host, of a backend without a device", "host2", api.Status{}, "192.0.2.2"},
		{"a pod, of a backend without a device", "10.5.46.7", api.Status{}, "10.5.46.7"},
		{"a pod of this host", "10.5.9.7", tunnel, "own subnet"},
		{"an address outside of the network", "10.9.0.1", tunnel, "no peer"},
		{"a name that nobody has", "host9", tunnel, "no peer"},
		{"an empty name", "", tunnel, "no peer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, addr, err := flannelctl.Destination(tt.text, tt.status, peers)
			got := addr.String()
			if err != nil {
				got = err.Error()
			}
			if err == nil && got != tt.want || !strings.Contains(got, tt.want) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestChecksumOfEchoRequests(t *testing.T) {
	// The sum over a packet with its checksum is zero (RFC 1071), also where the number of bytes is odd.
	for _, size := range []int{16, 17} {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(200 + i)
		}
		b[2], b[3] = 0, 0
		sum := flannelctl.Checksum(b)
		b[2], b[3] = byte(sum>>8), byte(sum)
		if got := flannelctl.Checksum(b); got != 0 {
			t.Errorf("of %d bytes with their checksum the checksum is %#x, want 0", size, got)
		}
	}
}
