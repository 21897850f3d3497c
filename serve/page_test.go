package serve_test

import (
	"context"
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"net/netip"
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
		Version: "v1.0.0", Host: "node-0", Started: time.Now().Add(-time.Hour), Ready: true, Network: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Backend: "vxlan", Devices: []string{"flannel.1"}, MTU: 1450, Interface: "eth0", PublicIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Subnets: []netip.Prefix{prefix(0)}, Lease: api.Lease{Held: true, Until: &until}, Peers: n, Drift: map[string]uint64{"fdb": 2, "route": 0},
	}
	var peers []api.Peer
	for i := range n {
		p := api.Peer{
			Subnet: prefix(i + 1), PublicIP: netip.AddrFrom4([4]byte{192, 0, byte(2 + i>>8), byte(i)}), Host: fmt.Sprintf("node-%d<b>", i+1), Backend: "vxlan",
			Programmed: true, Probe: &api.Probe{Sent: 3, RoundTrip: 240 * time.Microsecond, PathMTU: 1450},
		}
		switch i % 5 {
		case 1:
			p.Probe.Lost, p.Probe.RoundTrip, p.Probe.PathMTU = 3, 0, 0
		case 2:
			p.Probe = nil
		case 3:
			p.Probe.PathMTU = 1350
		}
		peers = append(peers, p)
	}
	return serve.StatusPage(func() api.Status { return status }, func() []api.Peer { return peers }, func() []api.Event {
		return []api.Event{{Time: time.Now(), Level: "INFO", Message: "kernel updated", Detail: "put=3 deleted=0"}}
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
	if m := regexp.MustCompile(`<script|<form|https?://|src=`).FindString(text); m != "" {
		t.Errorf("the page has %q", m)
	}
	for method, path := range map[string]string{"POST": "/", "GET": "/other"} {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest(method, "http://192.0.2.1"+path, nil)); w.Code == 200 {
			t.Errorf("%s %s is answered", method, path)
		}
	}
}

// measure is a page that loads the status pages as wide as a phone, and writes down what they look like.
const measure = `<!DOCTYPE html><iframe id=p3 src="/3" width=390 height=800></iframe><iframe id=p1000 src="/1000" width=390 height=800></iframe><pre id=out></pre><script>
onload = () => {
  let out = "";
  for (const f of document.querySelectorAll("iframe")) {
    const d = f.contentDocument, root = d.documentElement;
    const t = d.querySelector(".map > *:nth-child(2)"), box = t.getBoundingClientRect();
    out += f.id + " overflow=" + (root.scrollWidth > 390) + " tiles=" + d.querySelectorAll(".map > *").length +
      " rows=" + d.querySelectorAll("tbody tr.ok, tbody tr.bad, tbody tr.slow, tbody tr.unknown").length +
      " seen=" + (box.width > 5 && box.height > 5) + " colour=" + getComputedStyle(t).borderLeftColor + "/" + getComputedStyle(t).backgroundColor + "\n";
  }
  document.getElementById("out").textContent = out;
}
</script>`

// chromium runs the browser without a window.
func chromium(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--user-data-dir=" + t.TempDir()}, args...)
	out, err := exec.CommandContext(ctx, need.Program(t, "chromium"), args...).Output()
	if err != nil {
		t.Fatalf("chromium: %v", err)
	}
	return string(out)
}

func TestStatusPageInABrowser(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/3", clusterPage(3))
	mux.Handle("/1000", clusterPage(1000))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, measure) })
	s := httptest.NewServer(mux)
	defer s.Close()
	dom := chromium(t, "--dump-dom", s.URL+"/")
	for _, want := range []string{
		"p3 overflow=false tiles=4 rows=4 seen=true", "p1000 overflow=false tiles=1001 rows=1001 seen=true",
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("the pages do not look like %q:\n%s", want, dom[strings.LastIndex(dom, "<pre"):])
		}
	}
	for name, size := range map[string]string{"3": "390,844", "1000": "1280,1000"} {
		file := filepath.Join(t.ArtifactDir(), "peers-"+name+".png")
		chromium(t, "--screenshot="+file, "--window-size="+size, s.URL+"/"+name)
		if n := colours(t, file); n < 20 {
			t.Errorf("the screenshot at %s peers has %d colours, want a page", name, n)
		}
	}
}

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
