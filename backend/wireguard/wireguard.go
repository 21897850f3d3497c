package wireguard

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/backend"
	"flanneld/backend/skip"
	"flanneld/backend/wireguard/options"
	"flanneld/ip"
	"flanneld/subnet"
	"flanneld/trigger"
)

// Type is the name of the backend in the network configuration and in records.
const Type = options.Type

// lookPeriod is how often the devices are read: the kernel does not tell who changes their peers.
const lookPeriod = 5 * time.Second

// greetLater is how long a host waits for the greeting of a peer that is to come first: longer than a packet travels.
const greetLater = 300 * time.Millisecond

// Backend is a backend.Planner whose datapath are WireGuard devices.
type Backend struct {
	host     ip.Host
	owns     ip.Scope
	fold     *backend.Fold
	config   atomic.Pointer[config]
	networks []netip.Prefix
	devices  []string
	files    options.KeyFiles
	public   atomic.Pointer[wgtypes.Key] // as it is published
	rotating sync.Mutex                  // held while the key is replaced
	suspect  atomic.Bool                 // a device may have been changed or made anew
	greets   trigger.Trigger             // peers are to be greeted later
	engine   engine                      // mu guards the calls of it, but for rerouted

	mu      sync.Mutex // guards all below
	private wgtypes.Key
	closed  bool
	wires   map[string]*wire
	peers   subnet.Peers // of the last plan
	from    ip.Underlay  // of the last plan
	plan    plan
	healed  uint64 // settings of devices and peers that others had changed
	sent    map[netip.Addr]int64

	established established
}

// New reads the options and the private key, which it makes if there is none. It opens no device before Open.
func New(c subnet.Config, h ip.Host, keys options.KeyFiles, k Keeper) (*Backend, error) {
	o, err := options.Parse(c.Backend)
	if err != nil {
		return nil, err
	}
	private, err := loadKey(keys, h.Log)
	if err != nil {
		return nil, err
	}
	e, err := newEngine(h, k)
	if err != nil {
		return nil, err
	}
	b := newBackend(c, config{o}, h, private, e)
	b.files = keys
	return b, nil
}

func newBackend(c subnet.Config, o config, h ip.Host, private wgtypes.Key, e engine) *Backend {
	own := ip.Scope{Links: o.devices(c.Networks()), Networks: c.Networks()}
	b := &Backend{
		host: h, owns: own, fold: backend.NewFold(h), networks: c.Networks(), devices: own.Links,
		private: private, engine: e, wires: map[string]*wire{}, sent: map[netip.Addr]int64{},
		greets: trigger.New(),
	}
	public := private.PublicKey()
	b.public.Store(&public)
	b.config.Store(&o)
	return b
}

func (b *Backend) options() config { return *b.config.Load() }

// Adjust implements backend.Adjuster.
func (b *Backend) Adjust(c subnet.Config) error {
	o, err := options.Parse(c.Backend)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.config.Store(&config{o})
	b.plan.devices = nil // it is computed anew
	return nil
}

// Attrs implements backend.Planner.
func (b *Backend) Attrs(prefix netip.Prefix) subnet.Attrs {
	d := data{*b.public.Load(), b.options().port(b.options().device(prefix))}
	return subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type, BackendData: d.String()}
}

// MTU implements backend.Planner.
func (b *Backend) MTU() int { return b.options().mtu(b.host.Underlay()) }

// Valid implements backend.Planner.
func (b *Backend) Valid(l subnet.Lease) error {
	if err := skip.Outside(b.networks, l); err != nil {
		return err
	}
	_, err := parseData(l.BackendData)
	return err
}

// Owns implements backend.Planner.
func (b *Backend) Owns() ip.Scope { return b.owns }

// Routes implements backend.Router.
func (b *Backend) Routes() backend.Routes { return backend.PerNetwork }

// Plan implements backend.Planner. The peers are settings of the devices.
func (b *Backend) Plan(self []subnet.Lease, _ subnet.Peers) (ip.Snapshot, error) {
	h := host{networks: b.networks, underlay: b.host.Underlay()} // the key is no object of the kernel's tables
	b.fold.Start(self, nil, b.options().objects(b.engine.kind(), h, self)...)
	return b.fold.Snapshot(), nil
}

func (b *Backend) hostLocked() host { return host{b.private, b.networks, b.host.Underlay()} }

// Open implements backend.Datapath.
func (b *Backend) Open(_ []subnet.Lease, peers subnet.Peers) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errors.New("the backend is closed")
	}
	h := b.hostLocked()
	b.followLocked(h, peers)
	return b.openLocked(h)
}

