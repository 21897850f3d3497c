package rejoin_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"

	"flanneld/api"
	"flanneld/drain"
	"flanneld/ip"
	"flanneld/rejoin"
	"flanneld/subnet"
	"flanneld/subnet/keeper"
	"flanneld/subnet/subnettest"
)

// host is one that joins; joins are the outcomes of its joins, in their order.
type host struct {
	t        *testing.T
	state    subnet.State
	dir      *subnet.StateDir
	requests drain.Requests
	joins    []error
	joined   []string // the identities that it has joined with
	reported string   // the identity that was reported
	left     bool
}

func newHost(t *testing.T, joins ...error) *host {
	t.Helper()
	dir, err := subnet.OpenState(t.TempDir(), filepath.Join(t.TempDir(), "subnet.env"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	h := &host{t: t, dir: dir, requests: drain.NewRequests(), joins: joins}
	h.state.Identity = "first"
	return h
}

func (h *host) Identify(identity string) { h.reported = identity }
func (h *host) Leave()                   { h.left = true }

// errWaits has a join wait for a request of the operator.
var errWaits = errors.New("waits")

func (h *host) join(ctx context.Context) error {
	h.joined = append(h.joined, h.state.Identity)
	err := h.joins[0]
	h.joins = h.joins[1:]
	if errors.Is(err, errWaits) {
		return h.requests.Wait(ctx, func() ip.Scope { return ip.Scope{} })
	}
	return err
}

func (h *host) run(ctx context.Context, leave func() (bool, error)) error {
	return rejoin.Run(ctx, rejoin.Options{
		State: &h.state, StateDir: h.dir, Join: h.join, Report: h, Log: slog.New(slog.DiscardHandler),
		Leave: func(context.Context, *drain.Request) (api.Drained, bool, error) {
			left, err := leave()
			return api.Drained{Removed: []string{"a route"}}, left, err
		},
	})
}

func TestACloneJoinsWithANewIdentityThatStatusAndStateNameToo(t *testing.T) {
	h := newHost(t, fmt.Errorf("keep: %w", keeper.ErrCloned), nil)
	if err := h.run(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	saved, err := h.dir.Load()
	if err != nil {
		t.Fatal(err)
	}
	if len(h.joined) != 2 || h.joined[0] != "first" || h.joined[1] == "first" {
		t.Fatalf("joined as %q, want a new identity the second time", h.joined)
	}
	if second := h.joined[1]; h.reported != second || saved.Identity != second {
		t.Errorf("joined as %q, the status says %q, the state %q", second, h.reported, saved.Identity)
	}
}

func TestAFaultThatNoOtherTryMendsEndsIt(t *testing.T) {
	wrong := errors.New("wrong flag")
	if err := newHost(t, wrong).run(t.Context(), nil); !errors.Is(err, wrong) {
		t.Errorf("got %v, want %v", err, wrong)
	}
}

func TestAHostThatWasDrainedIdles(t *testing.T) {
	for _, tt := range []struct {
		name  string
		joins []error
		leave []bool // what each request achieves
	}{
		{"at once", []error{errWaits}, []bool{true}},
		{"and joins again when nothing could be changed", []error{errWaits, errWaits}, []bool{false, true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, tt.joins...)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				ended, asked := make(chan error, 1), 0
				go func() {
					ended <- h.run(ctx, func() (bool, error) {
						asked++
						if tt.leave[asked-1] {
							return true, nil
						}
						return false, errors.New("store away")
					})
				}()
				for i, left := range tt.leave {
					out, err := h.requests.Ask(ctx, subnettest.NewServer().Client("host"),
						func() error { return errors.New("not joined") })
					if (err == nil) != left || len(out.Removed) != 1 {
						t.Errorf("request %d: %v, %v", i, out, err)
					}
				}
				synctest.Wait()
				if !h.left || len(h.joined) != len(tt.joins) {
					t.Errorf("left: %v, joined %d times, want %d", h.left, len(h.joined), len(tt.joins))
				}
				select {
				case err := <-ended:
					t.Errorf("ended (%v), and the service manager would start it again", err)
				default:
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
