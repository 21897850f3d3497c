package serve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/need"
	"flanneld/serve"
)

func fine() error { return nil }

func TestHealthPages(t *testing.T) {
	waiting := func() error { return errors.New("waiting for the network configuration") }
	status := func() any { return map[string]int{"peers": 3} }
	tests := []struct {
		name   string
		health serve.Health
		method string
		path   string
		code   int
		body   string
	}{
		{"a living daemon is healthy", serve.Health{Alive: fine, Ready: waiting}, "GET", "/healthz", 200, "ok\n"},
		{"a stuck daemon is not healthy", serve.Health{Alive: waiting, Ready: fine}, "GET", "/healthz", 503,
			"waiting for the network configuration\n"},
		{"a daemon whose data plane is up is ready", serve.Health{Alive: fine, Ready: fine}, "GET", "/readyz", 200, "ok\n"},
		{"a daemon that is not ready says why", serve.Health{Alive: fine, Ready: waiting}, "GET", "/readyz", 503,
			"waiting for the network configuration\n"},
		{"HEAD is answered", serve.Health{Alive: fine, Ready: waiting}, "HEAD", "/readyz", 503,
			"waiting for the network configuration\n"},
		{"nothing can be posted", serve.Health{Alive: fine, Ready: fine}, "POST", "/healthz", 405, ""},
		{"the status is JSON", serve.Health{Alive: fine, Ready: fine, Status: status}, "GET", "/status", 200,
			"{\n  \"peers\": 3\n}\n"},
		{"a status that JSON cannot say is an error",
			serve.Health{Alive: fine, Ready: fine, Status: func() any { return fine }}, "GET", "/status", 500, ""},
		{"without a status there is no page", serve.Health{Alive: fine, Ready: fine}, "GET", "/status", 404, ""},
		{"there is no other page", serve.Health{Alive: fine, Ready: fine, Status: status}, "GET", "/", 404, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			tt.health.Handler().ServeHTTP(w, httptest.NewRequest(tt.method, "http://192.0.2.1"+tt.path, nil))
			if w.Code != tt.code {
				t.Errorf("code is %d, want %d", w.Code, tt.code)
			}
			if tt.body != "" && w.Body.String() != tt.body {
				t.Errorf("body is %q, want %q", w.Body.String(), tt.body)
			}
		})
	}
}

// logLines is a log that a test waits on.
type logLines struct {
	t   *testing.T
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// wait returns when the log has the text.
func (l *logLines) wait(text string) {
	l.t.Helper()
	defer func() {
		if l.t.Failed() {
			l.t.Logf("log:\n%s", l)
		}
	}()
	need.Until(l.t, fmt.Sprintf("%q is in the log", text), 20*time.Second, func() bool {
		return strings.Contains(l.String(), text)
	})
}

// start runs h and returns its log and a function that ends it.
func start(t *testing.T, h serve.Health) (*logLines, func()) {
	t.Helper()
	l := &logLines{t: t}
	h.Log = slog.New(slog.NewTextHandler(l, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil on cancel", err)
		}
	})
	t.Cleanup(stop)
	return l, stop
}

// freePort returns an address that was free a moment ago.
func freePort(t *testing.T, host string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skipf("no listener on %s: %v", host, err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestHealthServesBothFamilies(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			addr := freePort(t, host)
			log, stop := start(t, serve.Health{Addr: addr, Alive: fine, Ready: fine})
			log.wait("health server listening")
			res, err := http.Get("http://" + addr.String() + "/healthz")
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode != 200 || string(body) != "ok\n" {
				t.Errorf("answer is %d %q, want 200 ok", res.StatusCode, body)
			}
			stop()
			if c, err := net.Dial("tcp", addr.String()); err == nil {
				_ = c.Close()
				t.Error("the server still listens after Run has ended")
			}
		})
	}
}

func TestHealthWaitsForItsPort(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	log, _ := start(t, serve.Health{Addr: held.Addr().(*net.TCPAddr).AddrPort(), Alive: fine, Ready: fine})
	log.wait("address already in use")
	_ = held.Close()
	log.wait("health server listening")
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("log has %d errors, want 1:\n%s", n, log.String())
	}
}

func TestHealthSaysOnceThatItCannotListen(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	addr := held.Addr().(*net.TCPAddr).AddrPort()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var log bytes.Buffer
		h := serve.Health{Addr: addr, Alive: fine, Ready: fine, Log: slog.New(slog.NewTextHandler(&log, nil))}
		if err := h.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("an hour without the port gave %d lines, want 1:\n%s", n, log.String())
		}
	})
}

func TestHealthIsOffWithoutPort(t *testing.T) {
	if err := (serve.Health{Addr: netip.MustParseAddrPort("0.0.0.0:0")}).Run(t.Context()); err != nil {
		t.Errorf("Run = %v, want nil at once", err)
	}
}
