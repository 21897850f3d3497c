package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flanneld/retry"
	"flanneld/serve"
	"flanneld/subnet/etcdv3/authority"
	"flanneld/subnet/etcdv3/join"
	"flanneld/subnet/etcdv3/member"
	"flanneld/trigger"
)

// Options say what a member of a secured store must know.
type Options struct {
	StateDir string
	Prefix   string         // of the network, without a slash at the end
	Listen   netip.AddrPort // of etcd, for its clients
	Port     uint16         // of the service, on the same address
	Host     string         // the name of this host
	Identity string         // in its record
	Log      *slog.Logger
}

// Member is a member of a secured store. Its methods may be called by any goroutine.
type Member struct {
	o       Options
	folder  authority.Folder
	joined  join.Joined
	known   atomic.Pointer[known]
	admin   *join.Admin
	secured chan struct{} // closed when the rights are on
	once    sync.Once     // closes it

	restart  trigger.Trigger
	order    atomic.Pointer[member.Bootstrap] // of the next start of etcd; nil: it goes on
	ordering sync.Mutex                       // held while an order is carried out
	removed  atomic.Bool                      // other members do not have this one any more
}

// The names in certificates.
const (
	memberName = member.CommonName // no user of etcd
	rootName   = "root"
	hostsFile  = "hosts.json"

	renewPause = 12 * time.Hour // between two looks at the certificates
	retryPause = time.Second
	maxPause   = time.Minute

	mostConns     = 64 // to the service, at once
	mostConnsEach = 8  // of one address
)

// NewMember makes what is missing of the authority and the certificates, without asking anybody.
func NewMember(o Options) (*Member, error) {
	m := &Member{o: o, folder: Folder(o.StateDir), secured: make(chan struct{}), restart: trigger.New()}
	m.joined, _ = join.Load(m.folder)
	if m.joined.User == "" {
		m.joined.User = join.NewUser()
	}
	m.joined.Prefix = o.Prefix
	if !m.joined.Several {
		m.joined.Endpoints, m.joined.Services = m.members(o.Listen.Addr())
	}
	m.known.Store(&known{view{m.joined.Endpoints, m.joined.Services}, m.joined.Several})
	if err := m.certify(time.Now()); err != nil {
		return nil, fmt.Errorf("certificates of the store: %w", err)
	}
	if err := join.Save(m.folder, m.joined); err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(o.StateDir, insecureMark)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var err error
	m.admin, err = join.NewAdmin(m.joined.Endpoints, m.folder, o.Prefix)
	return m, err
}

// Close ends all calls to the store.
func (m *Member) Close() error { return m.admin.Close() }

// members returns how this member alone is reached by those who have reached an address of it.
func (m *Member) members(reached netip.Addr) (endpoints, services []string) {
	addr := m.o.Listen.Addr()
	if addr.IsUnspecified() {
		addr = reached
	}
	if addr.IsUnspecified() {
		addr = loopback(addr)
	}
	return []string{"https://" + netip.AddrPortFrom(addr, m.o.Listen.Port()).String()},
		[]string{netip.AddrPortFrom(addr, m.o.Port).String()}
}

