package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"flanneld/subnet/etcdv3/authority"
	"flanneld/subnet/etcdv3/join"
	"flanneld/subnet/etcdv3/member"
	"flanneld/trigger"
)

const (
	// watchPause is how long a change of the members goes unnoticed by a member.
	watchPause = 5 * time.Second
	// learnerPause is the same while there are learners, which are about to be promoted.
	learnerPause = time.Second
)

// MayJoin says why this host cannot become a member of the store of an authority; nil: it can, or is one.
func MayJoin(stateDir string, ca [32]byte) error {
	f := Folder(stateDir)
	if f.HasAuthority() {
		if own, err := f.CACertificate(); err != nil || authority.Hash(own) != ca {
			return errors.Join(err, fmt.Errorf("this host is a member of another store: to have it join this one, remove %s "+
				"and %s before", f, DataDir(stateDir)))
		}
		return nil
	}
	if insecureBefore(stateDir) {
		return fmt.Errorf("this host has a store of its own: to have it join this one, remove %s and %s before",
			DataDir(stateDir), filepath.Join(stateDir, insecureMark))
	}
	return nil
}

// view is what is known of the members.
type view struct{ endpoints, services []string }

func (v view) equal(w view) bool {
	return slices.Equal(v.endpoints, w.endpoints) && slices.Equal(v.services, w.services)
}

// Etcd returns how the member of this host runs.
func (m *Member) Etcd() member.Options {
	return member.Options{
		Dir: DataDir(m.o.StateDir), Listen: m.o.Listen, Advertise: m.advertised(), TLS: m.Files(), Name: m.joined.User,
		Prepare: m.prepare, Removed: func() { m.removed.Store(true) }, Restart: m.restart, Log: m.o.Log,
	}
}

// advertised returns the address at which others reach this member.
func (m *Member) advertised() netip.Addr {
	if addr := m.o.Listen.Addr(); !addr.IsUnspecified() {
		return addr
	}
	if addr := m.address(); !addr.IsUnspecified() {
		return addr
	}
	return loopback(m.o.Listen.Addr())
}

func (m *Member) service() string { return netip.AddrPortFrom(m.advertised(), m.o.Port).String() }

// prepare says how etcd is to start: as it was ordered, or added to other members if it has no data or they do not have
// it any more.
func (m *Member) prepare(ctx context.Context) (b member.Bootstrap, err error) {
	if order := m.order.Swap(nil); order != nil {
		select {
		case <-m.restart: // this is it
		default:
		}
		m.removed.Store(false)
		return *order, nil
	}
	dir, removed, k := DataDir(m.o.StateDir), m.removed.Load(), m.known.Load()
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil || !removed && (len(logs) > 0 || !k.several) {
		return b, err
	}
	services := slices.DeleteFunc(slices.Clone(k.services), func(s string) bool { return s == m.service() })
	c := join.Client{Folder: m.folder, Prefix: m.o.Prefix}
	b.Cluster, err = c.AddMember(ctx, services, member.PeerURL(m.advertised(), m.o.Listen))
	if errors.Is(err, join.ErrRemoved) {
		return b, fmt.Errorf("%w: this host was removed from the members of the store: to have it join again, stop the "+
			"daemon, remove %s and %s, and start it with a new token", member.ErrPrepare, dir, m.folder)
	}
	if err == nil && removed {
		err = m.setAside(dir)
	}
	if err != nil {
		return b, fmt.Errorf("%w: %w", member.ErrPrepare, err)
	}
	m.o.Log.Info("this host is a member of the store, as a learner until it is promoted")
	return b, nil
}

// setAside moves the data away that etcd has of a store that is no more.
func (m *Member) setAside(dir string) error {
	to, err := member.SetAside(dir, time.Now())
	if err != nil {
		return err
	}
	m.removed.Store(false)
	m.o.Log.Warn("another member removed this host from the store: joining again as a new member, former data moved",
		"dir", to)
	return nil
}

// follow keeps what this host knows of the members up to date, and promotes learners, until ctx ends.
func (m *Member) follow(ctx context.Context, s Store) {
	last := ""
	for ctx.Err() == nil {
		pause := watchPause
		learners, err := m.look(ctx, s)
		if learners {
			pause = learnerPause
		}
		if err == nil {
			last = ""
		} else if text := err.Error(); text != last && ctx.Err() == nil {
			last = text
			m.o.Log.Warn("reading the list of store members failed, retrying", "reason", text)
		}
		_ = trigger.Pause(ctx, pause)
	}
}

