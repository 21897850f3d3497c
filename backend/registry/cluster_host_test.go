package registry

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"flanneld/backend"
	"flanneld/backend/check"
	wgoptions "flanneld/backend/wireguard/options"
	"flanneld/devicelock"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

// sim is one host of a world.
type sim struct {
	w      *world
	number int
	addr   netip.Addr
	own    netip.Prefix
	kernel *simKernel
	dir    string

	several *Several
	config  subnet.Config
	follows subnet.Following
	read    int                    // of the store's log
	seen    []*subnet.Entry        // records as it has read them, by host
	valid   map[*subnet.Entry]bool // of this configuration
	again   bool                   // the last pass has left something to do
	failed  bool                   // with an error
	cut     bool                   // from the store
	gone    bool                   // its lease has expired, and others go on without it
	ready   bool                   // it has made a pass without an error
	faulty  bool                   // operations of its kernel fail
	life    subnet.LeaseID         // of its record
	had     []bool                 // it had a path to these

	sessions []bool // of WireGuard, with these
	keyed    []bool // the device has these peers
	epoch    int    // of sessions
}

func newSim(w *world, i int) *sim {
	n := i + 1
	h := &sim{
		w: w, number: i, addr: netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}), life: 1,
		own:  netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24),
		dir:  filepath.Join(w.dir, fmt.Sprint(n)),
		seen: make([]*subnet.Entry, cap(w.now)), had: make([]bool, cap(w.now)), sessions: make([]bool, cap(w.now)),
		keyed: make([]bool, cap(w.now)),
	}
	h.kernel = &simKernel{h: h, routes: map[netip.Prefix]ip.Route{}, links: map[string]ip.Link{},
		neighs: map[ip.Neigh]ip.MAC{}, fdb: map[ip.FDB]netip.Addr{}}
	h.kernel.Kernel = iptest.NewKernel(iptest.Faults{Op: h.kernel.note})
	h.kernel.Underlay("eth0", h.addr.String()+"/16")
	return h
}

