package lab_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flanneld/api"
	"flanneld/lab"
)

// times are those in a message.
var times = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`)

// limitDescriptors sets how many descriptors a running process may have, and returns how many it might have.
func limitDescriptors(t *testing.T, p *lab.Process, most uint64) uint64 {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Prlimit(p.Pid(), unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	before := limit.Cur
	limit.Cur = most
	if err := unix.Prlimit(p.Pid(), unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	return before
}

// A daemon that gets no file descriptors any more, because another setting or a leak has taken them, does not end: it
// says so, packets flow, and once there are descriptors again it repairs what has happened meanwhile.
func TestADaemonWithoutFileDescriptorsWaitsForThem(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"vxlan", "udp"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			e := c.etcd(network{backend, lab.IPv4}.config())
			hosts := c.hosts(2)
			daemons := c.startAll(hosts, e, "-ip-masq")
			h, d := hosts[0], daemons[0]
			pods := c.pods(hosts...)
			c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
			c.wantState(d, api.StateReady, "")

			before := limitDescriptors(t, d.Process, 3)
			lines := strings.Count(d.Log(), "\n")
			// All that makes the daemon open something: a new connection to the store, the firewall, the subnet file, a link
			// that is gone.
			c.ok(os.Remove(h.SubnetFile()))
			c.ok(h.Run("nft delete table inet flannel"))
			e.Kill()
			c.ok(e.Start(c.ctx))
			c.await(func() error {
				if text := d.Log(); !strings.Contains(text, "too many open files") {
					return fmt.Errorf("the daemon does not say what it lacks:\n%s", text)
				}
				return nil
			})
			c.await(func() error {
				if n := strings.Count(d.Log(), "write file failed"); n == 0 {
					return errors.New("the subnet file is not missed")
				}
				return nil
			})
			c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
			select {
			case <-d.Done():
				t.Fatalf("the daemon has ended:\n%s", d.Log())
			default:
			}
			// Each error once, however often it is tried again.
			seen := map[string]bool{}
			for _, line := range strings.Split(d.Log(), "\n")[lines:] {
				if _, message, _ := strings.Cut(line, " "); strings.Contains(message, "too many open files") {
					message = times.ReplaceAllString(message, "")
					if seen[message] {
						t.Errorf("said twice: %s", message)
					}
					seen[message] = true
				}
			}

			limitDescriptors(t, d.Process, before)
			c.prints(h, "nft list tables", "flannel")
			c.wantState(d, api.StateReady, "")
			c.await(func() error {
				_, err := os.Stat(h.SubnetFile())
				return err
			})
			c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
			c.ok(d.Stop(c.ctx))
		})
	}
}
