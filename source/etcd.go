package source

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"flanneld/options"
	"flanneld/subnet/etcdv3"
	"flanneld/subnet/etcdv3/member"
	"flanneld/trigger"
)

const (
	// memberWait is how long the embedded etcd is waited for before the network is joined without it.
	memberWait = 5 * time.Second
	// offerPause is how long to wait before the network configuration is offered to the store again.
	offerPause = time.Second
)

// Etcd is the etcd that the options name, and the embedded member beside it.
type Etcd struct {
	Options options.Options
	Report  MemberReport
	Log     *slog.Logger
}

// MemberReport is told how the embedded etcd is.
type MemberReport interface {
	Waiting(format string, args ...any)
	// Member is told why the embedded etcd does not serve; nil: it does.
	Member(err error)
}

// Open returns the store. Nothing is asked yet.
func (e Etcd) Open() (*etcdv3.Store, error) {
	o := e.Options
	return etcdv3.New(etcdv3.Options{
		Endpoints: o.EtcdEndpoints, Prefix: o.EtcdPrefix,
		CertFile: o.EtcdCertfile, KeyFile: o.EtcdKeyfile, CAFile: o.EtcdCAFile,
		Username: string(o.EtcdUsername), Password: string(o.EtcdPassword), Log: e.Log,
	})
}

// Start keeps the embedded etcd running, if the options ask for it, and offers the network configuration to the store,
// in g. It returns once the embedded etcd serves or has failed.
func (e Etcd) Start(ctx context.Context, g *errgroup.Group, store *etcdv3.Store) {
	if e.Options.EtcdEmbedded {
		e.runMember(ctx, g, store)
		return
	}
	g.Go(func() error {
		e.offer(ctx, store)
		return nil
	})
}

// runMember keeps the embedded etcd running, in g, and returns once it serves or has failed. Its failures are shown,
// and end nothing: this host and all others go on without a store. It is offered the network configuration whenever it
// begins to serve, for its data may have been moved away.
func (e Etcd) runMember(ctx context.Context, g *errgroup.Group, store *etcdv3.Store) {
	e.Report.Waiting("starting the embedded etcd")
	reported, served := trigger.New(), trigger.New()
	g.Go(func() error {
		o := member.Options{Dir: filepath.Join(e.Options.StateDir, "etcd"), Listen: e.Options.EtcdEmbeddedListen, Log: e.Log}
		last := ""
		member.Run(ctx, o, func(err error) {
			e.Report.Member(err)
			switch {
			case err == nil:
				last = ""
				served.Set()
			case err.Error() != last:
				last = err.Error()
				e.Log.Warn("embedded etcd not available", "reason", last)
			}
			reported.Set()
		})
		return nil
	})
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-served:
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

// offer writes -network-config to the store if that has none, as soon as it can be reached.
func (e Etcd) offer(ctx context.Context, store *etcdv3.Store) {
	if e.Options.NetworkConfig == "" {
		return
	}
	for ctx.Err() == nil {
		written, err := store.PutConfigIfAbsent(ctx, e.Options.NetworkConfig)
		if err == nil {
			e.Log.Info("initial network configuration sent to the store", "key", e.Options.EtcdPrefix+"/config",
				"written", written)
			return
		}
		_ = trigger.Pause(ctx, offerPause)
	}
}
