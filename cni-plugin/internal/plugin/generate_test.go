package plugin_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"flanneld/cni-plugin/internal/plugin"
)

const (
	env4 = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
	env6 = "FLANNEL_IPV6_NETWORK=fd00:5::/48\nFLANNEL_IPV6_SUBNET=fd00:5:0:22::1/64\nFLANNEL_MTU=1430\n" +
		"FLANNEL_IPMASQ=false\n"
	both = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_IPV6_NETWORK=fd00:5::/48\n" +
		"FLANNEL_IPV6_SUBNET=fd00:5:0:22::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
	several = "FLANNEL_IPV6_NETWORK=fd00:5::/48,fd00:6::/48\nFLANNEL_IPV6_SUBNET=fd00:5:0:22::1/64\n" +
		"FLANNEL_NETWORK=10.5.0.0/16,10.6.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
)

var generateTests = []struct {
	name, conf, env, want string
}{
	{
		name: "nothing but a name", conf: `{"name":"net","type":"flannel"}`, env: env4,
		want: `{"name":"net","type":"bridge","ipMasq":false,"mtu":1450,"isGateway":true,
			"ipam":{"type":"host-local","ranges":[[{"subnet":"10.5.34.0/24"}]],"routes":[{"dst":"10.5.0.0/16"}]}}`,
	},
	{
		name: "masquerading is the bridge's work when it is not the daemon's, IPv6 only",
		conf: `{"cniVersion":"1.1.0","name":"net","type":"flannel"}`, env: env6,
		want: `{"cniVersion":"1.1.0","name":"net","type":"bridge","ipMasq":true,"mtu":1430,"isGateway":true,
			"ipam":{"type":"host-local","ranges":[[{"subnet":"fd00:5:0:22::/64"}]],"routes":[{"dst":"fd00:5::/48"}]}}`,
	},
	{
		name: "both families", conf: `{"cniVersion":"0.3.1","name":"net","type":"flannel"}`, env: both,
		want: `{"cniVersion":"0.3.1","name":"net","type":"bridge","ipMasq":false,"mtu":1450,"isGateway":true,
			"ipam":{"type":"host-local","ranges":[[{"subnet":"10.5.34.0/24"}],[{"subnet":"fd00:5:0:22::/64"}]],
			"routes":[{"dst":"10.5.0.0/16"},{"dst":"fd00:5::/48"}]}}`,
	},
	{
		name: "several networks, IPv4 first whatever the order of lines",
		conf: `{"cniVersion":"1.0.0","name":"net","type":"flannel"}`, env: several,
		want: `{"cniVersion":"1.0.0","name":"net","type":"bridge","ipMasq":false,"mtu":1450,"isGateway":true,
			"ipam":{"type":"host-local","ranges":[[{"subnet":"10.5.34.0/24"}],[{"subnet":"fd00:5:0:22::/64"}]],
			"routes":[{"dst":"10.5.0.0/16"},{"dst":"10.6.0.0/16"},{"dst":"fd00:5::/48"},{"dst":"fd00:6::/48"}]}}`,
	},
	{
		name: "the network's configuration wins, unknown fields are kept",
		conf: `{"cniVersion":"1.1.0","name":"net","type":"flannel","delegate":{"type":"bridge","bridge":"br7","mtu":9000,"ipMasq":true,"isGateway":false,
			"isDefaultGateway":true,"hairpinMode":true,"future":{"deep":[1,2.50,null]},"cniVersion":"0.3.0"}}`, env: env4,
		want: `{"cniVersion":"1.1.0","name":"net","type":"bridge","bridge":"br7","mtu":9000,"ipMasq":true,"isGateway":false,
			"isDefaultGateway":true,"hairpinMode":true,"future":{"deep":[1,2.50,null]},
			"ipam":{"type":"host-local","ranges":[[{"subnet":"10.5.34.0/24"}]],"routes":[{"dst":"10.5.0.0/16"}]}}`,
	},
	{
		name: "another delegate is no gateway",
		conf: `{"cniVersion":"1.1.0","name":"net","type":"flannel","delegate":{"type":"macvlan","master":"eth1"}}`, env: env4,
		want: `{"cniVersion":"1.1.0","name":"net","type":"macvlan","master":"eth1","ipMasq":false,"mtu":1450,
			"ipam":{"type":"host-local","ranges":[[{"subnet":"10.5.34.0/24"}]],"routes":[{"dst":"10.5.0.0/16"}]}}`,
	},
	{
		name: "address management of the network's own: ranges replaced, routes added to, the rest kept",
		conf: `{"cniVersion":"1.1.0","name":"net","type":"flannel","ipam":{"type":"other","dataDir":"/d","ranges":[[{"subnet":"192.0.2.0/24"}]],
			"routes":[{"dst":"0.0.0.0/0","gw":"10.5.34.1","future":true}],"x":1}}`, env: env4,
		want: `{"cniVersion":"1.1.0","name":"net","type":"bridge","ipMasq":false,"mtu":1450,"isGateway":true,
			"ipam":{"type":"other","dataDir":"/d","x":1,"ranges":[[{"subnet":"10.5.34.0/24"}]],
			"routes":[{"dst":"0.0.0.0/0","gw":"10.5.34.1","future":true},{"dst":"10.5.0.0/16"}]}}`,
	},
	{
		name: "what the runtime says goes on to the delegate",
		conf: `{"cniVersion":"1.1.0","name":"net","type":"flannel","capabilities":{"portMappings":true},"runtimeConfig":{
			"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}],"bandwidth":{"ingressRate":123},"mac":"02:00:00:00:00:01"}}`, env: env4,
		want: `{"cniVersion":"1.1.0","name":"net","type":"bridge","ipMasq":false,"mtu":1450,"isGateway":true,"runtimeConfig":{
			"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}],"bandwidth":{"ingressRate":123},"mac":"02:00:00:00:00:01"},
			"ipam":{"type":"host-local","ranges":[[{"subnet":"10.5.34.0/24"}]],"routes":[{"dst":"10.5.0.0/16"}]}}`,
	},
	{
		name: "a result before ours and fields of ours stay here",
		conf: `{"cniVersion":"1.1.0","name":"net","type":"flannel","dataDir":"/d","subnetFile":"/s","prevResult":{"ips":[]},"dns":{"domain":"x"}}`, env: env4,
		want: `{"cniVersion":"1.1.0","name":"net","type":"bridge","ipMasq":false,"mtu":1450,"isGateway":true,
			"ipam":{"type":"host-local","ranges":[[{"subnet":"10.5.34.0/24"}]],"routes":[{"dst":"10.5.0.0/16"}]}}`,
	},
}

