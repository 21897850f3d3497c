package lab_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/lab"
)

func TestTwoDaemonsOnAnEmptyStoreGetDifferentSubnets(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(network{"vxlan", lab.Dual}.config())
	hosts := c.hosts(2)
	c.startAll(hosts, e)
	a, b := c.subnets(hosts[0]), c.subnets(hosts[1])
	if a[0] == b[0] || a[1] == b[1] || len(must[map[string]string](t)(e.Records(c.ctx))) != 2 {
		t.Errorf("%s and %s", a, b)
	}
}

// handwritten are the records of peers that exist as records only, written as flannel writes them, and what a
// host with both families makes of each.
var handwritten = []struct {
	name, key, value string
	kernel           map[string]string // output of a command on the host, or a part of it
}{
	{
		name: "a peer of both families", key: "10.5.34.0-24&fd00:5:0:22::-64",
		value: `{"PublicIP":"198.18.9.9","PublicIPv6":"fd00:18::99","BackendType":"vxlan",` +
			`"BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},"BackendV6Data":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:66"}}`,
		kernel: map[string]string{
			"ip route show 10.5.34.0/24":    "10.5.34.0/24 via 10.5.34.0 dev flannel.1 proto 70 onlink",
			"ip neigh show 10.5.34.0":       "10.5.34.0 dev flannel.1 lladdr c6:d2:32:6f:8f:44 PERMANENT",
			"bridge fdb show dev flannel.1": "c6:d2:32:6f:8f:44 dst 198.18.9.9 self permanent",
			"ip -6 route show fd00:5:0:22::/64": "fd00:5:0:22::/64 via fd00:5:0:22:: dev flannel-v6.1 proto 70 metric " +
				"1024 onlink",
			"ip -6 neigh show fd00:5:0:22::":      "fd00:5:0:22:: dev flannel-v6.1 lladdr c6:d2:32:6f:8f:66 PERMANENT",
			"bridge fdb show dev flannel-v6.1":    "c6:d2:32:6f:8f:66 dst fd00:18::99 self permanent",
			"ip -d link show flannel-v6.1":        " dev eth0 srcport 0 0 dstport 8472 nolearning",
			"ip -6 -o addr show dev flannel-v6.1": "/128 scope global",
			"ip -4 -o addr show dev flannel.1":    "/32 scope global flannel.1",
			"ip -4 -o addr show dev flannel-v6.1": "",
			"ip -6 -o addr show dev flannel.1":    "",
		},
	},
	{
		name: "a peer of IPv4 alone", key: "10.5.35.0-24",
		value: `{"PublicIP":"198.18.9.8","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:45"}}`,
		kernel: map[string]string{
			"ip route show 10.5.35.0/24":    "10.5.35.0/24 via 10.5.35.0 dev flannel.1 proto 70 onlink",
			"bridge fdb show dev flannel.1": "c6:d2:32:6f:8f:45 dst 198.18.9.8 self permanent",
		},
	},
	{
		name: "a peer of IPv6 alone", key: "fd00:5:0:24::-64",
		value: `{"PublicIP":"0.0.0.0","PublicIPv6":"fd00:18::97","BackendType":"vxlan","BackendV6Data":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:67"}}`,
		kernel: map[string]string{
			"ip -6 route show fd00:5:0:24::/64": "fd00:5:0:24::/64 via fd00:5:0:24:: dev flannel-v6.1 proto 70 metric " +
				"1024 onlink",
			"bridge fdb show dev flannel-v6.1": "c6:d2:32:6f:8f:67 dst fd00:18::97 self permanent",
		},
	},
	{
		// All IPv6-only hosts of flannel share this key's first half, so that it says nothing of an IPv4 subnet.
		name: "flannel's record of a host without IPv4", key: "0.0.0.0-0&fd00:5:0:25::-64",
		value:  `{"PublicIP":"0.0.0.0","PublicIPv6":"fd00:18::96","BackendType":"vxlan","BackendV6Data":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:68"}}`,
		kernel: map[string]string{"ip -6 route show fd00:5:0:25::/64": "", "ip route show 0.0.0.0/0 proto 70": ""},
	},
}

func TestRecordsAreThoseOfFlannel(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(network{"vxlan", lab.Dual}.config())
	h := c.host("host1")
	for _, r := range handwritten {
		c.ok(e.Put(c.ctx, "subnets/"+r.key, r.value))
	}
	d := c.flanneld(h, e)
	for _, r := range handwritten {
		for command, want := range r.kernel {
			out := must[string](t)(h.Output(command))
			if !strings.Contains(out, want) || want == "" && out != "" {
				t.Errorf("%s: %s: %q, want %q in it", r.name, command, out, want)
			}
		}
	}
	c.await(func() error {
		if !strings.Contains(d.Status(), "4 peers, 1 record skipped") {
			return fmt.Errorf("status %q, want four peers and one bad record", d.Status())
		}
		return nil
	})
}

func ownRecordIsThatOfFlannel(s *site) {
	h := s.hosts[0]
	value, ok := must[map[string]string](s.t)(s.store.Records(s.ctx))[s.keyOf(h)]
	if !ok {
		s.t.Fatalf("no record %s", s.keyOf(h))
	}
	if want := s.record(h); !strings.HasPrefix(value, want) {
		s.t.Errorf("record %s, want it to start with %s", value, want)
	}
	var strict struct {
		PublicIP                   string
		PublicIPv6                 *string
		BackendType                string
		BackendData, BackendV6Data json.RawMessage
	}
	if err := json.Unmarshal([]byte(value), &strict); err != nil {
		s.t.Error(err)
	}
}

// record is a host's record up to the fields that only we write.
func (s *site) record(h *lab.Host) string {
	public4, public6, data4, data6 := "0.0.0.0", "null", "", ""
	macs := s.macs(h)
	if h.Addr.IsValid() {
		public4 = h.Addr.String()
		if len(macs) > 0 {
			data4 = fmt.Sprintf(`"BackendData":{"VNI":1,"VtepMAC":"%s"},`, macs[0])
		}
	}
	if h.Addr6.IsValid() {
		public6 = fmt.Sprintf("%q", h.Addr6)
		if len(macs) > 0 {
			data6 = fmt.Sprintf(`"BackendV6Data":{"VNI":1,"VtepMAC":"%s"},`, macs[len(macs)-1])
		}
	}
	kind := fmt.Sprintf(`"BackendType":%q,`, s.backend)
	switch s.backend {
	case "udp":
		kind = ""
	case "wireguard":
		data4, data6 = s.keyData(h)
	}
	return fmt.Sprintf(`{"PublicIP":%q,"PublicIPv6":%s,%s%s%s`, public4, public6, kind, data4, data6)
}

// keyData are the parts of a record with the host's public key.
func (s *site) keyData(h *lab.Host) (data4, data6 string) {
	s.t.Helper()
	text := must[[]byte](s.t)(os.ReadFile(filepath.Join(filepath.Dir(h.SubnetFile()), "wgkey")))
	key := must[wgtypes.Key](s.t)(wgtypes.ParseKey(strings.TrimSpace(string(text)))).PublicKey()
	if h.Addr.IsValid() {
		data4 = fmt.Sprintf(`"BackendData":{"PublicKey":%q,"Port":51820},`, key)
	}
	if h.Addr6.IsValid() {
		data6 = fmt.Sprintf(`"BackendV6Data":{"PublicKey":%q,"Port":51821},`, key)
	}
	return data4, data6
}