// Carry implements backend.Datapath.
func (b *Backend) Carry([]subnet.Lease, subnet.Peers) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.meetLocked()
	return b.syncLocked(b.suspect.Swap(false))
}

// Skipped implements backend.Skipper.
func (b *Backend) Skipped() (peers map[netip.Prefix]string, problems []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.plan.skipped, nil
}

// openLocked makes all devices be open.
func (b *Backend) openLocked(h host) error {
	var errs []error
	for _, name := range b.devices {
		t, err := b.engine.open(name, b.options().mtu(h.underlay))
		if err != nil {
			errs = append(errs, err)
			delete(b.wires, name)
			continue
		}
		if w := b.wires[name]; w == nil || w.tunnel != t {
			b.wires[name] = newWire(name, t)
		}
	}
	return errors.Join(errs...)
}

// followLocked computes the plan, if what it depends on has changed.
func (b *Backend) followLocked(h host, peers subnet.Peers) {
	if b.plan.devices != nil && peers.Same(b.peers) && slices.Equal(h.underlay.Addrs, b.from.Addrs) &&
		h.underlay.Link == b.from.Link {
		return
	}
	b.plan, b.peers, b.from = b.options().desired(h, peers), peers, h.underlay
}

// syncLocked sets all devices as planned.
func (b *Backend) syncLocked(look bool) error {
	var errs []error
	for _, name := range b.devices {
		w := b.wires[name]
		if w == nil {
			continue
		}
		drift, err := w.sync(b.plan.devices[name], look, time.Now())
		if len(drift) > 0 {
			b.healed += uint64(len(drift))
			b.host.Log.Warn("drift found", "kind", "wireguard", "object", name, "found", drift[0], "count", len(drift))
		}
		errs = append(errs, err)
		if len(w.late) > 0 {
			b.greets.Set()
		}
	}
	return errors.Join(errs...)
}

// Observe implements backend.Observer. Where a device of ours is changed, its settings are read again with the next
// pass.
func (b *Backend) Observe(ev ip.Event) bool {
	switch o := ev.Object.(type) {
	case ip.Addr:
		if !o.Prefix.Addr().IsLinkLocalUnicast() { // each pod brings one
			b.engine.rerouted()
		}
	case nil, ip.Route:
		b.engine.rerouted()
	}
	if l, ok := ev.Object.(ip.Link); ev.Object == nil || ok && slices.Contains(b.devices, l.Name) {
		b.suspect.Store(true)
	}
	return false
}

// Run implements backend.Datapath: it looks whether others have changed the devices.
func (b *Backend) Run(ctx context.Context) error {
	t := time.NewTicker(lookPeriod)
	defer t.Stop()
	late := time.NewTimer(greetLater)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			b.close()
			return nil
		case <-t.C:
			b.look()
		case <-b.greets:
			late.Reset(greetLater)
		case <-late.C:
			b.greetLate()
		}
	}
}

// greetLate greets the peers that others were to greet first.
func (b *Backend) greetLate() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, w := range b.wires {
		if !b.closed && len(w.late) > 0 {
			w.greetLate(b.plan.devices[name])
		}
	}
}

func (b *Backend) look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.plan.devices == nil {
		return
	}
	if err := b.syncLocked(true); err != nil {
		b.host.Log.Debug("read devices failed", "error", err) // the next pass says it, or the next look heals it
	}
}

func (b *Backend) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.engine.close()
}

// Counters returns what has been counted since the start, by name.
func (b *Backend) Counters() map[string]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return map[string]uint64{"repaired: device settings": b.healed}
}

// Used returns the hosts that packets were sent to since it was called last.
func (b *Backend) Used() map[netip.Addr]bool {
	sessions := b.Sessions()
	b.mu.Lock()
	defer b.mu.Unlock()
	out, sent := map[netip.Addr]bool{}, map[netip.Addr]int64{}
	for l := range b.peers.All() {
		sent[l.PublicIP] += sessions[l.Subnet].Sent
	}
	for a, n := range sent {
		out[a] = n > b.sent[a]
	}
	b.sent = sent
	return out
}

// newEngine chooses the devices: the kernel's if it has WireGuard, else those of this process.
func newEngine(h ip.Host, k Keeper) (engine, error) {
	has, err := ip.HasWireGuard()
	if has {
		h.Log.Info("using WireGuard of the kernel")
		return newKernelEngine()
	}
	reason := "the kernel has no WireGuard"
	if err != nil {
		reason = err.Error()
	}
	h.Log.Info("running WireGuard in this process: it needs more processor time than the kernel", "reason", reason)
	return newProcessEngine(h.Log, k), nil
}
