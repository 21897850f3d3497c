package etcdv3_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

func lease(prefix, publicIP, backend, data string) subnet.Lease {
	return subnet.Lease{Subnet: netip.MustParsePrefix(prefix), Attrs: subnet.Attrs{
		PublicIP: netip.MustParseAddr(publicIP), BackendType: backend, BackendData: data,
	}}
}

// offering returns a lease of a host that can be reached by one more backend.
func offering(l subnet.Lease, backend, data string) subnet.Lease {
	l.Offers = subnet.OffersText([]subnet.Offer{{Type: backend, Data: data}})
	return l
}

// compareRecords has go-cmp look at addresses as values.
var compareRecords = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

const vtep = `{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`

func TestRecordsAreWrittenByteForByteInTheFormOfFlannel(t *testing.T) {
	tests := []struct {
		name   string
		record subnet.Record
		key    string
		want   string
	}{
		{
			"vxlan", subnet.Record{Leases: []subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "vxlan", vtep)}},
			"subnets/10.5.34.0-24",
			`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":` + vtep + `}`,
		},
		{
			"vxlan on both families", subnet.Record{Leases: []subnet.Lease{
				lease("10.5.34.0/24", "192.0.2.1", "vxlan", vtep), lease("fd00:5:0:22::/64", "2001:db8::1", "vxlan", vtep),
			}}, "subnets/10.5.34.0-24&fd00:5:0:22::-64",
			`{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendData":` + vtep +
				`,"BackendV6Data":` + vtep + `}`,
		},
		{
			"vxlan on IPv6", subnet.Record{Leases: []subnet.Lease{lease("fd00:5:0:22::/64", "2001:db8::1", "vxlan", vtep)}},
			"subnets/fd00:5:0:22::-64",
			`{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendV6Data":` + vtep + `}`,
		},
		{
			"host-gw", subnet.Record{Leases: []subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "host-gw", "")}},
			"subnets/10.5.34.0-24",
			`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw"}`,
		},
		{
			"udp names no backend", subnet.Record{Leases: []subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "udp", "")}},
			"subnets/10.5.34.0-24",
			`{"PublicIP":"192.0.2.1","PublicIPv6":null}`,
		},
		{
			"udp has no data of flannel's",
			subnet.Record{Leases: []subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "udp", `{"InKernel":true}`)}},
			"subnets/10.5.34.0-24",
			`{"PublicIP":"192.0.2.1","PublicIPv6":null,"UDPData":{"InKernel":true}}`,
		},
		{
			"fields of ours stand behind those of flannel",
			subnet.Record{Identity: "X", Host: "h", Leases: []subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "host-gw", "")}},
			"subnets/10.5.34.0-24",
			`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw","ID":"X","Host":"h"}`,
		},
		{
			"offers beside the backend, one list for each family",
			subnet.Record{Identity: "X", Leases: []subnet.Lease{
				offering(lease("10.5.34.0/24", "192.0.2.1", "vxlan", vtep), "wireguard", `{"PublicKey":"a","Port":51820}`),
				offering(lease("fd00:5:0:22::/64", "2001:db8::1", "vxlan", vtep), "wireguard", `{"PublicKey":"a","Port":51821}`),
			}}, "subnets/10.5.34.0-24&fd00:5:0:22::-64",
			`{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendData":` + vtep +
				`,"BackendV6Data":` + vtep + `,"ID":"X","Offers":[{"Type":"wireguard","Data":{"PublicKey":"a","Port":51820}}]` +
				`,"OffersV6":[{"Type":"wireguard","Data":{"PublicKey":"a","Port":51821}}]}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := etcdv3.Encode(tt.record)
			if err != nil || string(got) != tt.want {
				t.Errorf("got %s, %v, want %s", got, err, tt.want)
			}
			if tt.record.Key() != tt.key {
				t.Errorf("key %s, want %s", tt.record.Key(), tt.key)
			}
			back, err := etcdv3.Decode(tt.key, got)
			if diff := cmp.Diff(back, tt.record, compareRecords); err != nil || diff != "" {
				t.Errorf("read back: %v\n%s", err, diff)
			}
		})
	}
}

func TestRecordsThatFlannelHasWrittenAreRead(t *testing.T) {
	tests := []struct {
		name, key, value string
		want             []subnet.Lease
	}{
		{
			"vxlan", "subnets/10.5.34.0-24",
			`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}`,
			[]subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "vxlan", vtep)},
		},
		{
			"an old one without PublicIPv6", "subnets/10.5.34.0-24",
			`{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VtepMAC":"c6:d2:32:6f:8f:44"}}`,
			[]subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "vxlan", `{"VtepMAC":"c6:d2:32:6f:8f:44"}`)},
		},
		{
			"udp", "subnets/10.5.34.0-24", `{"PublicIP":"192.0.2.1","PublicIPv6":null}`,
			[]subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "udp", "")},
		},
		{
			"host-gw with null data", "subnets/10.5.34.0-24",
			`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw","BackendData":null}`,
			[]subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "host-gw", "")},
		},
		{
			"wireguard", "subnets/10.5.34.0-24",
			`{"PublicIP":"192.0.2.1","BackendType":"wireguard","BackendData":{"PublicKey":"a+b=","Port":51820}}`,
			[]subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "wireguard", `{"PublicKey":"a+b=","Port":51820}`)},
		},
		{
			"both families, in JSON with spaces and unknown fields", "subnets/10.5.34.0-24&fd00:5:0:22::-64",
			` { "PublicIP" : "192.0.2.1", "PublicIPv6" : "2001:db8::1", "BackendType" : "vxlan", "BackendData" : { "VNI" : 1 }, "BackendV6Data" : { "VNI" : 2 }, "New" : [1] } `,
			[]subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "vxlan", `{"VNI":1}`),
				lease("fd00:5:0:22::/64", "2001:db8::1", "vxlan", `{"VNI":2}`)},
		},
		{
			"IPv6 alone", "subnets/fd00:5:0:22::-64", `{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::1","BackendType":"vxlan"}`,
			[]subnet.Lease{lease("fd00:5:0:22::/64", "2001:db8::1", "vxlan", "")},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := etcdv3.Decode(tt.key, []byte(tt.value))
			if diff := cmp.Diff(got.Leases, tt.want, compareRecords); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
			if got.Identity != "" || got.Host != "" {
				t.Errorf("identity %q, host %q", got.Identity, got.Host)
			}
		})
	}
}

