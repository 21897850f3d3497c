package ip_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"flanneld/ip/iptest"
)

func TestTheKernelTellsWhomPacketsWereSentTo(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	apply(t, k, cluster(3))
	const wait = 300 * time.Millisecond
	time.Sleep(wait) // an entry counts as used when it is made
	conn, err := net.Dial("udp4", "10.0.2.9:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before := time.Now()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	used, err := k.Used("flannel.1")
	if err != nil {
		t.Fatal(err)
	}
	if len(used) != 3 {
		t.Fatalf("use of %d peers is known, want 3: %v", len(used), used)
	}
	for a, ago := range used {
		if to := netip.MustParseAddr("192.0.0.2"); (a == to) != (ago < wait) && time.Since(before) < wait/2 {
			t.Errorf("%s was sent to %s ago, and the packet went to %s", a, ago, to)
		}
	}
	iptest.Run(t, "ip neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev eth0 nud stale\n"+
		"ip neigh add 192.0.2.8 lladdr 02:00:00:00:00:08 dev eth0 nud stale")
	time.Sleep(wait)
	neighbour, err := net.Dial("udp4", "192.0.2.7:9")
	if err != nil {
		t.Fatal(err)
	}
	defer neighbour.Close()
	before = time.Now()
	if _, err := neighbour.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if used, err = k.Used("eth0"); err != nil {
		t.Fatal(err)
	}
	one, other := used[netip.MustParseAddr("192.0.2.7")], used[netip.MustParseAddr("192.0.2.8")]
	if (one >= wait || other < wait) && time.Since(before) < wait/2 {
		t.Errorf("a neighbour that was sent to was used %s ago, one that was not %s", one, other)
	}
	if none, err := k.Used("flannel.9"); err != nil || len(none) != 0 {
		t.Errorf("a device that is not there: %v, %v", none, err)
	}
}
