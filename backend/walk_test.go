package backend_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"flanneld/backend"
	"flanneld/backend/hostgw"
	"flanneld/backend/vxlan"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

// walkSteps is how far the random walk goes for each backend.
const walkSteps = 1000

// TestRandomWalk changes peers, tampers with the kernel, makes it fail, moves the underlay and restarts the daemon in
// random order. Whenever all has settled, the kernel must hold what is wanted, and the objects of others must be as
// others left them.
func TestRandomWalk(t *testing.T) {
	seed := rand.Uint64()
	if text := os.Getenv("WALK_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	for _, tt := range []struct{ name, config string }{
		{"vxlan", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`},
		{"vxlan with direct routing", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`},
		{"host-gw", `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Logf("seed %d (WALK_SEED=%[1]d repeats it)", seed)
			synctest.Test(t, func(t *testing.T) {
				w := newWalk(t, rand.New(rand.NewPCG(seed, 1)), tt.config)
				for step := range walkSteps {
					name := w.step()
					if w.rnd.IntN(10) == 0 {
						time.Sleep(time.Duration(w.rnd.IntN(3000)) * time.Millisecond)
					}
					if step%10 == 9 {
						w.settle()
					}
					if t.Failed() {
						t.Fatalf("after step %d, %s", step, name)
					}
				}
				w.stop()
			})
		})
	}
}

// walk is one host whose daemon runs.
type walk struct {
	t      *testing.T
	rnd    *rand.Rand
	kernel *iptest.Kernel
	shadow *iptest.Kernel // what only others have done
	config subnet.Config
	source *source
	host   ip.Host
	scope  ip.Scope
	loop   *backend.Loop
	stop   func()

	mu       sync.Mutex // guards all below
	underlay ip.Underlay
	trouble  bool // the kernel fails
	deaf     bool // events are lost
	dice     *rand.Rand
}

func newWalk(t *testing.T, rnd *rand.Rand, config string) *walk {
	w := &walk{t: t, rnd: rnd, dice: rand.New(rand.NewPCG(rnd.Uint64(), 2)),
		source: &source{changed: make(chan struct{}, 1)}}
	w.kernel, w.shadow = iptest.NewKernel(w.faults()), iptest.NewKernel(iptest.Faults{})
	c, err := subnet.ParseConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	w.config = c
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	w.underlay = ip.Underlay{Link: "eth0", MTU: 1500, Addrs: addrs, PublicAddrs: addrs}
	w.both(false, w.eth0(), ip.Addr{Link: "eth0", Prefix: netip.MustParsePrefix("192.0.2.1/24")})
	w.host = ip.Host{
		Kernel: w.kernel, Log: slog.New(slog.DiscardHandler), Identity: "me", Blackhole: true,
		MACs: map[string]ip.MAC{"flannel.1": {2, 0, 0, 0, 0, 1}},
		Underlay: func() ip.Underlay {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.underlay
		},
	}
	w.source.view = subnet.View{Config: c, Self: []subnet.Lease{w.lease(0)}}
	w.start()
	return w
}

// faults are those of a kernel that fails one time in three as long as there is trouble, and loses or doubles events.
func (w *walk) faults() iptest.Faults {
	fails := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.trouble && w.dice.IntN(3) == 0
	}
	return iptest.Faults{
		Dump: func() error {
			if fails() {
				return errors.New("interrupted")
			}
			return nil
		},
		Op: func(ip.Op) error {
			if fails() {
				return syscall.ENOMEM
			}
			return nil
		},
		Batch: func(n int) (int, error) {
			if fails() {
				return w.dice.IntN(n + 1), syscall.ENOBUFS
			}
			return n, nil
		},
		Copies: func(ip.Event) int {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.deaf {
				return w.dice.IntN(3)
			}
			return 1
		},
	}
}

// start starts the daemon, as after a crash: it knows nothing but what its state file says.
func (w *walk) start() {
	var p backend.Planner
	var err error
	if w.config.BackendType == hostgw.Type {
		p, err = hostgw.New(w.config, w.host)
	} else {
		p, err = vxlan.New(w.config, w.host)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.scope = p.Owns()
	w.loop = backend.NewLoop(w.source, backend.NewApplier(p, w.host, w.config.Networks()))
	w.loop.Resync = time.Minute
	ctx, cancel := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	loop := w.loop
	all.Go(func() { _ = loop.Run(ctx) })
	all.Go(func() {
		_ = w.kernel.Watch(ctx, func(ev ip.Event) {
			if loop.Observe(ev) {
				loop.Poke()
			}
		})
	})
	w.stop = func() {
		cancel()
		all.Wait()
	}
}

// both lets others do something, and remembers it.
func (w *walk) both(del bool, objects ...ip.Object) {
	w.t.Helper()
	for _, k := range []*iptest.Kernel{w.kernel, w.shadow} {
		change := k.Put
		if del {
			change = k.Delete
		}
		if err := change(objects...); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *walk) eth0() ip.Link {
	w.mu.Lock()
	defer w.mu.Unlock()
	return ip.Link{Name: "eth0", Type: "veth", MAC: ip.MAC{2, 0xee}, MTU: w.underlay.MTU, Up: true}
}

// lease is that of peer number i: on the link, or behind a router.
func (w *walk) lease(i int) subnet.Lease {
	public := fmt.Sprintf("192.0.2.%d", i+1)
	if i%3 == 2 && w.config.BackendType == vxlan.Type {
		public = fmt.Sprintf("198.51.100.%d", i+1)
	}
	l := subnet.Lease{Subnet: netip.MustParsePrefix(fmt.Sprintf("10.5.%d.0/24", i+10))}
	l.Attrs = subnet.Attrs{PublicIP: netip.MustParseAddr(public), BackendType: w.config.BackendType}
	if w.config.BackendType == vxlan.Type {
		l.BackendData = fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:00:01:%02x"}`, i)
	}
	return l
}

