package iptest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"flanneld/ip"
)

// Kernel is an ip.Kernel in memory. It keeps all objects of a host, its own and others', and does what the real one
// does when a device or an address goes: what stood on it goes as well, without a word. All methods may be called
// concurrently.
type Kernel struct {
	faults Faults

	mu       sync.Mutex // guards all below
	objects  map[ip.Object]ip.Object
	indexes  map[string]int // of links, by name
	last     int            // index of a link
	watchers map[*watcher]bool
	counts   Counts
}

// Faults makes a Kernel fail. The functions may be nil; they are called one at a time, and must not call the Kernel.
type Faults struct {
	// Dump returns an error for a dump that shall fail, such as one that was interrupted too often.
	Dump func() error
	// Op returns an error for an operation that the kernel shall refuse.
	Op func(ip.Op) error
	// Batch returns after how many operations the outcome of an Apply becomes unknown, and the error.
	Batch func(n int) (done int, err error)
	// Copies returns how often an event is told to each watcher: 0 for one that is lost, of which the watcher then
	// learns nothing.
	Copies func(ip.Event) int
}

// Counts is what was asked of a Kernel.
type Counts struct{ Dumps, Applies, Ops int }

// Administrator is who has done what Put and Delete do.
const Administrator = "administrator (pid 1)"

// NewKernel returns a host with nothing but a loopback.
func NewKernel(f Faults) *Kernel {
	k := &Kernel{faults: f, objects: map[ip.Object]ip.Object{}, indexes: map[string]int{}, watchers: map[*watcher]bool{}}
	k.set(ip.Link{Name: "lo", Type: "loopback", MTU: 65536, Up: true},
		ip.Addr{Link: "lo", Prefix: netip.MustParsePrefix("127.0.0.1/8")})
	return k
}

// Underlay adds an interface that is up, with its addresses.
func (k *Kernel) Underlay(name string, prefixes ...string) {
	k.set(ip.Link{Name: name, Type: "veth", MAC: ip.MAC{2, 0, 0, 0, 0, 0xee}, MTU: 1500, Up: true})
	for _, p := range prefixes {
		k.set(ip.Addr{Link: name, Prefix: netip.MustParsePrefix(p)})
	}
}

// set puts what nothing can refuse.
func (k *Kernel) set(objects ...ip.Object) {
	if err := k.Put(objects...); err != nil {
		panic(err)
	}
}

// Put changes the host from outside, as an administrator would. The error joins what is refused.
func (k *Kernel) Put(objects ...ip.Object) error { return k.change(false, objects) }

// Delete changes the host from outside.
func (k *Kernel) Delete(objects ...ip.Object) error { return k.change(true, objects) }

func (k *Kernel) change(del bool, objects []ip.Object) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, o := range objects {
		op := ip.Op{Delete: del, Object: o}
		if err := k.applyLocked(op, Administrator); err != nil {
			errs = append(errs, &ip.OpError{Op: op, Err: err})
		}
	}
	return errors.Join(errs...)
}

// State returns all objects of the host.
func (k *Kernel) State() ip.State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return stateOf(maps.Values(k.objects))
}

// Foreign returns all objects that are outside a scope.
func (k *Kernel) Foreign(s ip.Scope) ip.State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return stateOf(func(yield func(ip.Object) bool) {
		for _, o := range k.objects {
			if !in(s, o) && !yield(o) {
				return
			}
		}
	})
}

// Counts returns what was asked so far.
func (k *Kernel) Counts() Counts {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.counts
}

// Dump implements ip.Kernel.
func (k *Kernel) Dump(s ip.Scope) (ip.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counts.Dumps++
	if k.faults.Dump != nil {
		if err := k.faults.Dump(); err != nil {
			return ip.State{}, err
		}
	}
	return stateOf(func(yield func(ip.Object) bool) {
		for _, o := range k.objects {
			if in(s, o) && !yield(o) {
				return
			}
		}
	}), nil
}

