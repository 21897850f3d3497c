package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"flanneld/subnet"
	"flanneld/subnet/annotation"
	"flanneld/trigger"
)

// Options are what a Source needs to know of its host.
type Options struct {
	Node   string // name of the own Node object
	Names  Names
	Config subnet.Config
	Text   string // of the configuration
	// Following says how the host follows another configuration.
	Following subnet.Following
	PeerGrace time.Duration
	// Peers says whether other nodes are of interest; else only the own one is watched.
	Peers bool
	// Condition says whether the node's condition NetworkUnavailable is set to False once the network is ready.
	Condition bool
	// Attrs returns what to publish with a subnet. It may be called at any time, by one goroutine.
	Attrs func(netip.Prefix) subnet.Attrs
	// Valid says why a lease of the right network and type cannot be that of a peer; nil: it can.
	Valid func(subnet.Lease) error
	// State is what the last run has left, already found usable; the zero value: nothing.
	State subnet.State
	Log   *slog.Logger
}

// linger is how long packets still go to a node whose object was deleted: that of a node that is made again comes back
// within that time.
const linger = 800 * time.Millisecond

// Source follows the nodes of a cluster and publishes what peers must know of this one. All methods but Run may be
// called by any goroutine.
type Source struct {
	client  *Client
	o       Options
	log     *slog.Logger
	changed trigger.Trigger
	publish trigger.Trigger

	mu       sync.Mutex // guards all below
	table    *subnet.PeerTable
	nodes    map[string]*node // all but the own one, by name
	listed   bool             // a list has come
	own      *node            // nil: not seen, or deleted
	ownAt    int64            // the resourceVersion that the own node was seen or deleted at
	self     []subnet.Lease   // in use by this host, whether or not the API server has confirmed them
	version  int64            // the highest resourceVersion seen
	revision int64            // counts changes, for the table
	ready    bool             // packets flow
	status   subnet.Status
	write    string // why the node's object cannot be written
	notices  string // what was said about the own node
}

// New returns a source that has asked the API server for nothing yet. The subnets of a usable state are in use at once.
func New(c *Client, o Options) *Source {
	s := &Source{
		client: c, o: o, log: o.Log, changed: trigger.New(), publish: trigger.New(),
		nodes: map[string]*node{}, self: o.State.Own.Leases,
		table: subnet.NewPeerTable("", o.Valid),
	}
	s.status.Waiting = fmt.Sprintf("waiting for node %s", o.Node)
	var stale []*subnet.Entry
	for _, e := range o.State.Memory.Records {
		stale = append(stale, &subnet.Entry{Record: e.Record, Key: keyOf(e.Host)})
	}
	s.table.Retain(stale, time.Now().Add(o.PeerGrace))
	s.o.State.Memory.Records = nil // the table has them, as long as they are of use
	return s
}

// keyOf returns the key of a node in the table.
func keyOf(name string) string { return "nodes/" + name }

// Changed receives after every change of what View returns.
func (s *Source) Changed() <-chan struct{} { return s.changed }

// Refresh tells that Options.Attrs may answer differently now.
func (s *Source) Refresh() { s.publish.Set() }

// SetReady tells that packets flow, which the condition of the node says from then on.
func (s *Source) SetReady() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready {
		s.ready = true
		s.publish.Set()
	}
}

// SetConfig takes in the text of the network configuration, which may have changed. One goroutine calls it.
func (s *Source) SetConfig(text []byte) {
	s.mu.Lock()
	now, same := s.o.Config, string(text) == s.o.Text
	s.mu.Unlock()
	c, pending := now, error(nil)
	if !same {
		c, pending = s.o.Following.To(text, now) // it makes backends, which takes time
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case pending != nil:
		if why := pending.Error(); why != s.status.Pending {
			s.log.Warn("network configuration changed, not applied yet", "reason", why)
			s.status.Pending = why
		}
		return
	case !same: // options of backends may hold secrets
		s.log.Info("network configuration changed", "backends", c.Kinds())
	}
	s.o.Config, s.o.Text, s.status.Pending = c, string(text), ""
	s.changed.Set()
}

// View returns the present leases. Nodes that make no sense are named in the log, once each.
func (s *Source) View() subnet.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := subnet.View{Config: s.o.Config, Text: s.o.Text, Self: s.self, Status: s.statusLocked()}
	v.Own = s.recordLocked()
	v.Position = subnet.Position{Revision: s.version}
	v.Peers, v.Status.Skipped, v.Status.Stale = s.table.Peers(s.o.Config, s.self)
	reasons := s.table.Reasons(s.o.Config, s.self)
	for _, key := range slices.Sorted(maps.Keys(reasons)) {
		if reasons[key] != "" {
			s.log.Warn("node skipped", "key", key, "reason", reasons[key])
		}
	}
	return v
}

// recordLocked returns what this node publishes. The identity is that of the Node object.
func (s *Source) recordLocked() subnet.Record {
	r := subnet.Record{Leases: s.self, Host: s.o.Node, Identity: s.o.State.Own.Identity}
	if s.own != nil {
		r.Identity = s.own.uid
	}
	return r
}

// assigned stands for the lease of a store that ends: what a controller has assigned to a node is no reservation.
const assigned subnet.LeaseID = 1

