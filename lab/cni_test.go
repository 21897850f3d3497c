package lab_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"flanneld/cni-plugin/plugintest"
	"flanneld/lab"
)

// Slow: two containerd start, load an image and start containers.
func TestContainersOfContainerdReachEachOther(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	flannel := plugintest.Flannel(t, dir)
	for _, n := range []network{{"vxlan", lab.IPv4}, {"vxlan", lab.IPv6}, {"vxlan", lab.Dual}, {"host-gw", lab.Dual},
		{"udp", lab.Dual}} {
		t.Run(n.String(), func(t *testing.T) {
			t.Parallel()
			c := newClusterWith(t, lab.Options{Families: n.families})
			e := c.etcd(n.config())
			hosts := c.hosts(2)
			runtimes := make([]*containerd, len(hosts))
			pods := make([]container, len(hosts))
			for i, h := range hosts {
				runtimes[i] = c.containerd(h, flannel)
			}
			if _, err := runtimes[0].run(c.ctx, "early", 8080); err == nil ||
				!strings.Contains(err.Error(), "flanneld is not running") {
				t.Errorf("a pod before the daemon: got %v, want an error that says what is missing", err)
			}
			c.startAll(hosts, e, "-ip-masq")
			for i := range hosts {
				pods[i] = must[container](t)(runtimes[i].run(c.ctx, fmt.Sprintf("pod%d", i), 8080))
			}
			for i, r := range runtimes {
				if want := len(c.subnets(hosts[i])); len(pods[i].addrs) != want {
					t.Errorf("a container has the addresses %s, want %d", pods[i].addrs, want)
				}
				for _, a := range pods[1-i].addrs {
					c.await(func() error {
						_, err := r.exec(c.ctx, pods[i], "ping -c 3 -i 0.2 -W 5 -s 1200 "+a.String())
						return err
					})
					c.await(func() error { return c.says(at(hosts[i].AddrOf(a), 8080).String(), fmt.Sprintf("pod%d", i)) })
				}
			}
			for i, r := range runtimes {
				c.ok(r.Remove(c.ctx, pods[i].sandbox))
				c.await(r.left)
			}
		})
	}
}

// says returns an error unless a server answers with this text to a machine on the underlay.
func (c *cluster) says(address, text string) error {
	conn, err := c.Underlay().Dial(c.ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	got, err := io.ReadAll(conn)
	if strings.TrimSpace(string(got)) != text {
		return errors.Join(err, fmt.Errorf("%s says %q, want %q", address, got, text))
	}
	return nil
}

func TestContainerBeforeTheDaemonLearnsWhatTheDaemonWaitsFor(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	h := c.host("host1")
	path := t.TempDir()
	flannel := plugintest.Flannel(t, path)
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","type":"flannel","subnetFile":%q,"dataDir":%q}`,
		h.SubnetFile(), path+"/saved")
	search := path + ":" + plugintest.Reference(t) // built here, where nobody takes the time
	call := func(verb string) string {
		start := time.Now()
		out, err := h.Exec(c.ctx, "sh", "-c",
			`printf %s "$2" | CNI_COMMAND=$0 CNI_CONTAINERID=c1 CNI_IFNAME=eth0 CNI_NETNS=/none CNI_PATH=$1 $3`,
			verb, search, conf, flannel)
		if took := time.Since(start); took > 30*time.Second { // a runtime waits for minutes
			t.Errorf("%s took %v, want an answer at once", verb, took)
		}
		if err == nil {
			return ""
		}
		return out
	}
	answers := func(verb, code string, parts ...string) {
		t.Helper()
		c.await(func() error {
			got := call(verb)
			for _, want := range append(parts, `"code": `+code) {
				if !strings.Contains(got, want) {
					return fmt.Errorf("%s: got %s, want %q in it", verb, got, want)
				}
			}
			return nil
		})
	}
	answers("ADD", "11", "flanneld is not running")
	answers("STATUS", "50", "flanneld is not running")

	nobody := must[net.Listener](t)(h.Listen("tcp", "127.0.0.1:0"))
	c.ok(nobody.Close())
	d := must[*lab.Daemon](t)(h.Flanneld("-etcd-endpoints", "http://"+nobody.Addr().String()))
	answers("ADD", "11", "flanneld is not ready: ", "etcd")
	answers("STATUS", "50", "flanneld is not ready: ", "etcd")
	c.ok(d.Stop(c.ctx))

	e := c.etcd(vxlanConfig)
	d = c.flanneld(h, e)
	c.await(func() error {
		if got := call("STATUS"); got != "" {
			return errors.New(got)
		}
		return nil
	})
	d.Kill()
	answers("STATUS", "51", "flanneld is not running", "start flanneld")
	if _, err := os.Stat(h.SubnetFile()); err != nil {
		t.Error(err)
	}
}
