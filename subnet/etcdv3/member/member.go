// Package member runs one etcd member in a process of its own, for a single host or a small cluster whose first host
// holds the store.
package member

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/tlsutil"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Options say where the member keeps its data and where it listens.
type Options struct {
	Dir    string         `json:"-"` // created with mode 0700
	Listen netip.AddrPort // for clients
	TLS    Files          // the zero value: plain HTTP, and no rights
	Quota  int64          // of the file with the data, in bytes; zero: as much as any network needs
	Log    *slog.Logger   `json:"-"`

	Name      string     // of the member; empty: it is the only one
	Advertise netip.Addr // at which others reach it; the zero address: there are no others
	Bootstrap
	// Prepare is asked for Bootstrap before each start; nil: there are no others.
	Prepare func(context.Context) (Bootstrap, error) `json:"-"`
	// Removed is called when other members have said that this one is none of them.
	Removed func() `json:"-"`
	// Restart receives when the member is to be started anew.
	Restart <-chan struct{} `json:"-"`
}

// PeerURL returns where other members reach a member with this address for clients: the next port is that for peers.
func PeerURL(advertise netip.Addr, listen netip.AddrPort) string {
	return (&url.URL{Scheme: "https", Host: netip.AddrPortFrom(advertise, listen.Port()+1).String()}).String()
}

// Files are what a member with TLS needs. Certificates are read again for each connection. Clients must have a
// certificate of the authority, and are the user that it names.
type Files struct {
	CA, Cert, Key string
}

// Member is a running etcd member.
type Member struct {
	etcd *embed.Etcd
	logs *logs
}

// The store is small: a few hundred bytes for each host.
const (
	quotaBytes     = 512 << 20
	snapshotCount  = 5000
	retainedPeriod = "1h" // how far back a watch can resume
	maxLearners    = 4    // the first member may have all others of five added at once
)

// CommonName is that in the certificates of members, which those of other hosts do not have.
const CommonName = "flannel-member"

// Start returns when the member serves, or when ctx ends.
func Start(ctx context.Context, o Options) (*Member, error) {
	if err := o.restore(time.Now()); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create etcd's folder: %w", err)
	}
	// While it starts and stops, etcd warns of what is meant to be so.
	logs := newLogs()
	c := embed.NewConfig()
	c.Name, c.Dir = cmp.Or(o.Name, "flanneld"), o.Dir
	c.ListenClientUrls = []url.URL{{Scheme: o.scheme(), Host: o.Listen.String()}}
	if o.TLS != (Files{}) {
		c.ClientTLSInfo = transport.TLSInfo{
			CertFile: o.TLS.Cert, KeyFile: o.TLS.Key, TrustedCAFile: o.TLS.CA, ClientCertAuth: true,
		}
		c.TlsMinVersion = string(tlsutil.TLSVersion13)
	}
	c.EnableGRPCGateway = false // nobody asks in HTTP, and it would have the rights of the member's own certificate
	// Away from the clients' port, which then speaks gRPC without a detour through net/http.
	c.ListenClientHttpUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(o.Dir, "http")}}
	if err := o.peers(c); err != nil {
		return nil, err
	}
	c.QuotaBackendBytes, c.SnapshotCount, c.MaxLearners = cmp.Or(o.Quota, quotaBytes), snapshotCount, maxLearners
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, retainedPeriod
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&logCore{log: o.Log.With("component", "etcd"), logs: logs}))
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure etcd: %w", err)
	}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s on %s: %w", o.Dir, o.Listen, err)
	}
	m := &Member{e, logs}
	select {
	case <-e.Server.ReadyNotify():
		logs.least.Store(int32(zapcore.WarnLevel))
		o.Log.Info(serves, "address", o.Listen.String(), "dir", o.Dir)
		return m, nil
	case <-logs.removed:
		m.Close()
		return nil, errRemoved
	case err := <-e.Err():
		m.Close()
		return nil, m.why(fmt.Errorf("start etcd: %w", err))
	case <-ctx.Done():
		m.Close()
		return nil, ctx.Err()
	}
}

// why returns why the member has ended, which has ended with an error.
func (m *Member) why(err error) error {
	select {
	case <-m.logs.removed:
		return errRemoved
	default:
		return err
	}
}

// peers says how other members are reached and reach this one.
func (o Options) peers(c *embed.Config) error {
	c.AdvertiseClientUrls = c.ListenClientUrls
	if !o.Advertise.IsValid() {
		// There are no peers. A socket in the data folder needs no port and cannot collide.
		peer := url.URL{Scheme: "unix", Path: filepath.Join(o.Dir, "peer")}
		c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		c.InitialCluster = c.InitialClusterFromName(c.Name)
		return nil
	}
	peer, err := url.Parse(PeerURL(o.Advertise, o.Listen))
	if err != nil {
		return err
	}
	c.PeerTLSInfo = transport.TLSInfo{
		CertFile: o.TLS.Cert, KeyFile: o.TLS.Key, TrustedCAFile: o.TLS.CA, ClientCertAuth: true,
		AllowedCNs: []string{CommonName}, SkipClientSANVerify: true, // a peer may connect from any of its addresses
	}
	listen := netip.AddrPortFrom(o.Listen.Addr(), o.Listen.Port()+1)
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{{Scheme: "https", Host: listen.String()}}, []url.URL{*peer}
	c.AdvertiseClientUrls = []url.URL{{
		Scheme: "https", Host: netip.AddrPortFrom(o.Advertise, o.Listen.Port()).String(),
	}}
	if c.InitialCluster = c.InitialClusterFromName(c.Name); o.Cluster != "" {
		c.InitialCluster, c.ClusterState = o.Cluster, embed.ClusterStateFlagExisting
	}
	return nil
}

func (o Options) scheme() string {
	if o.TLS == (Files{}) {
		return "http"
	}
	return "https"
}

// Close stops the member and waits for it.
func (m *Member) Close() {
	m.logs.least.Store(int32(zapcore.FatalLevel))
	m.etcd.Server.Stop()
	m.etcd.Close()
}
