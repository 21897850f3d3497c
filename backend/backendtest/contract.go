// Package backendtest holds the contract that every backend passes: what the Loop relies on, whatever a backend does
// for its peers.
package backendtest

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/backend"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

// Make returns a backend for a network on a host. dir is a folder of the host's own.
type Make func(t *testing.T, c subnet.Config, h ip.Host, dir string) backend.Planner

// mtu is that of the underlay.
const mtu = 1500

// walkSteps is how often the peers of the random walk change.
const walkSteps = 50

// Run checks a backend with a network configuration.
func Run(t *testing.T, config string, make Make) {
	c, err := subnet.ParseConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	r := rig{c, make}
	t.Run("a lease of this backend is valid to its peers", r.leasesAreValid)
	t.Run("Plan changes nothing, and owns all that it wants", r.planIsPure)
	t.Run("a plan depends on the leases alone, not on those before", r.planFollows)
	t.Run("the kernel gets what is planned, once, and loses it with an empty plan", r.planIsApplied)
	t.Run("a route of others in the network stays", r.foreignStays)
}

type rig struct {
	config subnet.Config
	make   Make
}

// host is one of the network, with a kernel of its own.
type host struct {
	backend.Planner
	kernel *iptest.Kernel
	self   []subnet.Lease
}

// host returns host number i, which has the subnets of that number.
func (r rig) host(t *testing.T, i int) host {
	t.Helper()
	k := iptest.NewKernel(iptest.Faults{})
	addrs := []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1)),
		netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1))}
	k.Underlay("eth0", addrs[0].String()+"/24", addrs[1].String()+"/64")
	h := ip.Host{
		Kernel: k, Log: slog.New(slog.DiscardHandler), Identity: fmt.Sprintf("host %d", i), Blackhole: true,
		Underlay: func() ip.Underlay { return ip.Underlay{Link: "eth0", MTU: mtu, Addrs: addrs, PublicAddrs: addrs} },
	}
	out := host{r.make(t, r.config, h, t.TempDir()), k, nil}
	for _, pool := range r.config.Pools {
		p := pool.At(uint64(i))
		out.self = append(out.self, subnet.Lease{Subnet: p, Attrs: out.Attrs(p)})
	}
	return out
}

func (r rig) leasesAreValid(t *testing.T) {
	here, there := r.host(t, 1), r.host(t, 2)
	for _, l := range there.self {
		if err := here.Valid(l); err != nil {
			t.Errorf("%s: %v", l, err)
		}
		if again := there.Attrs(l.Subnet); again != l.Attrs {
			t.Errorf("Attrs %+v, and then %+v", l.Attrs, again)
		}
		if l.BackendType == "" || !l.PublicIP.IsValid() {
			t.Errorf("a lease says too little: %+v", l)
		}
	}
	if got := here.MTU(); got <= 0 || got > mtu {
		t.Errorf("MTU %d on an underlay with %d", got, mtu)
	}
}

// peers returns the leases of some hosts.
func (r rig) peers(t *testing.T, numbers ...int) subnet.Peers {
	t.Helper()
	var all []subnet.Lease
	for _, i := range numbers {
		all = append(all, r.host(t, i).self...)
	}
	return subnet.PeersOf(all...)
}

func (h host) plan(t *testing.T, peers subnet.Peers) ip.Snapshot {
	t.Helper()
	s, err := h.Plan(h.self, peers)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// objects returns what is in a plan.
func objects(s ip.Snapshot) (out []ip.Object) {
	for _, op := range ip.Diff(ip.Snapshot{}, s) {
		out = append(out, op.Object)
	}
	return out
}

func (r rig) planIsPure(t *testing.T) {
	h := r.host(t, 1)
	before := h.kernel.State().String()
	want := h.plan(t, r.peers(t, 2, 3))
	if diff := cmp.Diff(h.kernel.State().String(), before); diff != "" {
		t.Errorf("Plan changes the kernel (-got +before):\n%s", diff)
	}
	owns := map[string]bool{"": true}
	for _, name := range h.Owns().Links {
		owns[name] = true
	}
	for _, o := range objects(want) {
		if route, ok := o.(ip.Route); ok && !h.Owns().Owns(route) {
			t.Errorf("wants %s %s, which it does not own", o.Kind(), o)
		} else if !ok && !owns[o.Device()] {
			t.Errorf("wants %s %s on a device that it does not own", o.Kind(), o)
		}
	}
}

func (r rig) planFollows(t *testing.T) {
	const hosts = 8
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	all := make([][]subnet.Lease, hosts)
	for i := range all {
		all[i] = r.host(t, i+2).self
	}
	long := r.host(t, 1)
	for step := range walkSteps {
		var some []subnet.Lease
		for _, leases := range all {
			if rnd.IntN(2) == 0 {
				some = append(some, leases...)
			}
		}
		peers := subnet.PeersOf(some...)
		got := long.plan(t, peers)
		if step%10 != 0 {
			continue
		}
		if ops := ip.Diff(got, r.host(t, 1).plan(t, peers)); len(ops) > 0 {
			t.Fatalf("seed %d, step %d: from the plan that follows to a new one: %v", seed, step, ops)
		}
	}
	first, second := long.plan(t, subnet.PeersOf()), long.plan(t, subnet.PeersOf())
	if ops := ip.Diff(first, second); len(ops) > 0 {
		t.Errorf("two plans for the same leases differ: %v", ops)
	}
}

func (r rig) planIsApplied(t *testing.T) {
	h := r.host(t, 1)
	before := h.kernel.State().String()
	reconciler := ip.NewReconciler(h.kernel, slog.New(slog.DiscardHandler))
	want := h.plan(t, r.peers(t, 2, 3, 4))
	for range 2 {
		if _, err := reconciler.Reconcile(h.Owns(), want); err != nil {
			t.Fatal(err)
		}
		got, err := h.kernel.Dump(h.Owns())
		if err != nil {
			t.Fatal(err)
		}
		if ops := ip.Diff(got.Snapshot(), want); len(ops) > 0 {
			t.Errorf("from what is in the kernel to what is planned: %v", ops)
		}
	}
	if n := h.kernel.Counts().Applies; n > 1 {
		t.Errorf("%d batches for one plan", n)
	}
	if _, err := reconciler.Reconcile(h.Owns(), ip.Snapshot{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h.kernel.State().String(), before); diff != "" {
		t.Errorf("left in the kernel (-got +want):\n%s", diff)
	}
}

func (r rig) foreignStays(t *testing.T) {
	h := r.host(t, 1)
	const static = 4 // RTPROT_STATIC
	foreign := ip.Route{Dst: r.config.Pools[0].At(200), Via: netip.MustParseAddr("192.0.2.99"), Link: "eth0",
		Protocol: static}
	if err := h.kernel.Put(foreign); err != nil {
		t.Fatal(err)
	}
	a := backend.NewApplier(planOnly{h.Planner}, ip.Host{Kernel: h.kernel, Log: slog.New(slog.DiscardHandler)},
		r.config.Networks())
	for _, peers := range []subnet.Peers{r.peers(t, 2, 3), r.peers(t, 3)} {
		if err := a.Set(h.self, peers); err != nil {
			t.Fatal(err)
		}
	}
	for _, route := range h.kernel.State().Routes {
		if route == foreign {
			return
		}
	}
	t.Errorf("%s is gone", foreign)
}

// planOnly is a backend without its datapath.
type planOnly struct{ backend.Planner }
