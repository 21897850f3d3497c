//go:build soak

package lab_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/lab"
)

var (
	soakTime    = flag.Duration("soak.time", time.Hour, "how long faults go on")
	soakSeed    = flag.Uint64("soak.seed", 0, "seed of the faults; 0: a new one")
	soakHosts   = flag.Int("soak.hosts", 20, "number of hosts")
	soakBackend = flag.String("soak.backend", "vxlan", "backend of the network, in both families")
)

// soak is a cluster under random faults. Each pod pings another one of each family all the time. A fault says which
// hosts may lose packets, and for how long; nothing else may be lost.
type soak struct {
	*site
	rnd       *rand.Rand
	snapshots int          // saved so far
	deaf      map[int]bool // hosts that do not hear the store at present
}

// soakFault is what happens to one host, or to the store.
type soakFault struct {
	name string
	// do does it to a host; a fault of the store takes no notice of that. allowed is how long traffic from and to the
	// host may be away. mend, if there is one, is called while traffic flows again.
	do func(s *soak, i int) (allowed time.Duration, mend func() error)
	// ends are faults that end the daemon of a host: some daemons have to live through all.
	ends bool
}

// TestSoak does random faults to a cluster, one to three at a time, and looks at its end whether memory, descriptors,
// goroutines and objects of the kernel are what they were.
//
// Slow: an hour by default.
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (-soak.seed)", seed)
	s := &soak{rnd: rand.New(rand.NewPCG(seed, 0)), deaf: map[int]bool{}}
	s.site = newSite(t, network{*soakBackend, lab.Dual}, *soakHosts)
	s.settled()
	before := s.usage()
	count, end := 0, time.Now().Add(*soakTime)
	for ; time.Now().Before(end) && !t.Failed(); count++ {
		s.site = s.in(t)
		s.round(count)
	}
	t.Logf("%d rounds", count)
	s.site = s.in(t)
	s.settled()
	s.wantFlat(before)
}

// stream are the pings between two pods, in each family.
type stream struct {
	from, to int
	pings    []*lab.Pings
}

func (s *soak) streams() []stream {
	out := make([]stream, len(s.pods))
	for i := range s.pods {
		to := (i + 1 + s.rnd.IntN(len(s.pods)-1)) % len(s.pods)
		out[i] = stream{from: i, to: to}
		for _, a := range s.pods[to].Addrs {
			p := must[*lab.Pings](s.t)(s.pods[i].Pings(a, lab.PingOptions{Interval: 100 * time.Millisecond}))
			out[i].pings = append(out[i].pings, p)
		}
	}
	return out
}

// flow waits until so many more pings of each stream have been answered.
func (s *soak) flow(streams []stream, more int) {
	s.t.Helper()
	before := map[*lab.Pings]int{}
	for _, st := range streams {
		for _, p := range st.pings {
			before[p] = p.Stats().Received
		}
	}
	for _, st := range streams {
		for _, p := range st.pings {
			s.await(func() error {
				if got := p.Stats(); got.Received < before[p]+more {
					return fmt.Errorf("host%d to host%d: %s", st.from+1, st.to+1, got)
				}
				return nil
			})
		}
	}
}

// round does some faults at the same moment and judges what was lost.
func (s *soak) round(number int) {
	streams := s.streams()
	s.flow(streams, 3)
	var names []string
	allowed := map[int]time.Duration{} // by host
	var mends []func() error
	add := func(f soakFault, i int) {
		gap, mend := f.do(s, i)
		allowed[i] = max(allowed[i], gap)
		if mend != nil {
			mends = append(mends, mend)
		}
	}
	for _, i := range s.rnd.Perm(len(s.hosts))[:1+s.rnd.IntN(2)] { // each host has one fault at a time
		f := hostFaults[s.rnd.IntN(len(hostFaults))]
		for f.ends && s.lives(i) {
			f = hostFaults[s.rnd.IntN(len(hostFaults))]
		}
		names = append(names, fmt.Sprintf("host%d %s", i+1, f.name))
		add(f, i)
	}
	if s.rnd.IntN(2) == 0 {
		f := storeFaults[s.rnd.IntN(len(storeFaults))]
		names = append(names, "store "+f.name)
		add(f, -1)
	}
	what := fmt.Sprintf("round %d: %s", number, strings.Join(names, ", "))
	s.t.Log(time.Now().Format(time.TimeOnly), what)
	s.flow(streams, 10)
	for _, mend := range mends {
		s.ok(mend())
	}
	s.settled()
	s.flow(streams, 10)
	for _, st := range streams {
		for _, p := range st.pings {
			got, most := p.Stop(), max(allowed[st.from], allowed[st.to])
			label := fmt.Sprintf("%s: host%d to host%d", what, st.from+1, st.to+1)
			if most > 0 {
				s.inTime(label, got.LongestGap, scaled(most))
			} else if got.Lost() > 0 {
				s.t.Errorf("%s: %s, want none lost", label, got)
			}
		}
	}
}

