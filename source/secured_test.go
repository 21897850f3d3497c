package source_test

import (
	"net/netip"
	"slices"
	"testing"

	"flanneld/options"
	"flanneld/source"
)

// TestTheEndpointsOfANewSecuredStoreAreThoseOfTLS looks at what the status shows before the store was ever opened.
func TestTheEndpointsOfANewSecuredStoreAreThoseOfTLS(t *testing.T) {
	for _, tt := range []struct {
		name     string
		insecure bool
		want     string
	}{
		{"secured", false, "https://192.0.2.1:2379"},
		{"insecure", true, "http://192.0.2.1:2379"},
	} {
		o := options.Options{
			StateDir: t.TempDir(), EtcdEmbedded: true, EtcdEmbeddedInsecure: tt.insecure,
			EtcdEmbeddedListen: netip.MustParseAddrPort("192.0.2.1:2379"), EtcdEndpoints: []string{"http://192.0.2.1:2379"},
		}
		if got := source.Resolve(o).EtcdEndpoints; !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%s: the endpoints are %q, want %s", tt.name, got, tt.want)
		}
		if o.EtcdEndpoints[0] != "http://192.0.2.1:2379" {
			t.Errorf("%s: the flag was changed to %q", tt.name, o.EtcdEndpoints)
		}
	}
}
