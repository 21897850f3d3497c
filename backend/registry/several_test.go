package registry

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/backend"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

// tables is a backend without its datapath.
type tables struct{ backend.Planner }

func (p tables) Routes() backend.Routes {
	if r, ok := p.Planner.(backend.Router); ok {
		return r.Routes()
	}
	return backend.PerPeer
}

// reaching is one that does not reach everybody.
type reaching struct{ tables }

func (p reaching) Reach() (func(netip.Addr) bool, any) { return p.Planner.(backend.Reacher).Reach() }

func tablesOf(p backend.Planner) backend.Planner {
	if _, ok := p.(backend.Reacher); ok {
		return reaching{tables{p}}
	}
	return tables{p}
}

// mover is a host of a network that moves from one backend to another.
type mover struct {
	t        *testing.T
	kernel   *iptest.Kernel
	applier  *backend.Applier
	from, to backend.Planner
	self     []subnet.Lease
	changes  int
	routes   map[netip.Prefix]ip.Route // as the operations have made them
	broken   string                    // a peer had no route
	peers    subnet.Peers
	faulty   func() bool // the next operation of the kernel fails; nil: none does
}

const underlayMTU = 1500

func newMover(t *testing.T, from, to string, number int, nets string) *mover {
	t.Helper()
	m := &mover{t: t, routes: map[netip.Prefix]ip.Route{}}
	m.kernel = iptest.NewKernel(iptest.Faults{Op: m.note})
	addrs := []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", number)),
		netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", number))}
	m.kernel.Underlay("eth0", addrs[0].String()+"/24", addrs[1].String()+"/64")
	h := ip.Host{
		Kernel: m.kernel, Log: slog.New(slog.DiscardHandler), Identity: fmt.Sprint("host ", number), Blackhole: true,
		Underlay: func() ip.Underlay {
			return ip.Underlay{Link: "eth0", MTU: underlayMTU, Addrs: addrs, PublicAddrs: addrs}
		},
	}
	c, err := subnet.ParseConfig([]byte(fmt.Sprintf(`{%s,"Backend":%s,"Next":%s}`, nets, from, to)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m.from = tablesOf(create(t, c.Of(c.Main()), h, dir))
	m.to = tablesOf(create(t, c.Of(c.Next), h, dir))
	m.applier = backend.NewApplier(m.from, h, c.Networks())
	m.applier.Changed = func() { m.changes++ }
	for _, pool := range c.Pools {
		m.self = append(m.self, subnet.Lease{Subnet: pool.At(uint64(number))})
	}
	return m
}

// note follows the routes, and looks after each operation whether one leads to each peer.
func (m *mover) note(op ip.Op) error {
	if err := m.fails(); err != nil {
		return err
	}
	r, ok := op.Object.(ip.Route)
	if !ok || r.Metric != 0 {
		return nil
	}
	if op.Delete {
		delete(m.routes, r.Dst)
	} else {
		m.routes[r.Dst] = r
	}
	for l := range m.peers.All() {
		if m.route(l.Subnet) == (ip.Route{}) && m.broken == "" {
			m.broken = fmt.Sprintf("after %q no route leads to %s", op, l.Subnet)
		}
	}
	return nil
}

// route returns the most specific route to a subnet.
func (m *mover) route(p netip.Prefix) (best ip.Route) {
	for dst, r := range m.routes {
		if dst.Contains(p.Addr()) && dst.Bits() <= p.Bits() && (best == (ip.Route{}) || dst.Bits() > best.Dst.Bits()) {
			best = r
		}
	}
	return best
}

// leases returns what the host tells others now.
func (m *mover) leases() (out []subnet.Lease) {
	for _, l := range m.self {
		out = append(out, subnet.Lease{Subnet: l.Subnet, Attrs: m.applier.Attrs(l.Subnet)})
	}
	return out
}

func (m *mover) set(peers ...*mover) {
	m.t.Helper()
	var entries []*subnet.Entry
	for _, p := range peers {
		r := subnet.Record{Leases: p.leases()}
		entries = append(entries, &subnet.Entry{Record: r, Key: r.Key(), LeaseID: 1})
	}
	next := subnet.PeersOfEntries(entries...)
	for l := range next.All() {
		if err := m.applier.Valid(l); err != nil {
			m.t.Errorf("%s is no peer: %v", l, err)
		}
	}
	if err := m.applier.Set(m.self, next); err != nil {
		m.t.Fatal(err)
	}
	m.peers = next
	for p, why := range m.applier.Skipped() {
		m.t.Errorf("%s is skipped: %s", p, why)
	}
	if err := m.applier.Unsettled(); err != nil || len(m.applier.Problems()) > 0 {
		m.t.Errorf("lacks %v, problems %q", err, m.applier.Problems())
	}
	if m.broken != "" {
		m.t.Fatal(m.broken)
	}
}

// narrow wants the routes of the backend with the larger MTU to have that of the other one.
func (m *mover) narrow() {
	m.t.Helper()
	wide, other := m.from, m.to
	if wide.MTU() < other.MTU() {
		wide, other = other, wide
	}
	for dst, r := range m.routes {
		if slices.Contains(wide.Owns().Links, r.Link) && wide.MTU() > other.MTU() && int(r.MTU) != other.MTU() {
			m.t.Errorf("during the move the route to %s has the MTU %d, want %d", dst, r.MTU, other.MTU())
		}
	}
}

// link returns the device that the host sends by to a peer.
func (m *mover) link(p *mover) string { return m.route(p.self[0].Subnet).Link }

var settings = []string{
	`{"Type":"vxlan"}`, `{"Type":"vxlan","VNI":2,"DirectRouting":true}`, `{"Type":"host-gw"}`, `{"Type":"udp"}`,
	`{"Type":"wireguard"}`, `{"Type":"ipip"}`,
}

const (
	only4 = `"Network":"10.5.0.0/16"`
	dual  = `"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"`
)

// TestAHostMovesFromEachBackendToEachOther goes through a whole move and back, with peers that are ahead or behind.
func TestAHostMovesFromEachBackendToEachOther(t *testing.T) {
	for _, from := range settings {
		for _, to := range settings {
			nets := dual
			if slices.Contains([]string{from, to}, `{"Type":"ipip"}`) {
				nets = only4
			}
			if from != to {
				t.Run(from+" to "+to, func(t *testing.T) { moves(t, from, to, nets) })
			}
		}
	}
}

func moves(t *testing.T, from, to, nets string) {
	here, ahead, behind := newMover(t, from, to, 1, nets), newMover(t, from, to, 2, nets), newMover(t, from, to, 3, nets)
	all := []*mover{here, ahead, behind}
	settle := func() {
		for range 2 {
			for _, m := range all {
				m.set(slices.DeleteFunc(slices.Clone(all), func(o *mover) bool { return o == m })...)
			}
		}
	}
	settle()
	old, oldAhead, before := here.link(ahead), ahead.link(behind), here.kernel.State().String()
	if here.changes > 0 || here.leases()[0].Offers != "" {
		t.Fatalf("before the move: %d changes, %+v", here.changes, here.leases()[0])
	}
	use := func(main, other backend.Planner, m *mover) {
		if other == nil {
			m.applier.Use(main)
		} else {
			m.applier.Use(main, other)
		}
	}
	next := func(m *mover) { use(m.from, m.to, m) }
	for _, m := range []*mover{ahead, here} {
		next(m)
		settle()
	}
	l := here.leases()[0]
	if here.changes != 1 || l.Offers == "" || l.BackendType != here.from.Attrs(l.Subnet).BackendType {
		t.Errorf("it does not offer the next backend: %d changes, %+v", here.changes, l)
	}
	if got := here.link(ahead); got != old {
		t.Errorf("before the switch it sends by %s, not %s", got, old)
	}
	use(ahead.to, ahead.from, ahead) // it is ahead by two steps, the third host behind
	settle()
	if got := ahead.link(behind); got != oldAhead {
		t.Errorf("to a peer without the next backend it sends by %s, not %s", got, oldAhead)
	}
	ahead.narrow()
	next(behind)
	use(here.to, here.from, here)
	settle()
	use(behind.to, behind.from, behind)
	settle()
	if got := here.leases()[0]; got.BackendType != here.to.Attrs(got.Subnet).BackendType || got.Offers == "" {
		t.Errorf("after the switch it says %+v", got)
	}
	for _, m := range all {
		use(m.to, nil, m)
		settle()
	}
	fresh := newMover(t, to, from, 1, nets)
	fresh.set(ahead, behind)
	if diff := cmp.Diff(here.kernel.State().String(), fresh.kernel.State().String()); diff != "" {
		t.Errorf("after the move the kernel is not that of a host that begins with it (-got +want):\n%s", diff)
	}
	for _, m := range all { // the way back, given up half way the first time
		use(m.to, m.from, m)
		settle()
	}
	for _, m := range all {
		use(m.from, m.to, m)
		settle()
	}
	for _, m := range all {
		use(m.from, nil, m)
		settle()
	}
	if diff := cmp.Diff(here.kernel.State().String(), before); diff != "" {
		t.Errorf("after the way back (-got +want):\n%s", diff)
	}
}
