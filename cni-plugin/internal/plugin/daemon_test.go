package plugin_test

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"flanneld/cni-plugin/internal/plugin"
)

// listen answers every connection on a socket with f.
func listen(t *testing.T, socket string, f func(net.Conn)) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f(conn)
		}
	}()
}

// serve is the daemon's server in small.
func serve(t *testing.T, socket string, code int, body string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/ready", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	})
	s := &http.Server{Handler: mux}
	done := make(chan struct{})
	t.Cleanup(func() { s.Close(); <-done })
	go func() { defer close(done); _ = s.Serve(l) }()
}

func TestDaemonSaysWhetherItIsReady(t *testing.T) {
	for _, tt := range []struct {
		name   string
		daemon func(t *testing.T, socket string)
		want   plugin.Liveness
		reason string
	}{
		{"no socket", func(*testing.T, string) {}, plugin.NoSocket, ""},
		{"nobody listens", func(t *testing.T, socket string) {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
		}, plugin.NotRunning, ""},
		{"ready", func(t *testing.T, socket string) { serve(t, socket, 200, `{"ready":true,"reason":""}`) }, plugin.Ready,
			""},
		{"not ready", func(t *testing.T,
			socket string) {
			serve(t, socket, 503, `{"ready":false,"reason":"waits for etcd"}`)
		}, plugin.NotReady, "waits for etcd"},
		{"ready in words, not in code", func(t *testing.T, socket string) { serve(t, socket, 503, `{"ready":true}`) },
			plugin.NotReady, ""},
		{"an older daemon that does not know the question",
			func(t *testing.T, socket string) { serve(t, socket, 404, `nothing here`) }, plugin.Silent, ""},
		{"rubbish", func(t *testing.T, socket string) {
			listen(t, socket, func(c net.Conn) { fmt.Fprint(c, "SSH-2.0\r\n"); c.Close() })
		}, plugin.Silent, ""},
		{"hangs up", func(t *testing.T, socket string) { listen(t, socket, func(c net.Conn) { c.Close() }) }, plugin.Silent,
			""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.daemon(t, filepath.Join(dir, "subnet.sock"))
			got := plugin.AskDaemon(filepath.Join(dir, "subnet.env"))
			if got.Liveness != tt.want || tt.reason != "" && got.Reason != tt.reason {
				t.Errorf("got %+v, want liveness %d, reason %q", got, tt.want, tt.reason)
			}
		})
	}
}

func TestDaemonThatHangsIsNotWaitedForLong(t *testing.T) {
	dir := t.TempDir()
	hold := make(chan struct{})
	listen(t, filepath.Join(dir, "subnet.sock"), func(c net.Conn) { <-hold; c.Close() })
	defer close(hold)
	start := time.Now()
	if got := plugin.AskDaemon(filepath.Join(dir, "subnet.env")); got.Liveness != plugin.Silent {
		t.Errorf("got %+v, want a silent daemon", got)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v, want some two seconds", took)
	}
}
