package serve_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/need"
	"flanneld/serve"
)

func answers(ready api.Ready) http.Handler {
	return serve.Answers{
		Ready:  func() api.Ready { return ready },
		Status: func() api.Status { return api.Status{Version: "1.2"} },
		Leases: func() api.Leases { return api.Leases{Revision: 7} },
		Peers:  func() []api.Peer { return []api.Peer{{Host: "b"}} },
		Events: func() []api.Event { return []api.Event{{Message: "hello"}} },
		Store:  func() api.Store { return api.Store{Password: "p"} },
		Validate: func(text []byte) error {
			if string(text) == "good" {
				return nil
			}
			return errors.New("Network is missing")
		},
		Drain: func(context.Context) (api.Drained, error) { return api.Drained{}, errors.New("no lease") },
	}.Handler()
}

// startSocket serves on the socket of a subnet file until the test ends or stop is called.
func startSocket(t *testing.T, subnetFile string, ready api.Ready) (*logLines, func()) {
	t.Helper()
	l := &logLines{t: t}
	s := serve.Socket{Path: api.SocketPath(subnetFile), Handler: answers(ready),
		Log: slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil on cancel", err)
		}
	})
	t.Cleanup(stop)
	return l, stop
}

func askReady(t *testing.T, subnetFile string) api.Ready {
	t.Helper()
	var r api.Ready
	if err := api.NewClient(subnetFile).Get(t.Context(), api.PathReady, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSocketIsForRootOnlyAndGoesWithItsDaemon(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "subnet.env")
	log, stop := startSocket(t, file, api.Ready{Ready: true})
	log.wait("socket listening")
	info, err := os.Stat(filepath.Join(filepath.Dir(file), "subnet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode is %v, want a socket with 0600", info.Mode())
	}
	stop()
	if err := api.NewClient(file).Get(t.Context(), api.PathReady, &api.Ready{}); !errors.Is(err, api.ErrNoDaemon) {
		t.Errorf("asking a daemon that has gone gives %v, want %v", err, api.ErrNoDaemon)
	}
}

func TestTheSocketOfADeadDaemonIsReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subnet.env")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: api.SocketPath(file)})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	log, _ := startSocket(t, file, api.Ready{Reason: "starting"})
	log.wait("socket listening")
	if got, want := askReady(t, file), (api.Ready{Reason: "starting"}); got != want {
		t.Errorf("the answer is %v, want %v", got, want)
	}
}

func TestTheSocketOfALivingDaemonIsLeftAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subnet.env")
	first, _ := startSocket(t, file, api.Ready{Reason: "first"})
	first.wait("socket listening")
	second, _ := startSocket(t, file, api.Ready{Reason: "second"})
	second.wait("another daemon listens there")
	if got := askReady(t, file).Reason; got != "first" {
		t.Errorf("the %s daemon answers, want the first", got)
	}
}

func TestWhatIsNoSocketIsNotRemoved(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a regular file":              func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) },
		"a folder":                    func(p string) error { return os.Mkdir(p, 0o700) },
		"a FIFO":                      func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"a link to a regular file":    func(p string) error { return os.Symlink(os.Args[0], p) },
		"a link to what is not there": func(p string) error { return os.Symlink("nowhere", p) },
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "subnet.env")
			path := api.SocketPath(file)
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			log, _ := startSocket(t, file, api.Ready{Ready: true})
			log.wait("is not a socket")
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Fatalf("%s has been replaced: %v, %v", name, after, err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			log.wait("socket listening") // once the way is free
		})
	}
}

func TestTwoDaemonsHaveTwoSockets(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		file := filepath.Join(dir, name+".env")
		log, _ := startSocket(t, file, api.Ready{Reason: name})
		log.wait("socket listening")
		if got := askReady(t, file).Reason; got != name {
			t.Errorf("daemon %s answers on the socket of %s", got, name)
		}
	}
}

func TestASocketFileThatWasRemovedComesBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subnet.env")
	log, _ := startSocket(t, file, api.Ready{Ready: true})
	log.wait("socket listening")
	if err := os.Remove(api.SocketPath(file)); err != nil {
		t.Fatal(err)
	}
	need.Until(t, "the socket is back", 20*time.Second, func() bool {
		return api.NewClient(file).Get(t.Context(), api.PathReady, &api.Ready{}) == nil
	})
}

func TestSocketPages(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subnet.env")
	log, _ := startSocket(t, file, api.Ready{Ready: true})
	log.wait("socket listening")
	c := api.NewClient(file)
	var status api.Status
	var leases api.Leases
	var peers []api.Peer
	var events []api.Event
	var store api.Store
	for path, v := range map[string]any{
		api.PathStatus: &status, api.PathLeases: &leases, api.PathPeers: &peers, api.PathEvents: &events,
		api.PathStore: &store,
	} {
		if err := c.Get(t.Context(), path, v); err != nil {
			t.Error(err)
		}
	}
	if status.Version != "1.2" || leases.Revision != 7 || len(peers) != 1 || len(events) != 1 || store.Password != "p" {
		t.Errorf("the pages say %v %v %v %v %v", status, leases, peers, events, store)
	}
	for text, want := range map[string]string{"good": "", "bad": "Network is missing"} {
		var v api.Verdict
		if err := c.Post(t.Context(), api.PathValidate, []byte(text), &v); err != nil || v.Problem != want {
			t.Errorf("the verdict on %s is %q, %v, want %q", text, v.Problem, err, want)
		}
	}
	err := c.Post(t.Context(), api.PathDrain, nil, &api.Drained{})
	if err == nil || err.Error() != "no lease" {
		t.Errorf("draining gives %v, want the daemon's reason", err)
	}
}
