package serve_test

import (
	"context"
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/need"
	"flanneld/serve"
)

// clusterPage returns the status page of a host with n peers, every fifth of them with a problem.
func clusterPage(n int) http.Handler {
	until := time.Now().Add(20 * time.Hour)
	prefix := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(5 + i>>8), byte(i), 0}), 24)
	}
	status := api.Status{
		Version: "v1.0.0", Host: "node-0", Started: time.Now().Add(-time.Hour), Ready: true,
		Network: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Backend: "vxlan", Devices: []string{"flannel.1"}, MTU: 1450, Interface: "eth0",
		PublicIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Subnets:   []netip.Prefix{prefix(0)}, Lease: api.Lease{Held: true, Until: &until}, Peers: n,
		Drift:  map[string]uint64{"fdb": 2, "route": 0},
		Probes: &api.ProbeSummary{Peers: n, Failing: n / 5}, State: api.StateDegraded,
		Reasons: []string{"1 peer does not answer probes"},
	}
	for i := range 3 {
		status.Errors = append(status.Errors, api.Event{
			Time: time.Date(2026, 1, 2, 3, 4, i, 0, time.UTC), Level: "WARN", Message: "drift found",
			Detail: fmt.Sprintf("object=o%d", i),
		})
	}
	var peers []api.Peer
	for i := range n {
		p := api.Peer{
			Subnet: prefix(i + 1), PublicIP: netip.AddrFrom4([4]byte{192, 0, byte(2 + i>>8), byte(i)}),
			Host: fmt.Sprintf("node-%d<b>", i+1), Backend: "vxlan",
			Programmed: true, Probe: &api.Probe{Sent: 3, RoundTrip: time.Duration(200+i%97*10) * time.Microsecond, PathMTU: 1450,
				At: time.Now()},
		}
		switch i % 5 {
		case 1:
			p.Probe.Lost, p.Probe.RoundTrip, p.Probe.PathMTU = 3, 0, 0
		case 2:
			p.Probe = nil
		case 3:
			p.Probe.PathMTU = 1350
		case 4:
			p.Traffic = &api.Traffic{SentPackets: 7, SentBytes: 2_345, ReceivedBytes: 1_000_000}
		}
		peers = append(peers, p)
	}
	return serve.StatusPage(serve.PageSources{
		Status: func() api.Status { return status }, Peers: func() []api.Peer { return peers },
		Events: func() []api.Event {
			return []api.Event{{Time: time.Now(), Level: "INFO", Message: "kernel updated", Detail: "put=3 deleted=0"}}
		},
		Traffic: func(devices []string) (out []serve.DeviceTraffic) {
			for _, name := range devices {
				out = append(out, serve.DeviceTraffic{Name: name, SentBytes: 1_234_567, Sent: 1000, ReceivedBytes: 999, Received: 1,
					Dropped: 2})
			}
			return out
		},
	})
}

func TestStatusPageIsSafeAndPassive(t *testing.T) {
	w := httptest.NewRecorder()
	h := serve.Health{Alive: fine, Ready: fine, Page: clusterPage(3)}.Handler()
	h.ServeHTTP(w, httptest.NewRequest("GET", "http://192.0.2.1/", nil))
	text := w.Body.String()
	if w.Code != 200 || !strings.Contains(text, "10.5.1.0/24") {
		t.Fatalf("/ is %d:\n%s", w.Code, text)
	}
	if strings.Contains(text, "<b>\"") || strings.Contains(text, "node-1<b>") {
		t.Error("a host's name is not escaped")
	}
	if m := regexp.MustCompile(`<script|method="?post|https?://|src=`).FindString(text); m != "" {
		t.Errorf("the page has %q", m)
	}
	for method, path := range map[string]string{"POST": "/", "GET": "/other"} {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest(method, "http://192.0.2.1"+path, nil)); w.Code == 200 {
			t.Errorf("%s %s is answered", method, path)
		}
	}
}

