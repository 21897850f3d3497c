package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Health answers whoever wants to know how the daemon is:
//
//	/healthz  200 while Alive returns nil, else 503 with the reason
//	/readyz   200 while Ready returns nil, else 503 with the reason
//	/status   what Status returns, as JSON; 404 without Status
//	/metrics  what Metrics serves; 404 without Metrics
//	/         what Page serves; 404 without Page
//
// A request for a host name that is not known learns the two states only, without the reason, and gets 421 from all
// other pages. The functions are called for each request, by several goroutines at once.
type Health struct {
	Addr   netip.AddrPort // port 0: no server
	Hosts  []string       // names that requests may ask for, beside addresses and the own name
	Alive  func() error
	Ready  func() error
	Status func() any
	// Metrics and Page must not change anything: whoever reaches the port may ask them.
	Metrics, Page http.Handler
	Log           *slog.Logger
}

const (
	healthTimeout   = 5 * time.Second // for each step of a request
	healthHeaders   = 8 << 10         // bytes
	firstListenWait = time.Second
	lastListenWait  = 30 * time.Second
)

// Run serves until ctx ends; it returns nil then, and at once if there is to be no server. An address that cannot be
// listened on (not configured yet, held by another process) is tried again for ever.
func (h Health) Run(ctx context.Context) error {
	if h.Addr.Port() == 0 {
		return nil
	}
	wait, said := firstListenWait, ""
	for {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", h.Addr.String())
		if err == nil {
			h.Log.Info("health server listening", "address", l.Addr().String())
			wait, said = firstListenWait, ""
			err = h.serve(ctx, Bounded(l, mostHealthConns(), healthConnsEach))
		}
		if ctx.Err() != nil {
			return nil
		}
		if err.Error() != said {
			said = err.Error()
			h.Log.Error("health server cannot listen, retrying", "address", h.Addr.String(), "error", err,
				"hint", "-healthz-ip and -healthz-port choose the address")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			wait = min(2*wait, lastListenWait)
		}
	}
}

// serve answers until ctx ends or the listener fails.
func (h Health) serve(ctx context.Context, l net.Listener) error {
	s := &http.Server{
		Handler:           h.Handler(),
		ReadHeaderTimeout: healthTimeout,
		ReadTimeout:       healthTimeout,
		WriteTimeout:      healthTimeout,
		IdleTimeout:       healthTimeout,
		MaxHeaderBytes:    healthHeaders,
		ErrorLog:          slog.NewLogLogger(h.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	err := s.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return errors.Join(err, s.Close())
}

// Handler returns the pages, to be served elsewhere too.
func (h Health) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", h.check(h.Alive))
	mux.Handle("GET /readyz", h.check(h.Ready))
	if h.Status != nil {
		mux.Handle("GET /status", h.guarded(http.HandlerFunc(h.writeStatus)))
	}
	if h.Metrics != nil {
		mux.Handle("GET /metrics", h.guarded(h.Metrics))
	}
	if h.Page != nil {
		mux.Handle("GET /{$}", h.guarded(h.Page))
	}
	return mux
}

// check serves a state. Load balancers may ask for it by any name.
func (h Health) check(f func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if err := f(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			if h.knows(r) {
				fmt.Fprintln(w, err)
			}
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

func (h Health) writeStatus(w http.ResponseWriter, _ *http.Request) {
	text, err := json.MarshalIndent(h.Status(), "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(text, '\n')) // nothing to do for a client who has gone
}
