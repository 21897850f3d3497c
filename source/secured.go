package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"flanneld/api"
	"flanneld/options"
	"flanneld/subnet/etcdv3/authority"
	"flanneld/subnet/etcdv3/embedded"
	"flanneld/subnet/etcdv3/join"
)

// Check says what is wrong with the values whose form other packages know.
func Check(o options.Options) error {
	err := checkAnnotations(o)
	if token, _ := o.Joins(); token != "" {
		if _, e := join.ParseToken(token); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", options.Named("join"), e))
		}
	}
	return err
}

// wish returns what the options say of the security of the embedded store.
func wish(o options.Options) embedded.Wish {
	switch {
	case o.EtcdEmbeddedSecure:
		return embedded.Secure
	case o.EtcdEmbeddedInsecure:
		return embedded.Insecure
	}
	return embedded.Unsaid
}

// Resolve completes the options by how a secured store is reached: by what stands in the state folder.
func Resolve(o options.Options) options.Options {
	secured := o.Join != ""
	if o.EtcdEmbedded {
		secured, _ = embedded.Secured(o.StateDir, wish(o)) // Open returns the error
	}
	if !secured || o.KubeSubnetMgr {
		return o
	}
	f := embedded.Folder(o.StateDir)
	if j, ok := join.Load(f); ok {
		o.EtcdEndpoints = j.Endpoints
	} else {
		o.EtcdEndpoints = slices.Clone(o.EtcdEndpoints)
		for i, e := range o.EtcdEndpoints { // of a store that is about to be made
			o.EtcdEndpoints[i] = strings.Replace(e, "http://", "https://", 1)
		}
	}
	o.EtcdCAFile, o.EtcdCertfile, o.EtcdKeyfile = f.CAFile(), f.CertFile(authority.Host), f.KeyFile(authority.Host)
	return o
}

// prepare makes what a secured store needs on this host, or joins one.
func (e *Etcd) prepare(ctx context.Context) error {
	host, _ := os.Hostname() // an empty name says as much
	switch {
	case e.options.Join != "":
		if err := e.join(ctx, host); err != nil || !e.options.EtcdEmbedded || ctx.Err() != nil {
			return err
		}
	case !e.options.EtcdEmbedded:
		return nil
	}
	secured, err := embedded.Secured(e.options.StateDir, wish(e.options))
	if err != nil {
		return err
	}
	if !secured {
		e.log.Warn("the embedded etcd has neither TLS nor users: whoever reaches it can decide where packets go",
			"address", e.options.EtcdEmbeddedListen, "hint", "docs/embedded-etcd.md says how to secure it")
		if err := embedded.MarkInsecure(e.options.StateDir); err != nil {
			e.log.Warn("not saved that the embedded etcd is insecure", "reason", err)
		}
		return nil
	}
	m, err := embedded.NewMember(embedded.Options{
		StateDir: e.options.StateDir, Prefix: e.options.EtcdPrefix, Listen: e.options.EtcdEmbeddedListen,
		Port: e.options.JoinPort, Host: host, Identity: e.identity, Log: e.log,
	})
	if err != nil {
		return err
	}
	e.member.Store(m)
	return nil
}

// join returns once this host has joined a store, or ctx ends.
func (e *Etcd) join(ctx context.Context, host string) error {
	text, _ := e.options.Joins()
	token, err := join.ParseToken(text)
	if err != nil {
		return err
	}
	e.joiner = &embedded.Joiner{
		Client: join.Client{
			Folder: embedded.Folder(e.options.StateDir), Prefix: e.options.EtcdPrefix, Host: host, Identity: e.identity,
			Member: e.options.EtcdEmbedded,
		},
		Token: token, Services: e.options.JoinServices(), Log: e.log,
	}
	if e.options.EtcdEmbedded {
		if err := embedded.MayJoin(e.options.StateDir, token.CA); err != nil {
			return err
		}
	}
	e.report.Waiting("joining the store")
	e.joiner.Join(ctx, func(reason error) { e.report.Waiting("waiting to join the store: %v", reason) })
	return nil
}

// errNoMember is the answer to what only members can do.
var errNoMember = errors.New("this host is no member of a secured store: run the command on the host that was " +
	"started with -etcd-embedded")

