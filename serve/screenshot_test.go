package serve_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/serve"
)

var update = flag.Bool("update", false, "make the picture of the status page again, with Chromium")

// The picture in README.md, and a checksum of the template that it was made of.
const (
	screenshot    = "../docs/images/status-page.png"
	screenshotSum = "../docs/images/status-page.sha256"
)

// TestThePictureInTheReadmeShowsThePageAsItIs fails when the page has changed and the picture has not:
//
//	go test ./serve -run TestThePicture -update
func TestThePictureInTheReadmeShowsThePageAsItIs(t *testing.T) {
	page, err := os.ReadFile("page.html")
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x  serve/page.html\n", sha256.Sum256(page))
	if *update {
		s := httptest.NewServer(smallCluster())
		defer s.Close()
		chromium(t, "--screenshot="+screenshot, "--window-size=1000,885", s.URL+"/?still")
		if err := os.WriteFile(screenshotSum, []byte(sum), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if had, err := os.ReadFile(screenshotSum); err != nil || string(had) != sum {
		t.Errorf("page.html has changed (%v): run go test ./serve -run TestThePicture -update, and look at %s", err,
			screenshot)
	}
	if n := colours(t, screenshot); n < 50 {
		t.Errorf("%s has %d colours, want a page", screenshot, n)
	}
	for _, readme := range []string{"../README.md", "../README.zh.md"} {
		text, err := os.ReadFile(readme)
		if err != nil || !strings.Contains(string(text), "](docs/images/status-page.png)") {
			t.Errorf("%s does not show %s: %v", readme, screenshot, err)
		}
	}
}

// smallCluster returns the status page of a host with four peers, all well.
func smallCluster() http.Handler {
	now := time.Now()
	until := now.Add(23*time.Hour + 12*time.Minute)
	subnet := func(i int) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 24) }
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }
	status := api.Status{
		Version: "v1.0.0", Host: "host1", Started: now.Add(-74 * time.Hour), Ready: true, State: api.StateReady,
		Network: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}, Subnets: []netip.Prefix{subnet(34)},
		Backend: "wireguard", Devices: []string{"flannel-wg"}, MTU: 1420, Interface: "eth0",
		PublicIPs: []netip.Addr{addr(1)}, Lease: api.Lease{Held: true, Until: &until}, Revision: 1204,
		Peers: 4, Drift: map[string]uint64{"route": 1}, Probes: &api.ProbeSummary{Peers: 4},
		Passes: api.Passes{Count: 212, Last: now.Add(-9 * time.Second), Took: 1420 * time.Microsecond},
	}
	var peers []api.Peer
	for i, at := range []int{12, 71, 146, 203} {
		peers = append(peers, api.Peer{
			Subnet: subnet(at), PublicIP: addr(i + 2), Host: fmt.Sprintf("host%d", i+2), Backend: "wireguard",
			Programmed: true,
			Probe: &api.Probe{Sent: 3, RoundTrip: time.Duration(180+i*90) * time.Microsecond, PathMTU: 1420,
				At: now.Add(-time.Duration(3*i+2) * time.Second)},
			Traffic: &api.Traffic{SentBytes: uint64(i+1) * 48_200_000, ReceivedBytes: uint64(i+2) * 31_700_000},
		})
	}
	return serve.StatusPage(serve.PageSources{
		Status: func() api.Status { return status }, Peers: func() []api.Peer { return peers },
		Events: func() []api.Event { return nil },
		Traffic: func([]string) []serve.DeviceTraffic {
			return []serve.DeviceTraffic{{Name: "flannel-wg", SentBytes: 482_000_000, Sent: 391_204, ReceivedBytes: 443_800_000,
				Received: 362_977}}
		},
	})
}