// step does one random thing and returns its name.
func (w *walk) step() string {
	actions := []struct {
		name string
		do   func()
	}{
		{"peers change", w.changePeers}, {"peers change", w.changePeers},
		{"tamper", w.tamper}, {"tamper", w.tamper}, {"tamper", w.tamper}, {"tamper", w.tamper},
		{"others at work", w.others},
		{"trouble", func() { w.set(&w.trouble, w.rnd.IntN(2) == 0) }},
		{"events lost and doubled", func() { w.set(&w.deaf, w.rnd.IntN(2) == 0) }},
		{"overrun", w.kernel.Lose},
		{"restart", w.restart},
		{"underlay", w.moveUnderlay},
	}
	a := actions[w.rnd.IntN(len(actions))]
	a.do()
	return a.name
}

func (w *walk) set(what *bool, to bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*what = to
}

func (w *walk) restart() {
	w.stop()
	w.set(&w.trouble, false) // else New may fail, and the daemon end
	w.start()
}

func (w *walk) changePeers() {
	v := w.source.view
	var peers []subnet.Lease
	for i := 1; i <= 12; i++ {
		if w.rnd.IntN(2) == 0 {
			l := w.lease(i)
			if w.rnd.IntN(8) == 0 {
				l.PublicIP = l.PublicIP.Next()
			}
			peers = append(peers, l)
		}
	}
	v.Peers = subnet.PeersOf(peers...)
	w.source.mu.Lock()
	w.source.view = v
	w.source.mu.Unlock()
	select {
	case w.source.changed <- struct{}{}:
	default:
	}
}

// tamper changes or deletes one object of the daemon, or adds one in its scope.
func (w *walk) tamper() {
	s := w.kernel.State()
	var ours []ip.Object
	for _, l := range s.Links {
		if slices.Contains(w.scope.Links, l.Name) {
			changed := l
			switch w.rnd.IntN(4) {
			case 0:
				changed.Up = false
			case 1:
				changed.MTU = 1280
			case 2:
				changed.MAC[5]++
			case 3:
				_ = w.kernel.Delete(l)
				return
			}
			ours = append(ours, changed)
		}
	}
	for _, f := range s.FDB {
		f.Dst = netip.MustParseAddr("192.0.2.99")
		ours = append(ours, f)
	}
	for _, n := range s.Neighs {
		n.MAC = ip.MAC{2, 0xbb}
		ours = append(ours, n)
	}
	for _, r := range s.Routes {
		if w.scope.Owns(r) {
			ours = append(ours, r)
		}
	}
	if len(w.scope.Links) > 0 && len(s.Links) > 2 {
		ours = append(ours, ip.Addr{Link: w.scope.Links[0], Prefix: netip.MustParsePrefix("169.254.1.1/16")})
	}
	if len(ours) == 0 {
		return
	}
	o := ours[w.rnd.IntN(len(ours))]
	if w.rnd.IntN(2) == 0 && o.Kind() != ip.KindLink {
		_ = w.kernel.Delete(o)
		return
	}
	if r, ok := o.(ip.Route); ok {
		o = ip.Route{Dst: r.Dst, Via: netip.MustParseAddr("192.0.2.99"), Link: "eth0", Onlink: true, Metric: r.Metric,
			Protocol: r.Protocol}
	}
	_ = w.kernel.Put(o) // refused when the daemon was faster, or when it makes no sense
}