// CreateToken makes a token with which other hosts can join.
func (e *Etcd) CreateToken(ctx context.Context, r api.TokenRequest) (api.Token, error) {
	m := e.member.Load()
	if m == nil {
		return api.Token{}, errNoMember
	}
	c, err := m.CreateToken(ctx, join.Terms{Valid: r.Valid, Member: r.Member})
	if err != nil {
		return api.Token{}, err
	}
	return api.Token{
		ID: c.ID, State: "valid", Created: time.Now().UTC(), Expires: c.Expires,
		Text: c.Reveal(), Services: c.Services, Member: r.Member,
	}, nil
}

// Tokens returns the tokens, without their secrets.
func (e *Etcd) Tokens(ctx context.Context) ([]api.Token, error) {
	m := e.member.Load()
	if m == nil {
		return nil, errNoMember
	}
	grants, err := m.Tokens(ctx)
	out := make([]api.Token, 0, len(grants))
	for _, g := range grants {
		out = append(out, api.Token{ID: g.ID, State: g.State(time.Now()), Created: g.Created, Expires: g.Expires,
			Member: g.Member})
	}
	return out, err
}

// RevokeToken has nobody join with a token any more.
func (e *Etcd) RevokeToken(ctx context.Context, r api.Named) (api.Named, error) {
	m := e.member.Load()
	if m == nil {
		return r, errNoMember
	}
	return r, m.RevokeToken(ctx, r.Name)
}

// JoinedHosts returns the hosts that have joined the store.
func (e *Etcd) JoinedHosts(ctx context.Context) ([]api.JoinedHost, error) {
	m := e.member.Load()
	if m == nil {
		return nil, errNoMember
	}
	hosts, own, err := m.Hosts(ctx)
	out := make([]api.JoinedHost, 0, len(hosts))
	for _, h := range hosts {
		out = append(out, joinedHost(h, own))
	}
	return out, err
}

// RemoveHost shuts a host out of the store.
func (e *Etcd) RemoveHost(ctx context.Context, r api.Named) (api.JoinedHost, error) {
	m := e.member.Load()
	if m == nil {
		return api.JoinedHost{}, errNoMember
	}
	h, err := m.RemoveHost(ctx, r.Name)
	return joinedHost(h, ""), err
}

// Members returns the members of the store.
func (e *Etcd) Members(ctx context.Context) ([]api.Member, error) {
	m := e.member.Load()
	if m == nil {
		return nil, errNoMember
	}
	peers, own, err := m.Members(ctx)
	out := make([]api.Member, 0, len(peers))
	for _, p := range peers {
		out = append(out, memberOf(p, own))
	}
	return out, err
}

// RemoveMember removes a member of the store, and shuts its host out.
func (e *Etcd) RemoveMember(ctx context.Context, r api.Named) (api.Member, error) {
	m := e.member.Load()
	if m == nil {
		return api.Member{}, errNoMember
	}
	p, err := m.RemoveMember(ctx, r.Name)
	return memberOf(p, ""), err
}

// Recover has the store begin anew with the data of this member, after a majority of its members was lost.
func (e *Etcd) Recover(ctx context.Context) (api.Restored, error) {
	m := e.member.Load()
	if m == nil {
		return api.Restored{}, errNoMember
	}
	former, err := m.Recover(ctx)
	return restored("", former), err
}

// Restore has the store begin anew with a snapshot, which is named by its path.
func (e *Etcd) Restore(ctx context.Context, r api.Named) (api.Restored, error) {
	m := e.member.Load()
	if m == nil {
		return api.Restored{}, errNoMember
	}
	from, former, err := m.Restore(ctx, r.Name)
	return restored(from, former), err
}

func restored(from string, former []join.Host) api.Restored {
	r := api.Restored{From: from, Former: []api.JoinedHost{}}
	for _, h := range former {
		r.Former = append(r.Former, joinedHost(h, ""))
	}
	return r
}

func memberOf(p join.Peer, own string) api.Member {
	return api.Member{
		ID: fmt.Sprintf("%x", p.ID), User: p.User, Host: p.Host, Address: p.URL, Peer: p.PeerURL, Learner: p.Learner,
		Leader: p.Leader, Healthy: p.Healthy, Own: own != "" && p.User == own,
	}
}

func joinedHost(h join.Host, own string) api.JoinedHost {
	return api.JoinedHost{
		User: h.User, Host: h.Name, Address: h.Address, Joined: h.Joined, Token: h.Token, Member: h.Member,
		Own: own != "" && h.User == own,
	}
}