// lives reports whether the daemon of a host is never ended, so that what it needs can be compared.
func (s *soak) lives(i int) bool { return i < max(1, len(s.hosts)/5) }

// settled waits until the store has the records of all hosts and every daemon has a way to every other host.
func (s *soak) settled() {
	s.t.Helper()
	s.await(func() error {
		records, err := s.store.Records(s.ctx)
		if err == nil && len(records) < len(s.hosts) {
			err = fmt.Errorf("the store has %d records, want %d", len(records), len(s.hosts))
		}
		return err
	})
	want := (len(s.hosts) - 1) * len(s.pods[0].Addrs) // subnets of others
	for i, d := range s.daemons {
		s.ok(d.Ready(s.ctx))
		s.await(func() error {
			st := statusOf(s.t, s.cluster, d)
			if st.Peers != want || st.Kept != 0 || !st.Ready || st.StoreSince != nil {
				return fmt.Errorf("host%d: %d peers, %d kept, ready %t, store unreachable since %v: %s", i+1, st.Peers, st.Kept,
					st.Ready, st.StoreSince, st.Reason)
			}
			return nil
		})
	}
}

// heard waits until a record stands in the store, and all hosts that hear the store have heard of it.
func (s *soak) heard(key string) {
	s.t.Helper()
	client := must[*clientv3.Client](s.t)(s.store.Client())
	defer client.Close()
	var revision int64
	s.await(func() error {
		resp, err := client.Get(s.ctx, lab.Prefix+"/"+key)
		switch {
		case err != nil:
			return err
		case len(resp.Kvs) == 0:
			return fmt.Errorf("%s is not back", key)
		}
		revision = resp.Kvs[0].ModRevision
		return nil
	})
	for i, d := range s.daemons {
		if s.deaf[i] {
			continue
		}
		s.await(func() error {
			st, err := s.status(d)
			if err == nil && st.Revision < revision {
				err = fmt.Errorf("host%d has heard of revision %d, want %d", i+1, st.Revision, revision)
			}
			return err
		})
	}
}

// restart starts the daemon of a host again, as a service manager does.
func (s *soak) restart(i int) { s.daemons[i] = s.start(s.hosts[i], s.store) }

// away is how long traffic of a host may be away for what the backend cannot hide.
const (
	healed   = 3 * time.Second  // tampering, while others happen as well
	rejoined = 15 * time.Second // the host lost all that is in its kernel
)

// unless returns how long traffic may be away while the daemon does not run.
func (s *soak) unless(running bool, away time.Duration) time.Duration {
	if running || s.survives() && s.backend != "udp" {
		return 0
	}
	return away
}

