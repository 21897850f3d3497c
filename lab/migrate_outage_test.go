package lab_test

import (
	"errors"
	"strings"
	"testing"

	"flanneld/lab"
)

// TestAMoveOutlivesTheStoreAndAHostThatIsCutOff kills the store after the first step and has the command go on when it
// is back. Then a running host cannot reach the store during a whole move, and follows when it can.
func TestAMoveOutlivesTheStoreAndAHostThatIsCutOff(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(dualConfig)
	hosts := c.hosts(3)
	daemons := c.startAll(hosts, e)
	pods := must[[]*lab.Pod](t)(lab.Pods(hosts...))
	pings := c.meshed(pods)
	type outcome struct {
		out  string
		code int
	}
	ended := make(chan outcome, 1)
	go func() {
		out, code := c.ctl(hosts[0], "network", "migrate", "--to", toHostGW, "--pause", "1s")
		ended <- outcome{out, code}
	}()
	c.await(func() error {
		if config := c.ctlOK(hosts[1], "network", "get"); !strings.Contains(config, "Next") {
			return errors.New("the move has not begun")
		}
		return nil
	})
	e.Kill()
	c.await(func() error { return c.unreachable(daemons[1]) })
	c.ok(e.Start(c.ctx))
	if o := <-ended; o.code != 0 { // what it does not survive, it says how to continue
		if !strings.Contains(o.out, "etcd") {
			t.Errorf("exit code %d:\n%s", o.code, o.out)
		}
		c.ctlOK(hosts[1], "network", "migrate", "--to", toHostGW, "--pause", "1s")
	}
	c.nothingLost("a move during which the store was away", pings)

	mend := must[func() error](t)(hosts[2].CutFrom(e))
	c.await(func() error { return c.unreachable(daemons[2]) })
	c.ctlOK(hosts[0], "network", "migrate", "--to", `{"Type":"vxlan"}`, "--pause", "1s", "--skip", hosts[2].Addr.String())
	pings = c.meshed(pods[:2])
	c.ok(mend())
	for i := range pods {
		c.reaches(pods[i].Namespace, pods[(i+1)%len(pods)], lab.PingOptions{})
	}
	c.await(func() error { return c.alone(hosts[2], `{"Type":"vxlan"}`) })
	c.nothingLost("the return of a host", pings)
	if n := strings.Count(daemons[2].Log(), "starting flanneld"); n != 1 {
		t.Errorf("the host that was cut off was started %d times", n)
	}
}
