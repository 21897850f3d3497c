package udp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// Keeper keeps open files from one run of the daemon to the next, so that packets wait in them meanwhile instead of
// being lost.
type Keeper interface {
	// Take returns the descriptors that the run before has kept under a name, in their order; they are the caller's then.
	// There may be none.
	Take(name string) []int
	// Keep replaces what is kept under a name. The descriptors stay the caller's.
	Keep(name string, fds []int)
}

// Names of what is kept.
const keptDevice = "udp-device"

var keptSockets = [families]string{"udp-socket4", "udp-socket6"}

// spec is what the datapath must have open.
type spec struct {
	locals  [families]netip.Addr // own address for each family of the network
	port    uint16
	offload bool
}

// datapath keeps the device and the sockets open and the workers going.
//
//	ensure: something is missing ──▶ session (the new whole) ──▶ Run: old workers end, what they alone used
//	                                                             is closed, new workers start
type datapath struct {
	name     string // of the device
	log      *slog.Logger
	keeper   Keeper
	workers  int
	table    atomic.Pointer[table]
	errors   *rate.Limiter
	counters []counters // by worker
	sessions chan *session

	mu      sync.Mutex // guards all below
	spec    spec
	device  *device
	sockets [families]*sockets
	ended   bool // nothing is opened any more: nobody would close it, or read from it
}

// maxWorkers bounds the workers: each needs memory for its packets, about 2 MiB.
const maxWorkers = 8

func newDatapath(name string, log *slog.Logger, k Keeper) *datapath {
	n := min(runtime.GOMAXPROCS(0), maxWorkers)
	d := &datapath{
		name: name, log: log, keeper: k, workers: n, counters: make([]counters, n), sessions: make(chan *session, 1),
		errors: rate.NewLimiter(errorsPerSecond, errorsBurst),
	}
	d.table.Store(&table{})
	return d
}

// ensure makes device and sockets be open as they should be. It is cheap if they are.
func (d *datapath) ensure(s spec) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return nil
	}
	var old []interface{ close() }
	changed := false
	if d.device == nil || d.spec.offload != s.offload || !d.device.attached() {
		fresh, err := openDevice(d.name, d.workers, s.offload, d.keeper.Take(keptDevice))
		if err != nil {
			return err
		}
		d.keeper.Keep(keptDevice, fresh.queues)
		if d.device != nil {
			old = append(old, d.device)
		}
		d.device, changed = fresh, true
	}
	var errs []error
	for f, local := range s.locals {
		want := netip.AddrPortFrom(local, s.port)
		if have := d.sockets[f]; have != nil && (have.local != want || d.spec.offload != s.offload) {
			old, changed, d.sockets[f] = append(old, have), true, nil
		}
		if d.sockets[f] != nil || !local.IsValid() {
			continue
		}
		fresh, err := openSockets(want, d.workers, s.offload, d.keeper.Take(keptSockets[f]))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		d.keeper.Keep(keptSockets[f], fresh.fds)
		d.sockets[f], changed = fresh, true
	}
	d.spec = s
	if changed {
		d.replaceLocked(old)
	}
	return errors.Join(errs...)
}

// replaceLocked hands the new whole to Run.
func (d *datapath) replaceLocked(old []interface{ close() }) {
	next, err := newSession(d)
	if err != nil {
		d.log.Error("datapath not started", "error", err)
		return
	}
	select {
	case skipped := <-d.sessions:
		old = append(old, skipped.old...)
		skipped.stop()
	default:
	}
	next.old = old
	d.sessions <- next
	d.log.Info("datapath opened", "device", d.device.name, "workers", d.workers, "offloads", d.offloadsLocked())
}

// offloadsLocked names what of the kernel's offloads is in use.
func (d *datapath) offloadsLocked() []string {
	names := []string{}
	add := func(on bool, name string) {
		if on {
			names = append(names, name)
		}
	}
	add(d.device.sums(), "checksum")
	add(d.device.tcp(), "TCP segments")
	add(d.device.udp(), "UDP segments")
	for _, s := range d.sockets {
		if s != nil {
			add(s.segments, fmt.Sprintf("send merged (%s)", s.local.Addr()))
			add(s.merged, fmt.Sprintf("receive merged (%s)", s.local.Addr()))
		}
	}
	return names
}

// run runs the workers of one session after the other until ctx ends, and closes all then.
func (d *datapath) run(ctx context.Context) {
	var current *session
	for {
		select {
		case <-ctx.Done():
			if current != nil {
				current.stop()
			}
			d.close()
			return
		case next := <-d.sessions:
			if current != nil {
				current.stop()
			}
			for _, c := range next.old {
				c.close()
			}
			current = next
			current.start(d.log)
		}
	}
}

func (d *datapath) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	select {
	case s := <-d.sessions:
		for _, c := range s.old {
			c.close()
		}
		s.stop()
	default:
	}
	if d.device != nil {
		d.device.close()
	}
	for _, s := range d.sockets {
		if s != nil {
			s.close()
		}
	}
	d.device, d.sockets = nil, [families]*sockets{}
}

// totals returns the counters of all workers by name.
func (d *datapath) totals() map[string]uint64 {
	out := make(map[string]uint64, counterCount)
	for c := passed + 1; c < counterCount; c++ {
		for i := range d.counters {
			out[counterNames[c]] += d.counters[i][c].Load()
		}
	}
	return out
}