var hostFaults = []soakFault{
	{name: "tampered with", do: func(s *soak, i int) (time.Duration, func() error) {
		peer := (i + 1 + s.rnd.IntN(len(s.hosts)-1)) % len(s.hosts)
		subnets := s.subnets(s.hosts[peer])
		fill := s.placeholders(s.hosts[i], s.hosts[peer], subnets[s.rnd.IntN(len(subnets))])
		for {
			tt := tamperings[s.rnd.IntN(len(tamperings))]
			if !strings.Contains(tt.backends, s.backend) {
				continue
			}
			s.t.Logf("host%d: %s", i+1, tt.name)
			for _, command := range tt.commands {
				s.ok(s.hosts[i].Run(fill(command)))
			}
			return healed, nil
		}
	}},
	{name: "link down and up", do: func(s *soak, i int) (time.Duration, func() error) {
		s.ok(errors.Join(s.hosts[i].Run("ip link set eth0 down"), configure(s.hosts[i])))
		return healed + 2*time.Second, nil // the bridge learns the port anew
	}},
	{name: "cut off from the store", do: func(s *soak, i int) (time.Duration, func() error) {
		mend, err := s.hosts[i].CutFrom(s.store)
		s.ok(err)
		s.deaf[i] = true
		return 0, func() error { delete(s.deaf, i); return mend() }
	}},
	{name: "record deleted", do: func(s *soak, i int) (time.Duration, func() error) {
		key := s.keyOf(s.hosts[i])
		s.ok(s.store.Delete(s.ctx, "subnets/"+key))
		// Where the store goes away before its peers have heard that the host has written it again, they drop it, as they
		// must.
		s.heard("subnets/" + key)
		return 0, nil
	}},
	{name: "restarted", ends: true, do: func(s *soak, i int) (time.Duration, func() error) {
		s.ok(s.daemons[i].Stop(s.ctx))
		s.restart(i)
		return s.unless(false, healed), nil
	}},
	{name: "killed and started", ends: true, do: func(s *soak, i int) (time.Duration, func() error) {
		s.daemons[i].Kill()
		s.restart(i)
		return s.unless(false, healed), nil
	}},
	{name: "without a daemon for a while", ends: true, do: func(s *soak, i int) (time.Duration, func() error) {
		s.daemons[i].Kill()
		if !s.survives() || s.backend == "udp" {
			s.restart(i)
			return healed, nil
		}
		s.deaf[i] = true
		return 0, func() error { delete(s.deaf, i); s.restart(i); return nil }
	}},
	{name: "rebooted", ends: true, do: func(s *soak, i int) (time.Duration, func() error) {
		s.daemons[i].Kill()
		s.hosts[i].ForgetFiles()
		for _, dev := range s.devices() {
			s.ok(s.hosts[i].Run("ip link del " + dev))
		}
		s.ok(s.hosts[i].Run("ip -4 route flush proto 70", "ip -6 route flush proto 70"))
		s.restart(i)
		return rejoined, nil
	}},
}

var storeFaults = []soakFault{
	{name: "restarted", do: func(s *soak, _ int) (time.Duration, func() error) {
		s.store.Kill()
		return 0, func() error { return s.store.Start(s.ctx) }
	}},
	{name: "wiped", do: func(s *soak, _ int) (time.Duration, func() error) {
		s.ok(errors.Join(s.store.Wipe(s.ctx), s.store.Put(s.ctx, "config", s.config())))
		return 0, nil
	}},
	{name: "restored", do: func(s *soak, _ int) (time.Duration, func() error) {
		s.snapshots++
		file := fmt.Sprintf("%s/snapshot%d", s.Dir(), s.snapshots)
		s.ok(s.store.Snapshot(s.ctx, file))
		for range s.rnd.IntN(20) { // the history from here on is another one
			s.ok(s.store.Put(s.ctx, "other", fmt.Sprint(s.rnd.Uint64())))
		}
		s.ok(s.store.Restore(s.ctx, file, lab.RestoreOptions{BumpRevision: []uint64{0, 1e6}[s.rnd.IntN(2)]}))
		return 0, nil
	}},
	{name: "compacted", do: func(s *soak, _ int) (time.Duration, func() error) {
		s.ok(s.store.Put(s.ctx, "other", fmt.Sprint(s.rnd.Uint64()))) // a revision that is not compacted yet
		s.compact(s.store)
		return 0, nil
	}},
	{name: "with junk for a while", do: func(s *soak, _ int) (time.Duration, func() error) {
		const key = "subnets/10.5.254.0-24"
		s.ok(s.store.Put(s.ctx, key, `{"PublicIP":"`))
		return 0, func() error { return s.store.Delete(s.ctx, key) }
	}},
	{name: "with a broken configuration for a while", do: func(s *soak, _ int) (time.Duration, func() error) {
		s.ok(s.store.Put(s.ctx, "config", `{"Network":`))
		return 0, func() error { return s.store.Put(s.ctx, "config", s.config()) }
	}},
}
