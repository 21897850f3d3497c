//go:build raced

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flanneld/lab"
	"flanneld/need"
)

// noDaemon is the exit code of flannelctl if no daemon answers.
const noDaemon = 4

// buildWithRaceDetector builds the daemon with the race detector, which needs cgo. It leaves out the Kubernetes API,
// whose client library is half of the time of the build: subnet/kube's own tests run under the race detector.
func buildWithRaceDetector(t *testing.T) string {
	t.Helper()
	need.Program(t, "gcc")
	program := filepath.Join(t.TempDir(), "flanneld")
	cmd := exec.Command("go", "build", "-race", "-tags", "nokube", "-ldflags", "-X flanneld/version.number=lab", "-o",
		program, "flanneld/cmd/flanneld")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build with the race detector: %v\n%s", err, out)
	}
	return program
}

// TestTheDaemonHasNoDataRaces takes daemons that are built with the race detector through their lives while they are
// asked all the time.
//
// Slow: the daemon is built with the race detector first, and runs several times slower with it.
func TestTheDaemonHasNoDataRaces(t *testing.T) {
	t.Parallel()
	program := buildWithRaceDetector(t)
	for _, n := range []network{{"vxlan", lab.Dual}, {"host-gw", lab.IPv4}, {"udp", lab.IPv4}} {
		t.Run(n.String(), func(t *testing.T) {
			t.Parallel()
			s := newRaceSite(t, n, program)
			stop := s.ask()
			defer stop()
			s.liveThrough()
			stop()
			s.endWithoutRaces()
		})
	}
	t.Run("built without the Kubernetes API", func(t *testing.T) {
		t.Parallel()
		out, err := exec.Command(program, "-kube-subnet-mgr").CombinedOutput()
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "without the Kubernetes API") {
			t.Errorf("with -kube-subnet-mgr: %v, want a usage error that says how it was built\n%s", err, out)
		}
	})
	t.Run("drain while the embedded store waits for its address", func(t *testing.T) {
		t.Parallel()
		drainWithoutStore(t, program)
	})
}

// newRaceCluster returns a cluster whose daemons are the given program.
func newRaceCluster(t *testing.T, families lab.Families, program string) *cluster {
	t.Helper()
	with := binaries
	with.Flanneld = program
	l := must[*lab.Lab](t)(lab.New(lab.Options{Binaries: with, Families: families}))
	t.Cleanup(l.Close)
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	return &cluster{l, t, ctx}
}

// raceSite is a cluster of two hosts.
type raceSite struct{ *site }

func newRaceSite(t *testing.T, n network, program string) *raceSite {
	t.Helper()
	s := &site{cluster: newRaceCluster(t, n.families, program), network: n}
	s.store = s.etcd(n.config())
	s.hosts = s.cluster.hosts(2)
	s.daemons = s.startAll(s.hosts, s.store, "-ip-masq", "-probe-interval", "200ms", "-iptables-resync", "1", "-v", "1")
	s.pods = s.cluster.pods(s.hosts...)
	return &raceSite{s}
}

// ask reads all pages of all daemons again and again until the returned function is called, which may be called twice.
func (s *raceSite) ask() (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	var asking sync.WaitGroup
	for _, d := range s.daemons {
		for _, page := range []string{"/status", "/metrics", "/readyz", "/healthz", "/"} {
			asking.Go(func() {
				for ctx.Err() == nil {
					_, _, _ = d.Get(ctx, page) // it may be ending
					select {
					case <-ctx.Done():
					case <-time.After(20 * time.Millisecond):
					}
				}
			})
		}
	}
	return func() {
		cancel()
		asking.Wait()
	}
}