// start starts the daemon: it reads all, and begins with the present configuration.
func (h *sim) start() {
	w, leftovers := h.w, ip.Scope{}
	macs := map[string]ip.MAC{}
	if h.several != nil {
		leftovers, macs = h.several.Scope(), h.several.MACs()
		h.several.Close()
	}
	h.take(len(w.log))
	c, err := check.Network(w.text)
	if err != nil {
		w.t.Fatal(err)
	}
	e := Env{
		Config: c, Files: noFiles{}, Keys: wgoptions.KeyFiles{filepath.Join(h.dir, "key")},
		Host: ip.Host{
			Kernel: h.kernel, Log: slog.New(slog.DiscardHandler), Identity: h.dir, MACs: macs, Leftovers: leftovers,
			Underlay: func() ip.Underlay {
				return ip.Underlay{Link: "eth0", MTU: underlayMTU, Addrs: []netip.Addr{h.addr}, PublicAddrs: []netip.Addr{h.addr}}
			},
		},
	}
	main, err := h.create(w.t.Context(), e)
	if err != nil {
		w.t.Fatal(err)
	}
	e.Host.Leftovers = ip.Scope{}
	h.several = &Several{
		Applier: backend.NewApplier(main, ip.Host{Kernel: h.kernel, Log: e.Host.Log, Leftovers: leftovers,
			Underlay: e.Host.Underlay}, c.Networks()),
		config: c.Of(c.Main()), create: h.create, folder: h.dir,
		network: Network{Env: e, Holder: "me", Drop: func(...string) {}},
		made:    []made{{c.Main(), main, devicelock.New(h.dir, "me"), nil}},
	}
	h.follows = subnet.Following{
		Read: check.Network, Adjusts: check.Adjusts,
		Follow: func(c subnet.Config) error { return h.several.Follow(w.t.Context(), c) },
	}
	if err := h.several.Follow(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
	h.config, h.valid, h.again = c, map[*subnet.Entry]bool{}, true
}

// create makes a backend without its datapath; sessions of WireGuard are those of the world.
func (h *sim) create(ctx context.Context, e Env) (backend.Planner, error) {
	p, err := New(ctx, e)
	if err != nil {
		return nil, err
	}
	if _, ok := p.(backend.Establisher); ok {
		return keyedTables{tables{p}, h}, nil
	}
	if _, ok := p.(backend.Datapath); ok {
		return tablesOf(p), nil
	}
	return p, nil
}

// keyedTables is WireGuard without packets.
type keyedTables struct {
	tables
	h *sim
}

func (k keyedTables) Established() (func(subnet.Lease) bool, any) {
	return func(l subnet.Lease) bool { return k.h.sessions[k.h.w.numberOf(l.Subnet)] }, k.h.epoch
}

func (k keyedTables) Open(_ []subnet.Lease, peers subnet.Peers) error {
	clear(k.h.keyed)
	for l := range peers.All() {
		k.h.keyed[k.h.w.numberOf(l.Subnet)] = true
	}
	return nil
}

func (k keyedTables) Carry([]subnet.Lease, subnet.Peers) error { return nil }
func (k keyedTables) Run(context.Context) error                { return nil }

func (w *world) numberOf(p netip.Prefix) int {
	b := p.Addr().As4()
	return int(b[1])<<8 + int(b[2]) - 1
}

// pending reports whether the host has something to do and can.
func (h *sim) pending() bool { return h.again || !h.cut && h.read < len(h.w.log) }

// take reads the log up to a position, and returns the last configuration in it.
func (h *sim) take(to int) (text []byte) {
	for ; h.read < to; h.read++ {
		if c := h.w.log[h.read]; c.host < 0 {
			text = c.text
		} else {
			h.seen[c.host], h.had[c.host] = c.entry, h.had[c.host] && c.entry != nil
		}
	}
	return text
}

// pass reads some of what is new, follows it, and publishes what has come of it. One that is cut off goes on with what
// it has read: sessions come and go, and its kernel works again.
func (h *sim) pass() {
	if h.cut {
		h.set()
		return
	}
	to := len(h.w.log)
	if n := to - h.read; n > 1 && h.w.rnd.IntN(2) == 0 {
		to = h.read + 1 + h.w.rnd.IntN(n)
	}
	if text := h.take(to); text != nil && (bytes.Equal(text, h.w.text) || h.w.broken == followsFormer) {
		if !h.follow(text) {
			h.restart() // as the message says
			return
		}
		if h.w.broken == earlyRecord {
			h.promise()
			return
		}
	}
	h.set()
	h.publish()
}

// follow follows a configuration; false: only a restart can.
func (h *sim) follow(text []byte) bool {
	c, err := h.follows.To(text, h.config)
	if err != nil {
		return false
	}
	h.config, h.valid, h.again = c, map[*subnet.Entry]bool{}, true
	if h.w.broken == forgetsPrevious && c.Previous.Type != "" {
		c.Previous = subnet.Setting{}
		return h.several.Follow(h.w.t.Context(), c) == nil
	}
	return true
}

// promise publishes what the host will have after its next pass.
func (h *sim) promise() {
	var all []subnet.Offer
	for _, s := range h.config.Settings() {
		a := h.several.findLocked(s).Attrs(h.own)
		all = append(all, subnet.Offer{Type: a.BackendType, Data: a.BackendData})
	}
	h.record(subnet.Attrs{PublicIP: h.addr, BackendType: all[0].Type, BackendData: all[0].Data,
		Offers: subnet.OffersText(all[1:])})
}

// set makes a pass with the records that the host has read, and checks the paths that have changed.
func (h *sim) set() {
	var entries []*subnet.Entry
	for i, e := range h.seen {
		if e == nil || i == h.number {
			continue
		}
		ok, known := h.valid[e]
		if !known {
			ok = h.several.Valid(e.Leases[0]) == nil
			h.valid[e] = ok
		}
		if ok {
			entries = append(entries, e)
		}
	}
	h.several.Again(h.w.t.Context()) // as the daemon does before each pass
	k := h.kernel
	k.to, k.links0, k.any = map[netip.Prefix]bool{}, maps.Clone(k.links), false
	err := h.several.Set([]subnet.Lease{{Subnet: h.own}}, subnet.PeersOfEntries(entries...))
	h.failed = err != nil
	h.again = h.failed || h.several.Unsettled() != nil
	if !h.again {
		h.several.Settle()
		h.gone = h.gone && h.cut
		h.ready = true
	}
	h.shake()
	all := k.any || !maps.Equal(k.links0, k.links)
	for _, o := range h.w.hosts {
		if all || k.to[o.own] {
			h.w.check(h, o)
		}
		if !maps.Equal(k.links0, k.links) {
			h.w.check(o, h)
		}
	}
}

// shake exchanges keys with peers that have this host as one, too, sooner or later.
func (h *sim) shake() {
	for i, mine := range h.keyed {
		o := h.w.hosts[i]
		if both := mine && o.keyed[h.number]; both == h.sessions[i] || both && h.w.rnd.IntN(2) == 0 {
			h.again = h.again || both && !h.sessions[i]
			continue
		}
		h.sessions[i] = !h.sessions[i]
		o.sessions[h.number] = h.sessions[i]
		h.epoch, o.epoch = h.epoch+1, o.epoch+1
		h.again, o.again = true, true
	}
}

// publish writes the record if it has changed.
func (h *sim) publish() { h.record(h.several.Attrs(h.own)) }

func (h *sim) record(a subnet.Attrs) {
	if e := h.w.now[h.number]; e != nil && e.Leases[0].Attrs == a {
		return
	}
	r := subnet.Record{Leases: []subnet.Lease{{Subnet: h.own, Attrs: a}}}
	e := &subnet.Entry{Record: r, Key: r.Key(), LeaseID: h.life}
	h.w.now[h.number] = e
	h.w.log = append(h.w.log, change{h.number, e, nil})
}

// expire takes the record of a host away that cannot renew it: the operator goes on without it.
func (h *sim) expire() {
	h.gone = true
	h.life++
	clear(h.had)
	h.w.now[h.number] = nil
	h.w.log = append(h.w.log, change{h.number, nil, nil})
}

func (h *sim) restart() {
	h.start()
	h.set()
	h.publish()
}

// reconnect lets a host read and write again. One that others have gone on without reads all before it writes.
func (h *sim) reconnect() {
	h.cut = false
	if !h.gone {
		return
	}
	if text := h.take(len(h.w.log)); text != nil && !h.follow(text) {
		h.restart()
		return
	}
	h.set()
	h.publish()
}

// simKernel is a kernel whose tables the world looks at.
type simKernel struct {
	*iptest.Kernel
	h      *sim
	routes map[netip.Prefix]ip.Route
	links  map[string]ip.Link
	neighs map[ip.Neigh]ip.MAC // by Link and IP
	fdb    map[ip.FDB]netip.Addr

	to     map[netip.Prefix]bool // paths that this pass has changed
	any    bool                  // it may have changed all
	links0 map[string]ip.Link    // before the pass
}

// RouteTo implements ip.Kernel: all hosts are on one link.
func (k *simKernel) RouteTo(netip.Addr) (ip.Hop, error) { return ip.Hop{Link: "eth0"}, nil }

func (k *simKernel) note(op ip.Op) error {
	// One that refused an entry would break a path by itself: devices are what it refuses.
	if k.h.faulty && !k.h.w.sound && op.Object.Kind() == ip.KindLink && !op.Delete && k.h.w.rnd.IntN(3) == 0 {
		return syscall.ENOMEM
	}
	switch o := op.Object.(type) {
	case ip.Route:
		if o.Metric == 0 {
			put(k.routes, o.Dst, o, op.Delete)
		}
		k.to[o.Dst], k.any = true, k.any || o.Dst.Bits() < 24
	case ip.Link:
		put(k.links, o.Name, o, op.Delete)
		if op.Delete {
			maps.DeleteFunc(k.routes, func(_ netip.Prefix, r ip.Route) bool { return r.Link == o.Name })
		}
	case ip.Neigh:
		put(k.neighs, ip.Neigh{Link: o.Link, IP: o.IP}, o.MAC, op.Delete)
		k.to[netip.PrefixFrom(o.IP, 24)] = true
	case ip.FDB:
		put(k.fdb, ip.FDB{Link: o.Link, MAC: o.MAC}, o.Dst, op.Delete)
	}
	return nil
}

func put[K comparable, V any](m map[K]V, key K, v V, del bool) {
	if del {
		delete(m, key)
	} else {
		m[key] = v
	}
}

// path returns the device by which a host sends to another; empty: it has none.
func (h *sim) path(to *sim) string {
	if r, ok := h.kernel.routes[to.own]; ok {
		return r.Link
	}
	return h.kernel.routes[netip.MustParsePrefix("10.0.0.0/8")].Link
}

// receives says why a host does not receive what another one sends by a device; empty: it does.
func (h *sim) receives(from *sim, link string) string {
	there, ok := h.kernel.links[link]
	r := from.kernel.routes[h.own]
	switch {
	case link == "eth0" && r.Via == h.addr:
		return ""
	case !ok || !there.Up:
		return "it has no such device, but " + strings.Join(slices.Sorted(maps.Keys(h.kernel.links)), " and ")
	case strings.HasPrefix(link, "flannel-wg") && (!from.keyed[h.number] || !h.keyed[from.number]):
		return "there are no keys" // with keys on both sides a packet waits for the session
	case there.Type != "vxlan":
		return ""
	}
	mac := from.kernel.neighs[ip.Neigh{Link: link, IP: r.Via}]
	if mac != there.MAC || from.kernel.fdb[ip.FDB{Link: link, MAC: mac}] != h.addr {
		return fmt.Sprintf("the device has the MAC %s, the sender has %s", there.MAC, mac)
	}
	return ""
}
