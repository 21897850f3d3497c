package udp_test

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"flanneld/backend"
	"flanneld/backend/udp"
	"flanneld/ip"
	"flanneld/subnet"

	"github.com/google/go-cmp/cmp"
)

var _ backend.Datapath = (*udp.Backend)(nil)

func lease(prefix, addr string) subnet.Lease {
	return subnet.Lease{Subnet: netip.MustParsePrefix(prefix),
		Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(addr), BackendType: udp.Type}}
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestOptions(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       udp.Options
		wantErr    string
	}{
		{"no backend at all", ``, udp.Options{Port: 8285, Offload: true, Kernel: true}, ""},
		{"the type alone", `{"Type":"udp"}`, udp.Options{Port: 8285, Offload: true, Kernel: true}, ""},
		{"names are matched without regard to case", `{"type":"udp","PORT":7000,"offload":false,"mtu":1400}`,
			udp.Options{Port: 7000, MTU: 1400}, ""},
		{"in user space", `{"Kernel":false}`, udp.Options{Port: 8285, Offload: true}, ""},
		{"not inside the kernel without offloads", `{"Kernel":true,"Offload":false}`, udp.Options{Port: 8285}, ""},
		{"port zero means the usual one", `{"Port":0}`, udp.Options{Port: 8285, Offload: true, Kernel: true}, ""},
		{"a port out of range", `{"Port":65536}`, udp.Options{}, "Port is 65536, want 1 to 65535"},
		{"an MTU that no packet fits into", `{"MTU":100}`, udp.Options{}, "MTU is 100, want 576 to 65535"},
		{"a wrong type", `{"Port":"x"}`, udp.Options{}, "backend udp"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := udp.ParseOptions([]byte(test.text))
			if text := errText(err); !strings.Contains(text, test.wantErr) || (text == "") != (test.wantErr == "") {
				t.Fatalf("got error %q, want %q", text, test.wantErr)
			}
			if diff := cmp.Diff(got, test.want); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestDesiredStateIsTheDeviceItsAddressesAndTheRouteOfTheNetwork(t *testing.T) {
	got := udp.Desired(prefixes("10.5.0.0/16", "fd00:5::/48"),
		[]subnet.Lease{lease("10.5.34.0/24", "192.0.2.1"), lease("fd00:5:0:22::/64", "2001:db8::1")}, 1452).String()
	want := `link flannel0 type tun mac 00:00:00:00:00:00 mtu 1452 up
addr 10.5.34.0/32 dev flannel0
addr fd00:5:0:22::/128 dev flannel0
route 10.5.0.0/16 dev flannel0
route fd00:5::/48 dev flannel0
`
	if diff := cmp.Diff(got, want); diff != "" {
		t.Error(diff)
	}
}

func TestWhatAHostPublishesAndTakesFromPeers(t *testing.T) {
	config, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}`))
	if err != nil {
		t.Fatal(err)
	}
	u := ip.Underlay{Link: "eth0", MTU: 9000,
		PublicAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
	b, err := udp.New(config, ip.Host{Underlay: func() ip.Underlay { return u }, Log: slog.New(slog.DiscardHandler)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := b.Attrs(netip.MustParsePrefix("fd00:5:0:1::/64")),
		(subnet.Attrs{PublicIP: u.PublicAddrs[1], BackendType: "udp"}); got != want {
		t.Errorf("publishes %+v, want %+v", got, want)
	}
	if got := b.MTU(); got != 8952 {
		t.Errorf("MTU %d, want 8952", got)
	}
	for _, test := range []struct{ prefix, addr, wantErr string }{
		{"10.5.2.0/24", "192.0.2.2", ""},
		{"fd00:5:0:2::/64", "2001:db8::2", ""},
		{"10.5.2.0/24", "2001:db8::2", "not of the subnet's family"},
		{"10.5.2.0/24", "10.5.3.1", "inside the network"},
	} {
		if err := b.Valid(lease(test.prefix, test.addr)); !strings.Contains(errText(err), test.wantErr) ||
			(err == nil) != (test.wantErr == "") {
			t.Errorf("%s at %s: got %v, want %q", test.prefix, test.addr, err, test.wantErr)
		}
	}
}
