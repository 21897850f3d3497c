package systemd

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"flanneld/trigger"
)

// statusPause is the least time between two status lines to the service manager.
const statusPause = time.Second

// Notifier tells the service manager (sd_notify(3)) how the daemon is. Without one, which is when NOTIFY_SOCKET is not
// set, it does nothing. Its methods may be called by several goroutines.
type Notifier struct {
	log     *slog.Logger
	wake    trigger.Trigger
	failure string // last error of send; used by Run alone

	mu     sync.Mutex // guards all below
	ready  bool
	status string
}

// NewNotifier returns a notifier that says nothing before Run.
func NewNotifier(log *slog.Logger) *Notifier {
	return &Notifier{log: log, wake: trigger.New()}
}

// Ready tells, once, that the data plane is up.
func (n *Notifier) Ready() {
	n.mu.Lock()
	n.ready = true
	n.mu.Unlock()
	n.wake.Set()
}

// Status sets the line that "systemctl status" shows. It is sent if it is another one, at most once a second.
func (n *Notifier) Status(line string) {
	n.mu.Lock()
	n.status = line
	n.mu.Unlock()
	n.wake.Set()
}

// Run sends what is new, and the watchdog's sign of life for as long as alive says so, until ctx ends; then it
// sends STOPPING=1 and returns nil. It is to be called once.
func (n *Notifier) Run(ctx context.Context, alive func() bool) error {
	watchdog, stop := n.watchdog()
	defer stop()
	var sent message
	var last time.Time
	again := time.NewTimer(statusPause)
	defer again.Stop()
	flush := func() {
		next := n.message()
		switch {
		case next == sent:
			return
		case next.ready == sent.ready && time.Since(last) < statusPause, !n.send(next.since(sent)):
			again.Reset(statusPause)
			return
		}
		sent, last = next, time.Now()
	}
	for {
		select {
		case <-ctx.Done():
			n.send(daemon.SdNotifyStopping)
			return nil
		case <-watchdog:
			if alive() {
				n.send(daemon.SdNotifyWatchdog)
			}
		case <-n.wake:
			flush()
		case <-again.C:
			flush()
		}
	}
}

// watchdog returns ticks at half the period that the service manager asks for; a nil channel if it asks for none.
func (n *Notifier) watchdog() (ticks <-chan time.Time, stop func()) {
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("notify the watchdog of the service manager failed", "error", err)
	}
	if period < 2 {
		return nil, func() {}
	}
	t := time.NewTicker(period / 2)
	return t.C, t.Stop
}

// message is what the service manager is to know.
type message struct {
	ready  bool
	status string
}

func (n *Notifier) message() message {
	n.mu.Lock()
	defer n.mu.Unlock()
	return message{n.ready, n.status}
}

// since returns the lines that lead from one message to the next.
func (m message) since(old message) string {
	text := ""
	if m.ready && !old.ready {
		text = daemon.SdNotifyReady + "\n"
	}
	if m.status != old.status {
		text += "STATUS=" + oneLine(m.status) + "\n"
	}
	return text
}

// oneLine keeps a status with line breaks from being read as further assignments.
func oneLine(s string) string {
	out := []byte(s)
	for i, c := range out {
		if c < ' ' {
			out[i] = ' '
		}
	}
	return string(out)
}

// send reports whether the service manager, if there is one, was told. A failure is logged when it is another than the
// last.
func (n *Notifier) send(text string) bool {
	_, err := daemon.SdNotify(false, text)
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	if failure != n.failure && err != nil {
		n.log.Warn("notify the service manager failed, retrying", "error", err)
	}
	n.failure = failure
	return err == nil
}