func TestStatusPageSaysWhatIsWrongAndFindsPeers(t *testing.T) {
	page := func(path string) string {
		w := httptest.NewRecorder()
		serve.Health{Alive: fine, Ready: fine, Page: clusterPage(100)}.Handler().ServeHTTP(w,
			httptest.NewRequest("GET", "http://192.0.2.1"+path, nil))
		return w.Body.String()
	}
	all := page("/")
	for _, want := range []string{
		"degraded", "Packets are forwarded, with these faults", "1 peer does not answer probes", "2026-01-02 03:04:02 UTC",
		"(3 times)", "2 forwarding entries",
		"100 peers probed, 20 without an answer", "100 installed, 0 not installed", "1.23 MB in 1000 packets sent",
		"999 B in 1 packet received", "2 packets dropped", "2.35 kB <small>7 packets</small>", ">1 MB<",
		`http-equiv="refresh"`, `href="/metrics"`, `href="/status"`, "up to 0.",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	for query, want := range map[string]string{
		"NODE-7<b>": "1 peer of 100", "10.5.8.0/24": "1 peer of 100", "10.5.8.77": "1 peer of 100",
		"192.0.2.9":  "1 peer of 100",
		"not probed": "20 peers of 100", "elsewhere": "0 peers of 100",
	} {
		if got := page("/?q=" + url.QueryEscape(query)); !strings.Contains(got, want) {
			t.Errorf("the search for %q does not find %s", query, want)
		}
	}
	if still := page("/?still"); strings.Contains(still, "http-equiv") {
		t.Error("a page that was stopped is loaded again")
	}
	if evil := page("/?q=" + url.QueryEscape(`"><script>`)); strings.Contains(evil, "<script") {
		t.Error("what is searched for is not escaped")
	}
}

func TestStatusPageOfADaemonThatWaitsSaysWhatIsNotKnownYet(t *testing.T) {
	w := httptest.NewRecorder()
	serve.StatusPage(serve.PageSources{
		Status: func() api.Status {
			return api.Status{Host: "node-0", State: api.StateNotReady, Reasons: []string{"waiting for an interface"}}
		},
		Peers: func() []api.Peer { return nil }, Events: func() []api.Event { return nil },
		Traffic: func([]string) []serve.DeviceTraffic { return nil },
	}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	text := regexp.MustCompile(`(?s)<dl>.*</dl>`).FindString(w.Body.String())
	for _, want := range []string{
		"<dt>Network</dt><dd>not known yet<", "<dt>Backend</dt><dd>not known yet<", "<dt>Underlay</dt><dd>not chosen yet<",
		"<dt>Store</dt><dd>no records read yet<", "<dt>Reconciler</dt><dd>not run yet<",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if !strings.Contains(w.Body.String(), "waiting for an interface") {
		t.Error("the page does not say what is waited for")
	}
}

// measure is a page that loads the status pages as wide as a phone and as wide as a desktop, and writes down what they
// look like.
const measure = `<!DOCTYPE html><iframe id=phone3 src="/3" width=390 height=800></iframe><iframe id=phone1000 src="/1000" width=390 height=800></iframe>
<iframe id=desktop3 src="/3" width=1280 height=800></iframe><pre id=out></pre><script>
onload = () => {
  let out = "";
  for (const f of document.querySelectorAll("iframe")) {
    const d = f.contentDocument, root = d.documentElement;
    const seen = e => e !== null && e.getBoundingClientRect().width > 5 && e.getBoundingClientRect().height > 5;
    out += f.id + " overflow=" + (root.scrollWidth > f.width) + " tiles=" + d.querySelectorAll(".map > *").length +
      " rows=" + d.querySelectorAll(".peers tbody tr").length + " tile=" + seen(d.querySelector(".map > *:nth-child(2)")) +
      " drawing=" + seen(d.querySelector("svg")) + " mtu=" + seen(d.querySelector("td[data-n='path MTU']")) + "\n";
  }
  document.getElementById("out").textContent = out;
}
</script>`

// chromium runs the browser without a window.
func chromium(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--user-data-dir=" +
		t.TempDir()}, args...)
	out, err := exec.CommandContext(ctx, need.Program(t, "chromium"), args...).Output()
	if err != nil {
		t.Fatalf("chromium: %v", err)
	}
	return string(out)
}

func TestStatusPageInABrowser(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/3", clusterPage(3))
	mux.Handle("/50", clusterPage(50))
	mux.Handle("/1000", clusterPage(1000))
	mux.HandleFunc("/gallery", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, gallery) })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, measure) })
	s := httptest.NewServer(mux)
	defer s.Close()
	dom := chromium(t, "--dump-dom", s.URL+"/")
	for _, want := range []string{
		"phone3 overflow=false tiles=4 rows=3 tile=true drawing=false mtu=true",
		"phone1000 overflow=false tiles=1001 rows=200 tile=true drawing=false mtu=true",
		"desktop3 overflow=false tiles=4 rows=3 tile=false drawing=true mtu=true",
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("the pages do not look like %q:\n%s", want, dom[strings.LastIndex(dom, "<pre"):])
		}
	}
	for _, look := range []string{"light", "dark"} {
		file := filepath.Join(t.ArtifactDir(), look+".png")
		args := []string{"--screenshot=" + file, "--window-size=3500,1500", s.URL + "/gallery"}
		if look == "dark" {
			args = append([]string{"--blink-settings=preferredColorScheme=0"}, args...)
		}
		chromium(t, args...)
		if n := colours(t, file); n < 50 {
			t.Errorf("%s has %d colours, want pages", file, n)
		}
	}
}

// gallery shows the pages side by side, as wide as a phone and as a desktop.
const gallery = `<!DOCTYPE html><iframe src="/3" width=390 height=1450></iframe><iframe src="/50" width=390 height=1450></iframe>
<iframe src="/1000" width=390 height=1450></iframe><iframe src="/3" width=740 height=1450></iframe><iframe src="/50" width=740 height=1450></iframe>
<iframe src="/1000" width=740 height=1450></iframe>`

// colours counts the colours of an image.
func colours(t *testing.T, file string) int {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[[3]uint32]bool{}
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			r, g, b, _ := img.At(x, y).RGBA()
			seen[[3]uint32{r, g, b}] = true
		}
	}
	return len(seen)
}
