package subnet_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/subnet"
)

var equate = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b error) bool { return fmt.Sprint(a) == fmt.Sprint(b) }),
}

func pool(network string, length int, low, high string) subnet.Pool {
	return subnet.Pool{
		Network: netip.MustParsePrefix(network), SubnetLen: length,
		Min: netip.MustParseAddr(low), Max: netip.MustParseAddr(high),
	}
}

func TestParseConfigAcceptsEveryFormThatFlannelDoes(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       subnet.Config
	}{
		{"a network alone means udp and /24", `{"Network":"10.5.0.0/16"}`, subnet.Config{
			Pools: []subnet.Pool{pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")}, BackendType: "udp"}},
		{"a /22 still has /24 subnets", `{"Network":"10.5.4.0/22"}`, subnet.Config{
			Pools: []subnet.Pool{pool("10.5.4.0/22", 24, "10.5.5.0", "10.5.7.0")}, BackendType: "udp"}},
		{"a /23 has subnets two bits longer", `{"Network":"10.5.4.0/23"}`, subnet.Config{
			Pools: []subnet.Pool{pool("10.5.4.0/23", 25, "10.5.4.128", "10.5.5.128")}, BackendType: "udp"}},
		{"the smallest network is a /28", `{"Network":"10.5.4.0/28"}`, subnet.Config{
			Pools: []subnet.Pool{pool("10.5.4.0/28", 30, "10.5.4.4", "10.5.4.12")}, BackendType: "udp"}},
		{"host bits of the network are dropped", `{"Network":"10.5.4.3/16","SubnetLen":20}`, subnet.Config{
			Pools: []subnet.Pool{pool("10.5.0.0/16", 20, "10.5.16.0", "10.5.240.0")}, BackendType: "udp"}},
		{"bounds and a backend, keys in any case",
			`{"network":"10.0.0.0/8","SUBNETMIN":"10.10.0.0","subnetMax":"10.99.0.0","subnetlen":20,"backend":{"type":"VXLAN","vni":7}}`, subnet.Config{
				Pools:       []subnet.Pool{pool("10.0.0.0/8", 20, "10.10.0.0", "10.99.0.0")},
				BackendType: "vxlan", Backend: []byte(`{"type":"VXLAN","vni":7}`)}},
		{"both families", `{"EnableIPv6":true,"Network":"10.5.0.0/16","IPv6Network":"fd00:5::/48","EnableNFTables":true}`,
			subnet.Config{
				Pools: []subnet.Pool{
					pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0"),
					pool("fd00:5::/48", 64, "fd00:5:0:1::", "fd00:5:0:ffff::"),
				}, BackendType: "udp", EnableNFTables: true}},
		{"IPv6 alone", `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/124"}`, subnet.Config{
			Pools: []subnet.Pool{pool("fd00:5::/124", 126, "fd00:5::4", "fd00:5::c")}, BackendType: "udp"}},
		{"unknown keys and null are ignored", `{"Network":"10.5.0.0/16","Color":"red","SubnetMin":null}`, subnet.Config{
			Pools: []subnet.Pool{pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")}, BackendType: "udp"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := subnet.ParseConfig([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, tt.want, equate); diff != "" {
				t.Errorf("config (-got +want):\n%s", diff)
			}
		})
	}
}

func TestParseConfigNamesTheKeyAndWhatIsWrong(t *testing.T) {
	long := strings.Repeat("x", 1_000_000)
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", ``, []string{"not a JSON object"}},
		{"null", `null`, []string{"not a JSON object"}},
		{"an array", `[]`, []string{"not a JSON object"}},
		{"text after the object", `{"Network":"10.5.0.0/16"} x`, []string{"after the closing brace"}},
		{"no network", `{}`, []string{"Network is missing"}},
		{"a network that is a number", `{"Network":5}`, []string{"Network is 5, want a string"}},
		{"a network that is no prefix", `{"Network":"10.5.0.0"}`, []string{`Network is "10.5.0.0", want an IPv4 prefix`}},
		{"a network of the wrong family", `{"Network":"fd00::/48"}`, []string{"want an IPv4 prefix"}},
		{"a network without room", `{"Network":"10.5.0.0/29"}`, []string{"too small", "/28"}},
		{"an IPv6 network without room", `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/125"}`,
			[]string{"too small", "/124"}},
		{"a length below the network's plus two", `{"Network":"10.5.0.0/16","SubnetLen":17}`,
			[]string{"SubnetLen is 17, want 18 to 30"}},
		{"a length that leaves no addresses", `{"Network":"10.5.0.0/16","SubnetLen":31}`, []string{"SubnetLen is 31"}},
		{"a length that is no number", `{"Network":"10.5.0.0/16","SubnetLen":"24"}`,
			[]string{`SubnetLen is "24", want a number`}},
		{"a minimum outside", `{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}`,
			[]string{"SubnetMin 10.6.0.0 is outside 10.5.0.0/16"}},
		{"a maximum off the boundary", `{"Network":"10.5.0.0/16","SubnetMax":"10.5.9.1"}`,
			[]string{"SubnetMax 10.5.9.1 is not the first address of a /24"}},
		{"minimum above maximum", `{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0"}`,
			[]string{"SubnetMin 10.5.9.0 is above SubnetMax 10.5.8.0"}},
		{"no family", `{"EnableIPv4":false}`, []string{"both false"}},
		{"IPv6 without its network", `{"Network":"10.5.0.0/16","EnableIPv6":true}`, []string{"IPv6Network is missing"}},
		{"a backend that is a string", `{"Network":"10.5.0.0/16","Backend":"vxlan"}`, []string{`Backend is "vxlan"`, "Type"}},
		{"a backend without type", `{"Network":"10.5.0.0/16","Backend":{}}`, []string{"Backend: Type is missing"}},
		{"a megabyte", `{"Network":"10.5.0.0/16","x":"` + long + `"}`, []string{"bytes, more than 65536"}},
		{"a long network", `{"Network":"` + long[:9000] + `"}`, []string{"want an IPv4 prefix"}},
		{"a long bound", `{"Network":"10.5.0.0/16","SubnetMin":"` + long[:9000] + `"}`, []string{"want an address"}},
		{"a long name of a backend", `{"Network":"10.5.0.0/16","Backend":{"Type":"` + long[:9000] + `"}}`,
			[]string{"want the name of a backend"}},
		{"all errors at once", `{"Network":"x","EnableIPv6":1,"Backend":{"Type":7}}`,
			[]string{"Network is", "EnableIPv6 is 1", "Type is 7"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := subnet.ParseConfig([]byte(tt.text))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to contain %q", err, want)
				}
			}
			if len(err.Error()) > 500 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// FuzzParseConfig holds what every accepted configuration must be, whatever was read.
func FuzzParseConfig(f *testing.F) {
	f.Add(`{"Network":"10.5.0.0/16","SubnetLen":24,"SubnetMin":"10.5.3.0","Backend":{"Type":"vxlan"}}`)
	f.Add(`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48","IPv6SubnetMax":"fd00:5:0:9::"}`)
	f.Add(`{"Network":"::ffff:10.0.0.0/112"}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := subnet.ParseConfig([]byte(text))
		if err != nil {
			return
		}
		for _, p := range c.Pools {
			first, last := p.At(0), p.At(p.Size()-1)
			if !p.Leases(first) || first.Addr() != p.Min {
				t.Errorf("first subnet %s of %s", first, p)
			}
			if p.Size() < 1<<40 && (!p.Leases(last) || last.Addr() != p.Max) {
				t.Errorf("last subnet %s of %s", last, p)
			}
		}
	})
}
