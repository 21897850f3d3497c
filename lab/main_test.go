package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"flanneld/ip/iptest"
	"flanneld/lab"
)

// binaries are the programs under test, built once.
var binaries lab.Binaries

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			fmt.Fprintln(os.Stderr, "end-to-end tests need root")
			return 1
		}
		fmt.Fprintln(os.Stderr, "skipped: end-to-end tests need root")
		return 0
	}
	if dir := os.Getenv(orphanVariable); dir != "" {
		return orphan(dir)
	}
	if dir := os.Getenv("LAB_PROGRAMS"); dir != "" {
		binaries = lab.Built(dir)
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "flanneld-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if binaries, err = lab.Build(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// orphan builds a lab, prints its folder, and is killed.
func orphan(bin string) int {
	l, err := lab.New(lab.Options{Binaries: lab.Binaries{Etcd: filepath.Join(bin, "etcd")}})
	if err == nil {
		_, err = l.Etcd(context.Background(), "etcd")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(l.Dir())
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	return 0
}

// cluster is a lab that fails the test instead of returning errors.
type cluster struct {
	*lab.Lab
	t   testing.TB
	ctx context.Context // bounds every wait: a generous time, never a measure
}

// vxlanConfig is the network configuration of most tests.
const vxlanConfig = `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","Backend":{"Type":"vxlan"}}`

// dualConfig is one where each host has a pair of subnets, so that a test holds for both at once.
const dualConfig = `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`

// patience bounds every wait. What takes long on a machine that does other work as well is no failure.
var patience = scaled(3 * time.Minute)

// scaled returns a bound for this machine.
func scaled(d time.Duration) time.Duration { return iptest.Time(d) }

func newCluster(t testing.TB) *cluster { return newClusterWith(t, lab.Options{}) }

func newClusterWith(t testing.TB, o lab.Options) *cluster {
	t.Helper()
	o.Binaries = binaries
	l, err := lab.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	t.Cleanup(func() { keepLogs(t, l) })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return &cluster{l, t, ctx}
}

// keepLogs copies what the programs of a lab have logged into a folder of $LAB_LOGS, if the test has failed.
func keepLogs(t testing.TB, l *lab.Lab) {
	dir := os.Getenv("LAB_LOGS")
	if dir == "" || !t.Failed() {
		return
	}
	dir = filepath.Join(dir, strings.NewReplacer("/", "+", " ", "_").Replace(t.Name()))
	files, err := filepath.Glob(filepath.Join(l.Dir(), "*", "*.log"))
	err = errors.Join(err, os.MkdirAll(dir, 0o755))
	for _, file := range files {
		text, readErr := os.ReadFile(file)
		to := filepath.Join(dir, filepath.Base(filepath.Dir(file))+"-"+filepath.Base(file))
		err = errors.Join(err, readErr, os.WriteFile(to, text, 0o644))
	}
	if err != nil {
		t.Logf("keep logs: %v", err)
	}
}

// slower returns how many times slower than an idle one the machine is just now, at least 1.
func slower() float64 { return iptest.Slower(binaries.Flanneld, "-version") }

// inTime fails the test if something took longer than it may on an idle machine. A machine that does other work as well
// is measured then, and gets more time by as much as it is slower.
func (c *cluster) inTime(what string, took, most time.Duration) {
	c.t.Helper()
	if took <= most {
		return
	}
	times := slower()
	c.t.Logf("%s took %s, want %s; the machine is %.1f times slower than an idle one", what, took.Round(time.Millisecond),
		most, times)
	if float64(took) > times*float64(most) {
		c.t.Fail()
	}
}

// must returns a value, or fails the test.
func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (c *cluster) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// etcd starts a store that holds a network configuration, "": none.
func (c *cluster) etcd(config string) *lab.Etcd {
	c.t.Helper()
	e := must[*lab.Etcd](c.t)(c.Etcd(c.ctx, "etcd"))
	if config != "" {
		c.ok(e.Put(c.ctx, "config", config))
	}
	return e
}

func (c *cluster) host(name string) *lab.Host {
	c.t.Helper()
	return must[*lab.Host](c.t)(c.Host(name))
}

// hosts adds n hosts.
func (c *cluster) hosts(n int) []*lab.Host {
	c.t.Helper()
	out := make([]*lab.Host, n)
	for i := range out {
		out[i] = c.host(fmt.Sprintf("host%d", i+1))
	}
	return out
}

// flanneld starts a daemon on a store, and waits until it is ready.
func (c *cluster) flanneld(h *lab.Host, e *lab.Etcd, args ...string) *lab.Daemon {
	c.t.Helper()
	d := c.start(h, e, args...)
	c.ok(d.Ready(c.ctx))
	return d
}

// start starts a daemon on a store.
func (c *cluster) start(h *lab.Host, e *lab.Etcd, args ...string) *lab.Daemon {
	c.t.Helper()
	return must[*lab.Daemon](c.t)(h.Flanneld(append([]string{"-etcd-endpoints", e.URLFor(h)}, args...)...))
}

// startAll starts a daemon on each host at once, and waits until all are ready.
func (c *cluster) startAll(hosts []*lab.Host, e *lab.Etcd, args ...string) []*lab.Daemon {
	c.t.Helper()
	out := make([]*lab.Daemon, len(hosts))
	for i, h := range hosts {
		out[i] = c.start(h, e, args...)
	}
	c.ok(lab.Ready(c.ctx, out...))
	return out
}

func (c *cluster) pods(hosts ...*lab.Host) []*lab.Pod {
	c.t.Helper()
	return must[[]*lab.Pod](c.t)(lab.Pods(hosts...))
}

// await waits for a condition.
func (c *cluster) await(condition func() error) {
	c.t.Helper()
	c.ok(lab.Await(c.ctx, condition))
}
