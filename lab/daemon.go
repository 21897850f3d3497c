package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// healthPort is where every daemon of the lab answers for its health, on the loopback of its host.
const healthPort = 10280

// Daemon is a running flanneld. It talks to the lab as to systemd.
type Daemon struct {
	*Process
	host *Host

	socket *net.UnixConn
	ready  chan struct{} // closed at READY=1
	heard  chan struct{} // closed when all that it has notified was taken in, after its end

	mu      sync.Mutex // guards all below
	readyAt time.Time
	status  string
}

// Flanneld starts the daemon. args are added to its command line.
func (h *Host) Flanneld(args ...string) (*Daemon, error) {
	path := filepath.Join(h.dir, "notify.sock")
	if h.last != nil {
		select {
		case <-h.last.Done():
			<-h.last.heard // or files that it has handed over would be missing
		default: // two at once
		}
	}
	_ = os.Remove(path) // of the daemon before
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for notifications: %w", err)
	}
	args = append([]string{
		h.lab.o.Binaries.Flanneld, "-subnet-file", h.SubnetFile(), "-state-dir", h.StateDir(),
		"-healthz-ip", "127.0.0.1", "-healthz-port", fmt.Sprint(healthPort),
	}, args...)
	d := &Daemon{host: h, socket: socket, ready: make(chan struct{}), heard: make(chan struct{})}
	env, files, args := h.kept.activate(append([]string{"NOTIFY_SOCKET=" + path}, h.Environ...), args)
	d.Process, err = h.startWith(filepath.Join(h.dir, "flanneld.log"), env, files, args...)
	for _, f := range files {
		_ = f.Close()
	}
	if err != nil {
		_ = socket.Close()
		return nil, err
	}
	h.last = d
	go d.listen()
	go func() {
		<-d.Done()
		if !d.finish(path) {
			_ = socket.Close() // ends listen
		}
	}()
	return d, nil
}

// end is the last notification, which the lab sends: behind all those of the daemon.
const end = "LAB_END=1"

// finish sends it.
func (d *Daemon) finish(path string) bool {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte(end))
	return err == nil
}

// listen takes in the notifications (sd_notify(3)).
func (d *Daemon) listen() {
	defer close(d.heard)
	defer func() { _ = d.socket.Close() }()
	b := make([]byte, 64<<10)
	oob := make([]byte, 4<<10)
	for {
		n, oobn, _, _, err := d.socket.ReadMsgUnix(b, oob)
		if err != nil || string(b[:n]) == end {
			return
		}
		d.host.kept.note(string(b[:n]), oob[:oobn])
		for line := range strings.Lines(string(b[:n])) {
			d.note(strings.TrimSuffix(line, "\n"))
		}
	}
}

func (d *Daemon) note(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if text, ok := strings.CutPrefix(line, "STATUS="); ok {
		d.status = text
	}
	if line == "READY=1" && d.readyAt.IsZero() {
		d.readyAt = time.Now()
		close(d.ready)
	}
}

// Ready waits until the daemon has notified its readiness.
func (d *Daemon) Ready(ctx context.Context) error {
	select {
	case <-d.ready:
		return nil
	case <-d.Done():
		return fmt.Errorf("flanneld has ended before it was ready:\n%s", lastLines(d.Log(), 15))
	case <-ctx.Done():
		return fmt.Errorf("flanneld is not ready (%s):\n%s", d.Status(), lastLines(d.Log(), 15))
	}
}

// ReadyAt returns when the daemon was ready first.
func (d *Daemon) ReadyAt() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.readyAt
}

// Status returns the line that "systemctl status" would show.
func (d *Daemon) Status() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status
}

// Get asks the daemon's health server for a page, and returns the status code and the body.
func (d *Daemon) Get(ctx context.Context, page string) (int, string, error) {
	c := http.Client{Transport: &http.Transport{DialContext: d.host.Dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", healthPort, page),
		nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), errors.Join(err, resp.Body.Close())
}