// liveThrough changes all that may change under a daemon, and has it drained in the end.
func (s *raceSite) liveThrough() {
	s.connected()
	s.records()
	h := s.hosts[0]

	s.ok(s.store.Put(s.ctx, "config",
		strings.Replace(s.config(), `"SubnetMax":"10.5.199.0"`, `"SubnetMax":"10.5.190.0"`, 1)))
	s.ok(s.store.Put(s.ctx, "config", "nonsense"))
	s.ok(s.store.Put(s.ctx, "config", s.config()))

	s.ok(h.Run("ip link set eth0 mtu 1400"))
	s.eventually(h, "cat "+h.SubnetFile(), fmt.Sprintf("FLANNEL_MTU=%d\n", s.mtu()-100))
	s.ok(errors.Join(h.Run("ip link set eth0 mtu 1500"), h.Run("ip link set eth0 down"), configure(h)))
	home4, home6 := h.Addr, h.Addr6
	s.ok(readdress(h, netip.MustParseAddr("198.18.77.7"), netip.MustParseAddr("fd00:18::77:7")))
	s.recordAwaited(s.store, h, underlayOf(h))
	s.ok(readdress(h, home4, home6))
	s.recordAwaited(s.store, h, underlayOf(h))

	s.ok(h.Run("ip route flush proto 70", "nft delete table inet flannel"))
	if device := s.device(s.pods[0].Addr()); device != "eth0" {
		s.ok(h.Run("ip link del " + device))
	}
	s.connected()

	s.store.Kill()
	s.await(s.logs(s.daemons[0], "store unreachable"))
	s.ok(s.store.Wipe(s.ctx))
	s.ok(s.store.Put(s.ctx, "config", s.config()))
	for _, h := range s.hosts {
		s.await(func() error { return s.cluster.record(s.store, s.keyOf(h), underlayOf(h)) })
	}
	s.connected()
	if out, code := s.ctl(s.hosts[1], "peers"); code != 0 && code != 3 { // those of the records answer no probes
		s.t.Errorf("flannelctl peers exits with %d:\n%s", code, out)
	}
	s.ctlOK(s.hosts[1], "drain")
}

// records has records of others come, change and go, and takes that of a host away.
func (s *raceSite) records() {
	value := func(i int, address string) string {
		kind := fmt.Sprintf(`"BackendType":%q,"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:01:%02x"},`, s.backend, i)
		if s.backend == "udp" {
			kind = ""
		}
		return fmt.Sprintf(`{"PublicIP":"198.18.%s.%d",%s"ID":"other%d"}`, address, i+1, kind, i)
	}
	for _, address := range []string{"8", "9"} {
		for i := range 20 {
			s.ok(s.store.Put(s.ctx, fmt.Sprintf("subnets/10.5.%d.0-24", 220+i), value(i, address)))
		}
	}
	s.ok(s.store.Put(s.ctx, "subnets/10.5.240.0-24", "nonsense"))
	s.await(func() error {
		if status := statusOf(s.t, s.cluster, s.daemons[0]); status.Peers < 21 {
			return fmt.Errorf("%d peers, want those of the records", status.Peers)
		}
		return nil
	})
	for i := range 21 {
		s.ok(s.store.Delete(s.ctx, fmt.Sprintf("subnets/10.5.%d.0-24", 220+i)))
	}
	key := s.keyOf(s.hosts[0])
	s.ok(s.store.Delete(s.ctx, "subnets/"+key))
	s.await(func() error { return s.cluster.record(s.store, key, underlayOf(s.hosts[0])) })
}

// endWithoutRaces ends the daemons, and looks for what their race detectors have found.
func (s *raceSite) endWithoutRaces() {
	for _, d := range s.daemons {
		s.endsWithoutRace(d)
	}
}

func (c *cluster) endsWithoutRace(d *lab.Daemon) {
	c.t.Helper()
	err := d.Stop(c.ctx)
	if _, report, found := strings.Cut(d.Log(), "WARNING: DATA RACE"); found {
		c.t.Errorf("data race:\n%.5000s", report)
		return
	}
	c.ok(err)
}

// drainWithoutStore drains a daemon that has no store yet: its own waits for an address to listen on.
func drainWithoutStore(t *testing.T, program string) {
	c := newRaceCluster(t, lab.IPv4, program)
	h := c.host("host1")
	d := must[*lab.Daemon](t)(h.Flanneld("-etcd-embedded", "-etcd-embedded-listen", "198.18.99.99:2379",
		"-network-config", vxlanConfig))
	c.await(c.logs(d, "waiting for the address of the embedded etcd"))
	c.await(func() error { // the socket is there soon
		if out, code := c.ctl(h, "status"); code == noDaemon {
			return errors.New(out)
		}
		return nil
	})
	out, code := c.ctl(h, "drain")
	t.Logf("drain exits with %d: %s", code, out)
	if out, code := c.ctl(h, "status"); code == noDaemon {
		t.Errorf("the daemon does not answer any more: %s\n%s", out, d.Log())
	}
	c.endsWithoutRace(d)
}