// Inventory returns the records of all nodes, the own one among them, sorted by key, with the times and versions of the
// Node objects.
func (s *Source) Inventory() (subnet.Position, []subnet.Listed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.table.Inventory(nil)
	for i := range out {
		dated(&out[i], s.nodes[strings.TrimPrefix(out[i].Key, keyOf(""))])
	}
	if len(s.self) > 0 {
		own := subnet.Listed{Own: true,
			Entry: subnet.Entry{Record: s.recordLocked(), Key: keyOf(s.o.Node), LeaseID: assigned}}
		dated(&own, s.own)
		out = append(out, own)
	}
	slices.SortFunc(out, func(a, b subnet.Listed) int { return strings.Compare(a.Key, b.Key) })
	return subnet.Position{Revision: s.version}, out
}

// dated replaces what this package has counted by what the API server says of the node; nil: it has none.
func dated(l *subnet.Listed, n *node) {
	l.Created, l.Revision = 0, 0
	if n != nil {
		l.Since, l.Revision = time.Unix(n.created, 0).UTC(), n.version
	}
}

// Position returns the highest version of a node that was seen.
func (s *Source) Position() subnet.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return subnet.Position{Revision: s.version}
}

// Status returns the present state, without Skipped and Stale.
func (s *Source) Status() subnet.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statusLocked()
}

func (s *Source) statusLocked() subnet.Status {
	st := s.status
	var reasons []string
	for _, text := range []string{st.Waiting, s.write, s.conflictLocked()} {
		if text != "" {
			reasons = append(reasons, text)
		}
	}
	st.Waiting = strings.Join(reasons, "; ")
	return st
}

// conflictLocked names a node that publishes an address of this one.
func (s *Source) conflictLocked() string {
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		o := s.nodes[name]
		for _, l := range s.self {
			if o.annotations[s.o.Names.PublicIP[annotation.Family(l.Subnet.Addr().Is4())]] == l.PublicIP.String() {
				return fmt.Sprintf("node %s publishes the address %s of this node, %s: delete its Node object if that host is gone",
					name, l.PublicIP, s.o.Node)
			}
		}
	}
	return ""
}

// Memory returns what is to be remembered over a restart: the records of all other nodes, and the position that they
// stand at.
func (s *Source) Memory() subnet.Memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.table.Memory(nil)
	m.Position, m.Claims, m.Bad = subnet.Position{Revision: s.version}, nil, nil
	return m
}

// Run follows the nodes and publishes until ctx ends; it returns nil then.
func (s *Source) Run(ctx context.Context) error {
	only := ""
	if !s.o.Peers {
		only = s.o.Node
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		s.client.watchNodes(ctx, (*nodeStore)(s), watchOptions{names: s.o.Names, only: only, asked: s.asked})
	})
	wg.Go(func() { s.expire(ctx) })
	s.publishAll(ctx)
	wg.Wait()
	return nil
}

// asked takes in the outcome of a request of the watch.
func (s *Source) asked(verb string, err error) {
	err = explained(s.client, verb, err)
	s.mu.Lock()
	since := s.status.StoreSince
	switch {
	case errors.Is(err, context.Canceled):
	case err == nil:
		s.status.StoreSince, s.status.StoreError = time.Time{}, ""
	default:
		if since.IsZero() {
			s.status.StoreSince = time.Now()
		}
		s.status.StoreError = err.Error()
	}
	now := s.status.StoreSince
	s.mu.Unlock()
	switch {
	case since.IsZero() && !now.IsZero():
		s.log.Warn("API server unreachable, data plane left unchanged", "reason", err)
		s.changed.Set()
	case !since.IsZero() && now.IsZero():
		s.log.Info("API server reachable again", "away", time.Since(since).Round(time.Millisecond))
		s.changed.Set()
	}
}

func explained(c *Client, verb string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return c.explain(verb, "nodes", err)
}

// expirePeriod is how often stale peers are looked at.
const expirePeriod = 200 * time.Millisecond

// expire drops stale peers whose time is up.
func (s *Source) expire(ctx context.Context) {
	t := time.NewTicker(expirePeriod)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			s.mu.Lock()
			lost, deleted := s.table.Prune(now)
			s.mu.Unlock()
			if lost+deleted > 0 {
				s.changed.Set()
			}
		}
	}
}

// nodeStore is the Source as the client library sees it: objects come in here.
type nodeStore Source

// The library asks for the transformer only if the type fits exactly.
var _ cache.TransformingStore = (*nodeStore)(nil)

// Transformer tells the library what to keep of the objects of a list.
func (s *nodeStore) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		if n, ok := o.(*corev1.Node); ok {
			return s.o.Names.nodeOf(n), nil
		}
		return o, nil
	}
}

// Add takes in a node.
func (s *nodeStore) Add(o any) error { return s.Update(o) }

// Update takes in a node. One in which nothing that matters has changed, as by a heartbeat, wakes nobody.
func (s *nodeStore) Update(o any) error {
	n, ok := o.(*corev1.Node)
	if !ok {
		return fmt.Errorf("want a Node, got %T", o)
	}
	(*Source)(s).put(s.o.Names.nodeOf(n))
	return nil
}

// Delete takes a node away.
func (s *nodeStore) Delete(o any) error {
	n, ok := o.(*corev1.Node)
	if !ok {
		return fmt.Errorf("want a Node, got %T", o)
	}
	(*Source)(s).remove(s.o.Names.nodeOf(n))
	return nil
}

// Replace takes in a whole list: of objects, if the API server does not speak protobuf, else of what is kept of them.
func (s *nodeStore) Replace(objects []any, version string) error {
	nodes := make([]*node, 0, len(objects))
	for _, o := range objects {
		switch o := o.(type) {
		case *node:
			nodes = append(nodes, o)
		case *corev1.Node:
			nodes = append(nodes, s.o.Names.nodeOf(o))
		}
	}
	(*Source)(s).replace(nodes)
	return nil
}

// Resync is of no use here.
func (s *nodeStore) Resync() error { return nil }