func TestDelegateIsConfiguredFromSubnetFileAndNetwork(t *testing.T) {
	for _, tt := range generateTests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := plugin.ParseConf([]byte(tt.conf))
			if err != nil {
				t.Fatal(err)
			}
			e, err := plugin.ParseEnv([]byte(tt.env))
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Generate(e)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fields(t, got), fields(t, []byte(tt.want))); diff != "" {
				t.Errorf("delegate's configuration (-got +want):\n%s", diff)
			}
		})
	}
}

func fields(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return out
}

func TestConfigurationThatCannotBeMeantIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name, conf, want string
		code             uint
	}{
		{"no JSON", `{`, "unexpected end", types.ErrDecodingFailure},
		{"a list", `[]`, "cannot unmarshal", types.ErrDecodingFailure},
		{"subnetFile is no string", `{"subnetFile":1}`, "subnetFile", types.ErrDecodingFailure},
		{"delegate is no object", `{"delegate":"bridge"}`, "delegate", types.ErrDecodingFailure},
		{"delegate has a name", `{"name":"n","delegate":{"name":"x"}}`, `"name"`, types.ErrInvalidNetworkConfig},
		{"delegate has an ipam", `{"name":"n","delegate":{"ipam":{}}}`, `"ipam"`, types.ErrInvalidNetworkConfig},
		{"delegate's type is a number", `{"name":"n","delegate":{"type":1}}`, "delegate.type", types.ErrInvalidNetworkConfig},
		{"delegate's type is null", `{"name":"n","delegate":{"type":null}}`, "delegate.type", types.ErrInvalidNetworkConfig},
		{"delegate is the plugin itself", `{"name":"n","type":"flannel","delegate":{"type":"flannel"}}`,
			"endlessly", types.ErrInvalidNetworkConfig},
		{"routes are no list", `{"name":"n","ipam":{"routes":{}}}`, "ipam.routes", types.ErrInvalidNetworkConfig},
		{"a route leads nowhere", `{"name":"n","ipam":{"routes":[{"dst":"here"}]}}`, "ipam.routes",
			types.ErrInvalidNetworkConfig},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := plugin.ParseConf([]byte(tt.conf))
			var e *types.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a CNI error", err)
			}
			if e.Code != tt.code || !strings.Contains(e.Msg, tt.want) {
				t.Errorf("got code %d, %q, want code %d with %q", e.Code, e.Msg, tt.code, tt.want)
			}
		})
	}
}

func TestSubnetFileThatIsNotWholeIsRefused(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "FLANNEL_SUBNET or FLANNEL_IPV6_SUBNET"},
		{"no network", "FLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
			"FLANNEL_NETWORK or FLANNEL_IPV6_NETWORK"},
		{"no MTU", "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_IPMASQ=true\n", "FLANNEL_MTU"},
		{"no masquerading", "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450\n", "FLANNEL_IPMASQ"},
		{"an MTU of nothing", "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=0\n" +
			"FLANNEL_IPMASQ=true\n", "FLANNEL_MTU=0"},
		{"cut off", env4[:40], "FLANNEL_SUBNET"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := plugin.ParseEnv([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestTheLastOfDoubledLinesCounts(t *testing.T) {
	e, err := plugin.ParseEnv([]byte("FLANNEL_MTU=9000\n" + env4 + "FLANNEL_SUBNET=10.5.35.1/24\n"))
	if want := netip.MustParsePrefix("10.5.35.0/24"); err != nil || len(e.Subnets) != 1 || e.Subnets[0] != want ||
		e.MTU != 1450 {
		t.Errorf("got %+v, %v; want the subnet %s and the MTU 1450", e, err, want)
	}
}

func FuzzGenerate(f *testing.F) {
	for _, tt := range generateTests {
		f.Add([]byte(tt.conf), []byte(tt.env))
	}
	f.Fuzz(func(t *testing.T, conf, env []byte) {
		c, err := plugin.ParseConf(conf)
		if err != nil {
			return
		}
		e, err := plugin.ParseEnv(env)
		if err != nil {
			return
		}
		text, err := c.Generate(e)
		if err != nil {
			t.Fatal(err)
		}
		got := fields(t, text)
		for key, value := range c.Delegate {
			var want any
			if err := json.Unmarshal(value, &want); err != nil {
				t.Fatal(err)
			}
			if key != "cniVersion" && key != "runtimeConfig" && !cmp.Equal(got[key], want) {
				t.Errorf("field %q of the delegate: got %v, want %v", key, got[key], want)
			}
		}
		ipam, ok := got["ipam"].(map[string]any)
		if ranges, isList := ipam["ranges"].([]any); !ok || !isList || len(ranges) != len(e.Subnets) {
			t.Errorf("%d subnets, but ipam %v", len(e.Subnets), got["ipam"])
		}
	})
}
