package lab_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"flanneld/lab"
)

// A host with a slow way to etcd starts although 120 values of a megabyte lie among the records, and keeps none of
// them.
//
// Slow: 120 MB come over a link of 100 Mbit/s, in ten seconds at best.
func TestManyLargeValuesOverASlowLinkDoNotStopAStart(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	c.ctx = ctx
	e := c.etcd(vxlanConfig)
	junk := strings.Repeat("x", 1_000_000)
	for i := range 120 {
		c.ok(e.Put(c.ctx, fmt.Sprintf("subnets/junk-%03d", i), junk))
	}
	c.ok(e.Run("tc qdisc add dev eth0 root tbf rate 100mbit burst 64kb latency 400ms"))
	hosts := c.hosts(2)
	daemons := c.startAll(hosts, e)
	pods := c.pods(hosts...)
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	for _, d := range daemons {
		if most := memoryPeak(t, d); most > 200<<20 {
			t.Errorf("the daemon has used %d MiB", most>>20)
		}
		if _, text, err := d.Get(c.ctx, "/status"); err != nil || len(text) > 64<<10 {
			t.Errorf("the status has %d bytes: %v", len(text), err)
		}
		if n := len(d.Log()); n > 256<<10 {
			t.Errorf("the log has %d bytes", n)
		}
	}
}

// memoryPeak returns the most memory that a process has had, in bytes.
func memoryPeak(t *testing.T, d *lab.Daemon) int {
	t.Helper()
	text := string(must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Pid()))))
	_, rest, _ := strings.Cut(text, "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		t.Fatalf("no peak in %s", text)
	}
	return must[int](t)(strconv.Atoi(fields[0])) << 10
}
