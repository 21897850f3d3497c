// Package rejoin joins the network, and again whenever that ends for a reason that another try can mend: a shortage, an
// identity that turns out to be another host's, a drain that failed. It owns the state that joining starts from.
package rejoin

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"

	"flanneld/api"
	"flanneld/drain"
	"flanneld/retry"
	"flanneld/subnet"
	"flanneld/subnet/keeper"
)

// Options are what Run needs; all of it.
type Options struct {
	State    *subnet.State
	StateDir *subnet.StateDir
	// Join takes part in the network until ctx ends or something fails.
	Join func(context.Context) error
	// Leave takes this host out of the network when all that Join has started has ended. It reports false if nothing was
	// changed.
	Leave  func(context.Context, *drain.Request) (out api.Drained, left bool, err error)
	Report Report
	Log    *slog.Logger
}

// Report is told what has become of the host.
type Report interface {
	// Identify is told a new identity.
	Identify(identity string)
	// Leave is told that the host has left the network for good.
	Leave()
}

// Run joins until ctx ends or an error that no other try mends. A host that has left by request idles until ctx ends.
func Run(ctx context.Context, o Options) error {
	for {
		err := o.join(ctx)
		if req := (*drain.Request)(nil); errors.As(err, &req) {
			if o.leave(ctx, req) {
				<-ctx.Done()
				return nil
			}
			continue
		}
		if !errors.Is(err, keeper.ErrCloned) {
			return err
		}
		o.renew()
	}
}

// join joins again after a shortage, with what was saved until then.
func (o Options) join(ctx context.Context) error {
	joined := false
	return retry.Shortage(ctx, o.Log, func() error {
		if joined {
			o.remember()
		}
		joined = true
		return o.Join(ctx)
	})
}

// remember takes in what the last join has saved.
func (o Options) remember() {
	if st, err := o.StateDir.Load(); err == nil && st.Identity == o.State.Identity {
		*o.State = st
	}
}

// renew gives the host a new identity, and forgets what it had under the old one.
func (o Options) renew() {
	o.State.Identity = rand.Text()
	o.State.Own, o.State.MACs, o.State.Memory = subnet.Record{}, nil, subnet.Memory{}
	o.Report.Identify(o.State.Identity)
	o.Log.Warn("restarting with a new identity", "identity", o.State.Identity)
	if err := o.StateDir.Save(*o.State); err != nil {
		o.Log.Error("new identity not saved: the next start uses the old one", "error", err)
	}
}

// leave answers a request. It reports whether the host has left; else it is to join again.
func (o Options) leave(ctx context.Context, req *drain.Request) bool {
	out, left, err := o.Leave(ctx, req)
	if left {
		o.Report.Leave()
		o.Log.Info("drained by the operator: restart the daemon to join again", "subnets", out.Subnets,
			"removed", len(out.Removed))
	} else {
		o.Log.Error("drain failed, joining again", "error", err)
		st, loadErr := o.StateDir.Load()
		if loadErr != nil {
			o.Log.Warn("saved state not used", "reason", loadErr)
		}
		*o.State = st
	}
	req.Answer(out, err)
	return left
}
