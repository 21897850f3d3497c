package subnettest

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"flanneld/subnet"
)

// ErrFault is the error of a call that was made to fail.
var ErrFault = errors.New("fault on demand")

// Fault is what happens to one call.
type Fault struct {
	Before error         // fail without having done anything
	After  error         // do it, and lose the answer
	Delay  time.Duration // before anything happens
}

// Client is one host's way to a Server. It implements subnet.Store.
type Client struct {
	server *Server
	name   string

	mu     sync.Mutex // guards all below
	fault  func(method string) Fault
	counts map[string]int
	cut    chan struct{} // closed while the client is cut off
	isCut  bool
	lag    time.Duration // of the events
	epoch  chan struct{} // the server's at the last list
}

var _ subnet.Store = (*Client)(nil)

// Client returns a new way to the store.
func (s *Server) Client(name string) *Client {
	return &Client{server: s, name: name, counts: map[string]int{}, cut: make(chan struct{})}
}

// Server returns the store that the client leads to.
func (c *Client) Server() *Server { return c.server }

// OnCall has f decide what happens to each call, by the name of its method; nil: nothing special.
func (c *Client) OnCall(f func(method string) Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// Cut takes the client off the store, or back to it. Watches end, other calls fail.
func (c *Client) Cut(off bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if off == c.isCut {
		return
	}
	if c.isCut = off; off {
		close(c.cut)
	} else {
		c.cut = make(chan struct{})
	}
}

// Lag has the client see all changes late.
func (c *Client) Lag(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lag = d
}

// Counts returns how often each method was called.
func (c *Client) Counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// call lets the fault happen around f.
func (c *Client) call(ctx context.Context, method string, f func() error) error {
	c.mu.Lock()
	c.counts[method]++
	fault, cut := Fault{}, c.isCut
	if c.fault != nil {
		fault = c.fault(method)
	}
	c.mu.Unlock()
	if fault.Delay > 0 {
		t := time.NewTimer(fault.Delay)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case cut:
		return ErrFault
	case fault.Before != nil:
		return fault.Before
	}
	err := f()
	if fault.After != nil {
		return fault.After
	}
	return err
}

// List implements subnet.Store.
func (c *Client) List(ctx context.Context) (snap subnet.Snapshot, err error) {
	err = c.call(ctx, "List", func() error {
		var epoch chan struct{}
		snap, epoch = c.server.snapshot()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.epoch = epoch
		return nil
	})
	return snap, err
}

// Config implements subnet.Store.
func (c *Client) Config(ctx context.Context) (at subnet.Position, text []byte, err error) {
	err = c.call(ctx, "Config", func() error {
		snap, _ := c.server.snapshot()
		at, text = snap.Position, snap.Config
		return nil
	})
	return at, text, err
}

// Watch implements subnet.Store. The first one that opens after a List fails if the connection has broken in between.
func (c *Client) Watch(ctx context.Context, after subnet.Position, from int64, f func([]subnet.Event)) error {
	if err := c.call(ctx, "Watch", func() error { return nil }); err != nil {
		return err
	}
	at, epoch, err := c.server.opens(after)
	if err != nil {
		return err
	}
	if from != 0 {
		after.Revision = from - 1
	}
	c.mu.Lock()
	cut, listed := c.cut, c.epoch
	c.epoch = nil
	c.mu.Unlock()
	if listed != nil && listed != epoch {
		return ErrFault
	}
	f([]subnet.Event{{Revision: at}})
	for {
		events, changed, err := c.server.since(after)
		if len(events) > 0 {
			c.late(ctx)
		}
		select {
		case <-epoch:
			return ErrFault
		case <-cut:
			return ErrFault
		default:
		}
		if err != nil {
			c.mu.Lock()
			c.epoch = listed // for the next watch after the same list
			c.mu.Unlock()
			return err
		}
		if len(events) > 0 {
			after.Revision = events[len(events)-1].Revision
			f(events)
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-epoch:
		case <-cut:
		case <-changed:
		}
	}
}

// late waits for as long as the client lags.
func (c *Client) late(ctx context.Context) {
	c.mu.Lock()
	lag := c.lag
	c.mu.Unlock()
	if lag == 0 {
		return
	}
	t := time.NewTimer(lag)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Grant implements subnet.Store.
func (c *Client) Grant(ctx context.Context, ttl time.Duration) (id subnet.LeaseID, err error) {
	err = c.call(ctx, "Grant", func() error {
		id = c.server.grant(ttl)
		return nil
	})
	return id, err
}

// Create implements subnet.Store.
func (c *Client) Create(ctx context.Context, r subnet.Record, id subnet.LeaseID) (e subnet.Entry, err error) {
	err = c.call(ctx, "Create", func() (err error) {
		e, err = c.server.create(c.name, r, id)
		return err
	})
	return e, err
}

// Update implements subnet.Store.
func (c *Client) Update(ctx context.Context, old subnet.Entry, r subnet.Record, id subnet.LeaseID,
	spent ...subnet.Entry) (e subnet.Entry, err error) {
	err = c.call(ctx, "Update", func() (err error) {
		e, err = c.server.update(c.name, old, r, id, spent)
		return err
	})
	return e, err
}

// Delete implements subnet.Store.
func (c *Client) Delete(ctx context.Context, old subnet.Entry, spent ...subnet.Entry) error {
	return c.call(ctx, "Delete", func() error { return c.server.remove(c.name, old, spent) })
}

// KeepAlive implements subnet.Store.
func (c *Client) KeepAlive(ctx context.Context, id subnet.LeaseID) (ttl time.Duration, err error) {
	err = c.call(ctx, "KeepAlive", func() (err error) {
		ttl, err = c.server.keepAlive(id)
		return err
	})
	return ttl, err
}