// others change what is not the daemon's, however similar.
func (w *walk) others() {
	objects := []ip.Object{
		ip.Link{Name: "flannel.2", Type: "vxlan", MTU: 1450, VXLAN: ip.VXLAN{VNI: 2, Port: 8472, Underlay: "eth0"}},
		ip.Link{Name: "cni0", Type: "bridge", MTU: 1450, Up: true},
		ip.Route{Dst: netip.MustParsePrefix("172.16.0.0/16"), Via: netip.MustParseAddr("192.0.2.9"), Onlink: true,
			Link: "eth0", Protocol: ip.Protocol},
		ip.Route{Dst: netip.MustParsePrefix("10.5.200.0/24"), Via: netip.MustParseAddr("192.0.2.9"), Onlink: true,
			Link: "eth0", Protocol: 4},
		ip.Route{Dst: netip.MustParsePrefix("10.5.11.0/24"), Via: netip.MustParseAddr("192.0.2.9"), Onlink: true,
			Link: "eth0", Metric: 100, Protocol: ip.Protocol},
		ip.Route{Dst: netip.MustParsePrefix("10.5.11.0/24"), Blackhole: true, Metric: 200, Protocol: 4},
	}
	w.both(w.rnd.IntN(2) == 0, objects[w.rnd.IntN(len(objects))])
}

// moveUnderlay changes the interface below, as live.go of the daemon would follow it.
func (w *walk) moveUnderlay() {
	address := ip.Addr{Link: "eth0", Prefix: netip.MustParsePrefix("192.0.2.1/24")}
	down := w.eth0()
	down.Up = false
	switch w.rnd.IntN(4) {
	case 0:
		w.both(false, down)
		time.Sleep(time.Duration(w.rnd.IntN(200)) * time.Millisecond)
	case 1:
		w.both(true, down)
		time.Sleep(time.Duration(w.rnd.IntN(200)) * time.Millisecond)
	case 2:
		w.both(true, address)
	case 3:
		w.mu.Lock()
		w.underlay.MTU = 1400 + 100*w.rnd.IntN(3)
		w.mu.Unlock()
	}
	w.both(false, w.eth0(), address)
	w.kernel.Lose() // the daemon looks at everything after a change of its interface
}

// settle ends all trouble, waits as long as the slowest retry takes, and looks.
func (w *walk) settle() {
	w.t.Helper()
	w.set(&w.trouble, false)
	w.set(&w.deaf, false)
	time.Sleep(100 * time.Second)
	synctest.Wait()
	got, err := w.kernel.Dump(w.scope)
	if err != nil {
		w.t.Fatal(err)
	}
	if diff := cmp.Diff(got.String(), w.want().String()); diff != "" {
		w.t.Errorf("kernel (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(w.kernel.Foreign(w.scope).String(), w.shadow.Foreign(w.scope).String()); diff != "" {
		w.t.Errorf("others' objects (-got +want):\n%s", diff)
	}
}

// want is what the table of the compatibility promises asks for, written down a second time.
func (w *walk) want() ip.State {
	s := ip.State{Routes: []ip.Route{{Dst: w.lease(0).Subnet, Blackhole: true, Metric: ip.BlackholeMetric,
		Protocol: ip.Protocol}}}
	tunnel := w.config.BackendType == vxlan.Type
	if tunnel {
		s.Links = []ip.Link{{
			Name: "flannel.1", Type: "vxlan", MAC: ip.MAC{2, 0, 0, 0, 0, 1}, MTU: w.eth0().MTU - 50, Up: true,
			VXLAN: ip.VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr("192.0.2.1"), Underlay: "eth0"},
		}}
		s.Addrs = []ip.Addr{{Link: "flannel.1", Prefix: netip.PrefixFrom(w.lease(0).Subnet.Addr(), 32)}}
	}
	options, _ := vxlan.ParseOptions(w.config.Backend)
	for p := range w.source.View().Peers.All() {
		onLink := netip.MustParsePrefix("192.0.2.0/24").Contains(p.PublicIP)
		if !tunnel || options.DirectRouting && onLink {
			s.Routes = append(s.Routes, ip.Route{Dst: p.Subnet, Via: p.PublicIP, Link: "eth0", Protocol: ip.Protocol})
			continue
		}
		mac := ip.MAC{2, 0, 0, 0, 1, p.Subnet.Addr().As4()[2] - 10}
		first := p.Subnet.Addr()
		s.FDB = append(s.FDB, ip.FDB{Link: "flannel.1", MAC: mac, Dst: p.PublicIP})
		s.Neighs = append(s.Neighs, ip.Neigh{Link: "flannel.1", IP: first, MAC: mac})
		s.Routes = append(s.Routes, ip.Route{Dst: p.Subnet, Via: first, Link: "flannel.1", Onlink: true,
			Protocol: ip.Protocol})
	}
	return s
}