func TestRecordsThatMakeNoSenseAreRefusedWithTheReason(t *testing.T) {
	const key, good = "subnets/10.5.34.0-24", `{"PublicIP":"192.0.2.1"}`
	tests := []struct{ name, key, value, want string }{
		{"rubbish", key, "rubbish", "not the JSON"},
		{"nothing", key, "", "not the JSON"},
		{"half a record", key, `{"PublicIP":"192.0.2.1"`, "not the JSON"},
		{"a list", key, `["192.0.2.1"]`, "not the JSON"},
		{"null", key, `null`, "want an address"},
		{"a number for an address", key, `{"PublicIP":3221225985}`, "not the JSON"},
		{"an object for an identity", key, `{"PublicIP":"192.0.2.1","ID":{}}`, "not the JSON"},
		{"no address", key, `{"BackendType":"vxlan"}`, "want an address"},
		{"a name for an address", key, `{"PublicIP":"host1"}`, "want an address"},
		{"an IPv6 address as PublicIP", key, `{"PublicIP":"2001:db8::1"}`, "family"},
		{"an IPv4 address as PublicIPv6", "subnets/fd00:5:0:22::-64", `{"PublicIP":"192.0.2.1","PublicIPv6":"192.0.2.1"}`,
			"family"},
		{"a mapped address", "subnets/fd00:5:0:22::-64", `{"PublicIPv6":"::ffff:192.0.2.1"}`, "family"},
		{"a zone", "subnets/fd00:5:0:22::-64", `{"PublicIPv6":"fe80::1%eth0"}`, "family"},
		{"multicast", key, `{"PublicIP":"224.0.0.1"}`, "not the address of a host"},
		{"loopback", key, `{"PublicIP":"127.0.0.1"}`, "not the address of a host"},
		{"unspecified", key, `{"PublicIP":"0.0.0.0"}`, "not the address of a host"},
		{"broadcast", key, `{"PublicIP":"255.255.255.255"}`, "not the address of a host"},
		{"IPv6 multicast", "subnets/fd00:5:0:22::-64", `{"PublicIPv6":"ff02::1"}`, "not the address of a host"},
		{"the IPv6 half is missing", "subnets/10.5.34.0-24&fd00:5:0:22::-64", good, "PublicIPv6"},
		{"the IPv6 record of flannel", "subnets/0.0.0.0-0&fd00:5:0:22::-64",
			`{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::1"}`, "not the address"},
		{"a subnet that cannot be leased", "subnets/127.0.0.0-24", good, "cannot be leased"},
		{"100 kB", key, `{"PublicIP":"192.0.2.1","BackendData":"` + strings.Repeat("x", 100_000) + `"}`, "bytes"},
		{"deep nesting", key, `{"PublicIP":"192.0.2.1","BackendData":` + strings.Repeat("[", 3000) +
			strings.Repeat("]", 3000) + `}`, "backend data of 6000 bytes"},
		{"a long identity", key, `{"PublicIP":"192.0.2.1","ID":"` + strings.Repeat("x", 10_000) + `"}`,
			"identity of 10000 bytes"},
		{"a long name of a backend", key, `{"PublicIP":"192.0.2.1","BackendType":"` + strings.Repeat("x", 10_000) + `"}`,
			"backend type of 10000 bytes"},
		{"no key", "subnets/", good, "no prefix length"},
		{"a strange folder", "other/10.5.34.0-24", good, "no folder"},
		{"a key with a slash", "subnets/10.5.34.0/24", good, "no prefix length"},
		{"host bits", "subnets/10.5.34.1-24", good, "host bits"},
		{"a length beyond the address", "subnets/10.5.34.0-33", good, "parse key"},
		{"another spelling", "subnets/10.5.34.0-024", good, "parse key"},
		{"families in the wrong order", "subnets/fd00:5:0:22::-64&10.5.34.0-24", good, "order"},
		{"three subnets", "subnets/10.5.34.0-24&fd00:5:0:22::-64&fd00:5:0:23::-64", good, "order"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := etcdv3.Decode(tt.key, []byte(tt.value))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v, want an error with %q", r, err, tt.want)
			}
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestARecordThatOthersWouldRefuseIsNotWritten(t *testing.T) {
	r := subnet.Record{Leases: []subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "extension", `"`+
		strings.Repeat("x", 5000)+`"`)}}
	if _, err := etcdv3.Encode(r); err == nil ||
		!strings.Contains(err.Error(), "backend data of 5002 bytes, more than 4096") {
		t.Errorf("got %v, want an error that names the backend data", err)
	}
}

