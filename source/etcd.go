package source

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"flanneld/options"
	"flanneld/subnet/etcdv3"
	"flanneld/subnet/etcdv3/embedded"
	"flanneld/subnet/etcdv3/member"
	"flanneld/trigger"
)

const (
	// memberWait is how long the embedded etcd is waited for before the network is joined without it.
	memberWait = 5 * time.Second
	// offerPause is how long to wait before the network configuration is offered to the store again.
	offerPause = time.Second
)

// Etcd is the etcd that the options name, and the embedded member beside it. Open comes first; Tokens and hosts may be
// asked for at any time, by any goroutine.
type Etcd struct {
	options  options.Options
	identity string
	report   MemberReport
	log      *slog.Logger
	member   atomic.Pointer[embedded.Member] // of a secured store; nil: there is none here
	joiner   *embedded.Joiner                // nil: the host has joined no store
}

// MemberReport is told how the embedded etcd is.
type MemberReport interface {
	Waiting(format string, args ...any)
	// Member is told why the embedded etcd does not serve; nil: it does.
	Member(err error)
}

// NewEtcd returns the etcd of a host with an identity. It starts nothing.
func NewEtcd(o options.Options, identity string, report MemberReport, log *slog.Logger) *Etcd {
	return &Etcd{options: o, identity: identity, report: report, log: log}
}

// Open returns the store, of which nothing is asked yet. A host that is to join a secured store waits until it has
// joined, and a member makes what it needs for security. The store is nil when ctx ends before that.
func (e *Etcd) Open(ctx context.Context) (*etcdv3.Store, error) {
	if err := e.prepare(ctx); err != nil || ctx.Err() != nil {
		return nil, err
	}
	o := Resolve(e.options)
	return etcdv3.New(etcdv3.Options{
		Endpoints: o.EtcdEndpoints, Prefix: o.EtcdPrefix,
		CertFile: o.EtcdCertfile, KeyFile: o.EtcdKeyfile, CAFile: o.EtcdCAFile,
		Username: string(o.EtcdUsername), Password: string(o.EtcdPassword), Log: e.log,
	})
}

// Start keeps the embedded etcd running, if the options ask for it, and offers the network configuration to the store,
// in g. It returns once the embedded etcd serves or has failed.
func (e *Etcd) Start(ctx context.Context, g *errgroup.Group, store *etcdv3.Store) {
	if e.options.EtcdEmbedded {
		e.runMember(ctx, g, store)
		return
	}
	g.Go(func() error {
		e.offer(ctx, store)
		if e.joiner != nil {
			e.joiner.Keep(ctx, store)
		}
		return nil
	})
}

// runMember keeps the embedded etcd running, in g, and returns once it serves or has failed. Its failures are shown,
// and end nothing: this host and all others go on without a store. It is offered the network configuration whenever it
// begins to serve, for its data may have been moved away.
func (e *Etcd) runMember(ctx context.Context, g *errgroup.Group, store *etcdv3.Store) {
	e.report.Waiting("starting the embedded etcd")
	reported, served := trigger.New(), trigger.New()
	secured := e.member.Load()
	o := member.Options{Dir: embedded.DataDir(e.options.StateDir), Listen: e.options.EtcdEmbeddedListen, Log: e.log}
	if secured != nil {
		o = secured.Etcd()
		g.Go(func() error {
			secured.Run(ctx, store)
			return secured.Close()
		})
	}
	g.Go(func() error {
		member.Run(ctx, o, e.reporter(reported, served))
		return nil
	})
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-served:
				if secured != nil {
					secured.Secure(ctx)
				}
				e.offer(ctx, store)
			}
		}
	})
	select {
	case <-ctx.Done():
	case <-reported:
	case <-time.After(memberWait):
	}
}

// reporter returns what is told how the member is.
func (e *Etcd) reporter(reported, served trigger.Trigger) func(error) {
	last := ""
	return func(err error) {
		e.report.Member(err)
		switch {
		case err == nil:
			last = ""
			served.Set()
		case err.Error() != last:
			last = err.Error()
			e.log.Warn("embedded etcd not available", "reason", last)
		}
		reported.Set()
	}
}

// offer writes -network-config to the store if that has none, as soon as it can be reached.
func (e *Etcd) offer(ctx context.Context, store *etcdv3.Store) {
	if e.options.NetworkConfig == "" {
		return
	}
	for ctx.Err() == nil {
		written, err := store.PutConfigIfAbsent(ctx, e.options.NetworkConfig)
		if err == nil {
			text := "network configuration written to the store"
			if !written {
				text = "network configuration of -network-config not written: the store has one"
			}
			e.log.Info(text, "key", e.options.EtcdPrefix+"/config")
			return
		}
		_ = trigger.Pause(ctx, offerPause)
	}
}