// Apply implements ip.Kernel.
func (k *Kernel) Apply(ops []ip.Op) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counts.Applies++
	k.counts.Ops += len(ops)
	done, unknown := len(ops), error(nil)
	if k.faults.Batch != nil {
		done, unknown = k.faults.Batch(len(ops))
	}
	var failed ip.OpErrors
	broken := map[string]bool{}
	for i, op := range ops {
		if unknown != nil && i >= done {
			return unknown
		}
		if name := op.Object.Device(); op.Object.Kind() != ip.KindLink && broken[name] && k.linkLocked(name) == nil {
			continue
		}
		var err error
		if k.faults.Op != nil {
			err = k.faults.Op(op)
		}
		if err == nil {
			err = k.applyLocked(op, "")
		}
		if err != nil {
			failed = append(failed, &ip.OpError{Op: op, Err: err})
			broken[op.Object.Device()] = broken[op.Object.Device()] || op.Object.Kind() == ip.KindLink
		}
	}
	switch {
	case len(failed) == 0:
		return unknown
	case unknown == nil:
		return failed
	}
	return errors.Join(failed, unknown)
}

// Watch implements ip.Kernel.
func (k *Kernel) Watch(ctx context.Context, f func(ip.Event)) error {
	w := &watcher{wake: make(chan struct{}, 1), queue: []ip.Event{{}}}
	w.poke()
	k.mu.Lock()
	k.watchers[w] = true
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.watchers, w)
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		k.mu.Lock()
		events := w.queue
		w.queue = nil
		k.mu.Unlock()
		for _, ev := range events {
			f(ev)
		}
	}
}

// Lose tells all watchers that events were lost.
func (k *Kernel) Lose() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for w := range k.watchers {
		w.queue = append(w.queue, ip.Event{})
		w.poke()
	}
}

// Interfaces implements ip.Kernel.
func (k *Kernel) Interfaces() ([]ip.Interface, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := stateOf(maps.Values(k.objects))
	out := make([]ip.Interface, 0, len(s.Links))
	for _, l := range s.Links {
		i := ip.Interface{
			Name: l.Name, Index: k.indexes[l.Name], MTU: l.MTU, MAC: l.MAC, Up: l.Up, Running: l.Up,
			Loopback: l.Type == "loopback",
		}
		for _, a := range s.Addrs {
			if a.Link == l.Name {
				i.Addrs = append(i.Addrs, a.Prefix)
			}
		}
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b ip.Interface) int { return a.Index - b.Index })
	return out, nil
}

// RouteTo implements ip.Kernel: the longest prefix wins, among equals an interface's own network.
func (k *Kernel) RouteTo(dst netip.Addr) (ip.Hop, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	hop, bits := ip.Hop{}, -1
	for _, o := range k.objects {
		switch o := o.(type) {
		case ip.Addr:
			if l := k.linkLocked(o.Link); l.Up && o.Prefix.Contains(dst) && o.Prefix.Bits() >= bits {
				hop, bits = ip.Hop{Link: o.Link, Src: o.Prefix.Addr()}, o.Prefix.Bits()
			}
		case ip.Route:
			if o.Dst.Contains(dst) && o.Dst.Bits() > bits {
				hop, bits = ip.Hop{Link: o.Link, Via: o.Via}, o.Dst.Bits()
			}
		}
	}
	if hop.Link == "" {
		return ip.Hop{}, fmt.Errorf("route to %s: %w", dst, syscall.ENETUNREACH)
	}
	return hop, nil
}

// DefaultRoute implements ip.Kernel.
func (k *Kernel) DefaultRoute(is4 bool) (ip.Hop, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	best, found := ip.Route{}, false
	for _, o := range k.objects {
		if r, ok := o.(ip.Route); ok && r.Dst.Bits() == 0 && r.Dst.Addr().Is4() == is4 && r.Link != "" &&
			(!found || r.Metric < best.Metric) {
			best, found = r, true
		}
	}
	return ip.Hop{Link: best.Link, Via: best.Via}, found, nil
}
