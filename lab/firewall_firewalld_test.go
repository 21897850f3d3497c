package lab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"flanneld/lab"
	"flanneld/need"
)

// busConfig is that of a system bus with one member.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/><allow send_type="*"/><allow receive_type="*"/><allow user="*"/><allow send_destination="*"/>
  </policy>
</busconfig>
`

// firewalld is the real one on a host of the lab, with a bus of its own.
type firewalld struct {
	c    *cluster
	host *lab.Host
	bus  string // the setting that leads to it
}

// firewalld starts one, with all interfaces in its usual zone, and the port of the tunnel open.
func (c *cluster) firewalld(h *lab.Host) *firewalld {
	c.t.Helper()
	need.Program(c.t, "dbus-daemon", "firewalld", "firewall-cmd", "nft")
	dir := filepath.Join(h.Dir(), "fwd")
	c.ok(os.MkdirAll(filepath.Join(dir, "etc"), 0o755))
	c.ok(os.WriteFile(filepath.Join(dir, "bus.conf"), fmt.Appendf(nil, busConfig, dir+"/bus"), 0o644))
	c.ok(os.WriteFile(filepath.Join(dir, "etc", "firewalld.conf"),
		[]byte("DefaultZone=public\nFirewallBackend=nftables\n"), 0o644))
	must[*lab.Process](c.t)(h.Start("dbus", "dbus-daemon", "--config-file="+dir+"/bus.conf", "--nofork", "--nopidfile"))
	c.await(func() error { _, err := os.Stat(dir + "/bus"); return err })
	f := &firewalld{c: c, host: h, bus: "DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + dir + "/bus"}
	p := must[*lab.Process](c.t)(h.Start("firewalld", "env", f.bus, "firewalld", "--nofork", "--nopid", "--system-config="+
		dir+"/etc", "--log-target=console"))
	c.await(func() error {
		select {
		case <-p.Done():
			c.t.Fatalf("firewalld has ended:\n%s", p.Log())
		default:
		}
		return f.cmd("--state")
	})
	c.ok(f.cmd("--permanent", "--add-port=8472/udp"))
	c.ok(f.cmd("--reload"))
	return f
}

func (f *firewalld) cmd(args ...string) error {
	_, err := f.host.Exec(f.c.ctx, append([]string{"env", f.bus, "firewall-cmd"}, args...)...)
	return err
}

// Slow: firewalld takes seconds of a processor for each start and reload.
func TestFirewalldBesideTheFirewall(t *testing.T) {
	t.Parallel()
	s := newFirewallSite(t, network{"vxlan", lab.IPv4}, "-ip-masq")
	h, pod, far := s.hosts[0], s.pods[0][0], s.pods[1][0]
	f := s.firewalld(h)
	arrive := func() error {
		for _, p := range []path{
			{"pod to a pod of another host", arrival{from: pod, to: far, at: at(far.Addr(), 9000)}, pod.Addr()},
			{"pod of another host to a pod", arrival{from: far, to: pod, at: at(pod.Addr(), 9000)}, far.Addr()},
			{"pod to the outside", arrival{from: pod, to: s.outsider, at: at(s.outsider.Addr, 9000)}, h.Addr},
		} {
			p.way.within = 100 * time.Millisecond
			if got := p.way.see(t); got != p.want {
				return fmt.Errorf("%s: %s arrives, want %s", p.name, got, p.want)
			}
		}
		return nil
	}
	s.await(arrive)
	best := patience
	for range 3 {
		s.ok(f.cmd("--reload"))
		start := time.Now()
		s.await(arrive)
		best = min(best, time.Since(start))
	}
	s.inTime("the best repair after a reload", best, time.Second)
	s.restart(0, "-ip-masq", "-iptables-forward-rules=false")
	s.await(func() error {
		if (arrival{from: far, to: pod, at: at(pod.Addr(), 9000), within: silence}).see(t).IsValid() {
			return fmt.Errorf("firewalld lets through what -iptables-forward-rules=false no longer accepts")
		}
		return nil
	})
}
