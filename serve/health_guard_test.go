package serve_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"flanneld/serve"
)

func TestTheHealthPortIsReadByKnownNamesOnly(t *testing.T) {
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	secret := func() error { return fmt.Errorf("the reason") }
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "topology") })
	h := serve.Health{
		Alive: secret, Ready: secret, Status: func() any { return "topology" }, Metrics: page, Page: page,
		Hosts: []string{"Node1.example.com", "*.example.net"},
	}
	for host, known := range map[string]bool{
		"192.0.2.1:8471": true, "192.0.2.1": true, "[2001:db8::1]:8471": true, "[2001:db8::1]": true, "": true,
		"localhost:8471": true,
		own + ":8471":    true, strings.ToUpper(own) + ".": true, "node1.example.com:8471": true, "x.example.net": true,
		"evil.example.org:8471": false, "192.0.2.1.example.org": false, "example.net": false, own +
			".evil.example.org": false,
	} {
		for _, path := range []string{"/", "/status", "/metrics", "/readyz", "/healthz"} {
			r := httptest.NewRequest("GET", path, nil)
			r.Host = host
			w := httptest.NewRecorder()
			h.Handler().ServeHTTP(w, r)
			state := strings.HasSuffix(path, "z")
			want := map[bool]int{true: 503, false: 200}[state]
			if !known && !state {
				want = http.StatusMisdirectedRequest
			}
			body := w.Body.String()
			told := strings.Contains(body, "topology") || strings.Contains(body, "the reason")
			if w.Code != want || told != known {
				t.Errorf("host %q, %s: %d %q, want %d, and told: %v", host, path, w.Code, body, want, known)
			}
		}
	}
}

// ended reports whether the other side has closed a connection. It blocks until it does if it is to.
func ended(c net.Conn) bool {
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

func TestHeldConnectionsKeepNobodyOut(t *testing.T) {
	const most, each = 6, 3
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := serve.Bounded(l, most, each)
	defer b.Close()
	var servers []net.Conn
	open := func(from byte) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}}
		c, err := d.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		s, err := b.Accept()
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, s)
		return c
	}
	first := open(1) // the oldest of all
	var held []net.Conn
	for range each + 1 {
		held = append(held, open(2))
	}
	if !ended(held[0]) {
		t.Error("the fourth connection of an address has not ended its first")
	}
	open(3)
	open(3) // six are open
	last := open(4)
	if !ended(first) {
		t.Error("the seventh connection has not ended the oldest")
	}
	if err := servers[len(servers)-1].Close(); err != nil || !ended(last) {
		t.Errorf("close: %v", err)
	}
	for _, s := range servers[2:5] {
		if _, err := s.Write([]byte("x")); err != nil {
			t.Errorf("a connection within the bounds has ended: %v", err)
		}
	}
}

func TestTheHealthServerAnswersBesideManySilentConnections(t *testing.T) {
	addr := freePort(t, "127.0.0.1")
	log, _ := start(t, serve.Health{Addr: addr, Alive: fine, Ready: fine})
	log.wait("health server listening")
	for range 300 {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	res, err := http.Get("http://" + addr.String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("status %d, want 200", res.StatusCode)
	}
}