func loopback(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// certify makes or renews the certificates of this host.
func (m *Member) certify(now time.Time) error {
	ca, err := authority.Open(m.folder, now)
	if err != nil {
		return err
	}
	addrs, err := m.addresses()
	return errors.Join(err,
		ca.Ensure(m.folder, authority.Member, authority.Subject{
			Name: memberName, Server: true, Addresses: addrs, Names: []string{"localhost"},
		}, now),
		ca.Ensure(m.folder, authority.Root, authority.Subject{Name: rootName}, now),
		ca.Ensure(m.folder, authority.Host, authority.Subject{Name: m.joined.User}, now))
}

// addresses returns those that the member is reached at, sorted.
func (m *Member) addresses() ([]netip.Addr, error) {
	out := []netip.Addr{loopback(netip.IPv4Unspecified()), loopback(netip.IPv6Unspecified())}
	if !m.o.Listen.Addr().IsUnspecified() {
		out = append(out, m.o.Listen.Addr().Unmap().WithZone(""))
	} else {
		own, err := hostAddresses()
		if err != nil {
			return nil, err
		}
		out = append(out, own...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// hostAddresses returns those of this host that others may reach, in the order of its interfaces.
func hostAddresses() (out []netip.Addr, err error) {
	have, err := net.InterfaceAddrs()
	for _, a := range have {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			addr, _ := netip.AddrFromSlice(n.IP) // net.IP has a length that fits
			out = append(out, addr.Unmap())
		}
	}
	return out, err
}

// Files returns what etcd needs for TLS.
func (m *Member) Files() member.Files {
	return member.Files{
		CA: m.folder.CAFile(), Cert: m.folder.CertFile(authority.Member), Key: m.folder.KeyFile(authority.Member),
	}
}

// Secure turns the rights in etcd on, as often as it takes, and returns when they are on or ctx ends. It is to be
// called whenever the member begins to serve, for its data may have been moved away.
func (m *Member) Secure(ctx context.Context) {
	err := repeat(ctx, func() error { return m.secure(ctx) }, func(err error) {
		m.o.Log.Warn("rights of the embedded etcd not set up, retrying", "reason", err)
	})
	if err == nil {
		m.once.Do(func() { close(m.secured) })
	}
}

// repeat calls f until it succeeds or ctx ends. failed is told each new reason.
func repeat(ctx context.Context, f func() error, failed func(error)) error {
	fails := func(err error) bool { return err != nil }
	return retry.Loop{First: retryPause, Last: maxPause, Again: fails, Waiting: failed}.Run(ctx, f)
}

func (m *Member) secure(ctx context.Context) error {
	own := join.Host{
		User: m.joined.User, Name: m.o.Host, Identity: m.o.Identity, Member: true, Service: m.service(),
		Joined: time.Now().UTC().Truncate(time.Second),
	}
	var known []join.Host
	if text, err := m.folder.Read(hostsFile); err == nil {
		if err := json.Unmarshal(text, &known); err != nil {
			m.o.Log.Warn("list of hosts not used", "reason", err)
		}
	}
	if err := m.admin.Secure(ctx, own, known); err != nil {
		return err
	}
	m.remember(ctx)
	return nil
}

// remember keeps the list of hosts beside the authority. A store that begins anew, after the data of the old one were
// lost, lets in the hosts that had joined: their certificates are still valid.
func (m *Member) remember(ctx context.Context) {
	hosts, err := m.admin.Hosts(ctx)
	if err == nil {
		var text []byte
		text, err = json.Marshal(hosts)
		if err == nil {
			err = m.folder.Write(hostsFile, append(text, '\n'))
		}
	}
	if err != nil && ctx.Err() == nil {
		m.o.Log.Warn("list of hosts not saved", "reason", err)
	}
}

// Run renews the certificates, and once Secure has returned lets hosts in, saves snapshots, frees space, and has the
// store follow the members, until ctx ends.
func (m *Member) Run(ctx context.Context, s Store) {
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() {
		for trigger.Pause(ctx, renewPause) == nil {
			if err := m.certify(time.Now()); err != nil {
				m.o.Log.Error("certificates of the store not renewed, retrying", "error", err)
			}
		}
	})
	select {
	case <-ctx.Done():
		return
	case <-m.secured:
	}
	others.Go(func() { m.keepSnapshots(ctx) })
	others.Go(func() { m.keepSpace(ctx) })
	others.Go(func() { m.follow(ctx, s) })
	_ = repeat(ctx, func() error { return m.serve(ctx) }, func(err error) {
		m.o.Log.Error("no host can join the store, retrying", "error", err)
	})
}

// serve lets hosts in until ctx ends or it fails.
func (m *Member) serve(ctx context.Context) error {
	listen := netip.AddrPortFrom(m.o.Listen.Addr(), m.o.Port)
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen.String())
	if err != nil {
		return err
	}
	m.o.Log.Info("hosts can join the store", "address", listen, "hint",
		"flannelctl token create prints the command for them")
	s := join.Service{
		Admin: m.admin, Folder: m.folder, Prefix: m.o.Prefix, Members: m.reached, Changed: m.remember, Log: m.o.Log,
	}
	return s.Run(ctx, serve.Bounded(l, mostConns, mostConnsEach))
}