func TestAHostNameFromOutsideCannotForgeALogLine(t *testing.T) {
	r, err := etcdv3.Decode("subnets/10.5.34.0-24",
		[]byte(`{"PublicIP":"192.0.2.1","Host":"a\nlevel=ERROR `+strings.Repeat("x", 1000)+`"}`))
	if err != nil || strings.ContainsAny(r.Host, "\n ") || len(r.Host) > 253 {
		t.Errorf("host %q, %v", r.Host, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("subnets/10.5.34.0-24", []byte(`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":`+
		vtep+`}`))
	f.Add("subnets/10.5.34.0-24&fd00:5:0:22::-64",
		[]byte(`{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","ID":"x","Host":"h"}`))
	f.Add("subnets/10.5.34.0-24", []byte(`{"PublicIP":"192.0.2.1","Offers":[{"Type":"vxlan","Data":`+vtep+`},7]}`))
	f.Add("claims/fd00:5:0:22::-64", []byte(`{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::1"}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		r, err := etcdv3.Decode(key, value)
		if err != nil {
			return
		}
		if r.Key() != key {
			t.Fatalf("%q is read as the record of %q", key, r.Key())
		}
		text, err := etcdv3.Encode(r)
		if err != nil {
			t.Fatalf("%+v cannot be written: %v", r, err)
		}
		back, err := etcdv3.Decode(key, text)
		if err != nil || !back.Equal(r) {
			t.Fatalf("%+v is read back as %+v, %v", r, back, err)
		}
	})
}

func TestTheOwnAddressBesideAPublicOneIsPublishedAndABadOneIsNoHarm(t *testing.T) {
	r := subnet.Record{Leases: []subnet.Lease{
		lease("10.5.34.0/24", "203.0.113.1", "vxlan", vtep), lease("fd00:5:0:22::/64", "2001:db8::1", "vxlan", vtep),
	}}
	r.Leases[0].Underlay, r.Leases[1].Underlay = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00::1")
	text, err := etcdv3.Encode(r)
	if err != nil || !strings.HasSuffix(string(text), `,"Underlay":"192.0.2.1","UnderlayV6":"fd00::1"}`) {
		t.Errorf("got %s, %v", text, err)
	}
	got, err := etcdv3.Decode(r.Key(), text)
	if diff := cmp.Diff(r, got, compareRecords); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"fd00::1", "127.0.0.1", "nonsense", "::ffff:192.0.2.1"} {
		got, err := etcdv3.Decode("subnets/10.5.34.0-24",
			[]byte(`{"PublicIP":"203.0.113.1","PublicIPv6":null,"BackendType":"host-gw","Underlay":"`+bad+`"}`))
		if err != nil || got.Leases[0].Underlay.IsValid() {
			t.Errorf("%s: got %v, %v, want the record without it", bad, got, err)
		}
	}
}

func TestARecordWithBadOffersIsReadWithoutThem(t *testing.T) {
	for _, bad := range []string{`1`, `"udp"`, `{"Type":"udp"}`, `[1]`, `[{"Type":7}]`} {
		got, err := etcdv3.Decode("subnets/10.5.34.0-24", []byte(`{"PublicIP":"192.0.2.1","BackendType":"host-gw","Offers":`+bad+`}`))
		if err != nil || !got.Leases[0].BadOffers() || len(got.Leases[0].Ways()) != 1 {
			t.Errorf("%s: got %+v, %v, want the record without them", bad, got, err)
		}
	}
}