// look takes in what the members are now, and reports whether there are learners.
func (m *Member) look(ctx context.Context, s Store) (learners bool, err error) {
	peers, err := m.admin.Peers(ctx)
	// Those that were known may be away or learners again: this one knows the others once it is promoted.
	if err != nil && m.works(ctx) {
		peers, err = m.admin.Peers(ctx)
	}
	if err != nil {
		return false, err
	}
	own := slices.IndexFunc(peers, func(p join.Peer) bool { return p.User == m.joined.User })
	if own >= 0 {
		if now := member.PeerURL(m.advertised(), m.o.Listen); peers[own].PeerURL != now {
			err = m.admin.Update(ctx, peers[own].ID, now)
		}
	}
	if e := m.learn(peers, s); err == nil {
		err = e
	}
	promoted, e := m.admin.Promote(ctx, m.joined.User, peers)
	for _, p := range promoted {
		m.o.Log.Info("member of the store promoted", "host", p.Host, "user", p.User)
	}
	if err == nil && len(promoted) == 0 {
		err = e
	}
	return len(join.Voters(peers)) < len(peers), err
}

// learn has all of this host use the members that there are now.
func (m *Member) learn(peers []join.Peer, s Store) error {
	now := known{m.viewed(peers, m.o.Listen.Addr()), m.several(peers)}
	if len(now.endpoints) == 0 {
		return nil
	}
	m.admin.SetEndpoints(now.endpoints)
	if before := m.known.Load(); now.equal(before.view) && now.several == before.several {
		return nil
	}
	m.o.Log.Info("members of the store have changed", "endpoints", now.endpoints)
	m.known.Store(&now)
	s.Move(now.endpoints)
	return m.save(now)
}

// several reports whether other members can add this one when it has lost its data: a new learner needs them, and the
// only voter has none.
func (m *Member) several(peers []join.Peer) bool {
	voters := join.Voters(peers)
	alone := len(voters) == 1 && voters[0].User == m.joined.User
	return !alone && (len(voters) > 1 || m.known.Load().several)
}

// viewed returns how the members are reached by a host that has reached an address of this one.
func (m *Member) viewed(peers []join.Peer, at netip.Addr) (v view) {
	endpoints, services := m.members(at)
	for _, p := range peers {
		if p.User == m.joined.User {
			p.URL, p.Service = endpoints[0], services[0]
		}
		if p.URL != "" && !p.Learner {
			v.endpoints = append(v.endpoints, p.URL)
		}
		if p.Service != "" {
			v.services = append(v.services, p.Service)
		}
	}
	slices.Sort(v.endpoints)
	slices.Sort(v.services)
	return v
}

// save keeps for the next start what is known of the members.
func (m *Member) save(k known) error {
	j := m.joined
	j.Endpoints, j.Services, j.Several = k.endpoints, k.services, k.several
	return join.Save(m.folder, j)
}

// known is what a member knows of all members.
type known struct {
	view
	several bool
}

// reached returns how the members are reached by a host that has reached an address of this one.
func (m *Member) reached(ctx context.Context, at netip.Addr) (endpoints, services []string, err error) {
	peers, err := m.admin.Peers(ctx)
	v := m.viewed(peers, at)
	return v.endpoints, v.services, err
}

// Members returns the members of the store with their health, and the user of this one.
func (m *Member) Members(ctx context.Context) (peers []join.Peer, own string, err error) {
	peers, err = m.admin.Health(ctx)
	if err != nil && !m.works(ctx) {
		err = errNoMajority
	}
	return peers, m.joined.User, err
}

// RemoveMember removes a member and shuts its host out. It is named by its host, user or ID.
func (m *Member) RemoveMember(ctx context.Context, name string) (join.Peer, error) {
	peers, err := m.admin.Peers(ctx)
	if err != nil {
		return join.Peer{}, err
	}
	if h, ok := m.leftover(ctx, peers, name); ok {
		return join.Peer{User: h.User, Host: h.Name}, m.admin.RemoveHost(ctx, h)
	}
	found := slices.DeleteFunc(peers, func(p join.Peer) bool {
		return name == "" || p.Host != name && p.User != name && fmt.Sprintf("%x", p.ID) != name
	})
	switch {
	case len(found) == 0:
		return join.Peer{}, fmt.Errorf("the store has no member %q", name)
	case len(found) > 1:
		return join.Peer{}, fmt.Errorf("%d members are named %q: give the user of the one to remove", len(found), name)
	case found[0].User == m.joined.User:
		return join.Peer{}, errors.New("this is the member of this host: run the command on another member")
	}
	if err := m.admin.RemovePeer(ctx, found[0].ID); err != nil {
		return join.Peer{}, err
	}
	m.remember(ctx)
	m.o.Log.Info("member removed from the store", "host", found[0].Host, "user", found[0].User)
	return found[0], nil
}

// leftover returns the host of a member that was removed without its host, for the removal was interrupted.
func (m *Member) leftover(ctx context.Context, peers []join.Peer, name string) (join.Host, bool) {
	hosts, err := m.admin.Hosts(ctx)
	if err != nil {
		return join.Host{}, false
	}
	for _, h := range hosts {
		is := func(p join.Peer) bool { return p.User == h.User }
		started := h.Member && h.Service != "" // once
		if started && (h.User == name || h.Name == name) && !slices.ContainsFunc(peers, is) {
			return h, true
		}
	}
	return join.Host{}, false
}
