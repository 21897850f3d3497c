package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flanneld/lab"
	"flanneld/need"
)

// docker is the real one on a host of the lab, with one kind of iptables.
type docker struct {
	c    *cluster
	host *lab.Host
	dir  string
	kind string
	more []string // options of dockerd beside those of mk-docker-opts.sh
	run  *lab.Process
}

// inNamespace runs functions in a network namespace.
type inNamespace interface{ Do(f func() error) error }

// containerNet is the network namespace of a process.
type containerNet struct{ pid string }

// Do implements inNamespace.
func (n containerNet) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		file, err := os.Open("/proc/" + n.pid + "/ns/net")
		if err == nil {
			defer file.Close()
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// docker prepares one: its programs named iptables are of one kind.
func (c *cluster) docker(h *lab.Host, kind string) *docker {
	c.t.Helper()
	need.Program(c.t, "dockerd", "docker", "busybox", "iptables-"+kind, "ip6tables-"+kind)
	d := &docker{c: c, host: h, dir: filepath.Join(h.Dir(), "dk"), kind: kind}
	c.ok(os.MkdirAll(filepath.Join(d.dir, "bin"), 0o755))
	multi := must[string](c.t)(exec.LookPath("xtables-" + kind + "-multi"))
	for _, name := range []string{"iptables", "ip6tables", "iptables-save", "iptables-restore", "ip6tables-save",
		"ip6tables-restore"} {
		c.ok(os.Symlink(multi, filepath.Join(d.dir, "bin", name)))
	}
	return d
}

// start starts dockerd with what mk-docker-opts.sh makes of subnet.env, under the script's own options.
func (d *docker) start(options ...string) {
	d.c.t.Helper()
	path := "PATH=" + d.dir + "/bin:" + os.Getenv("PATH")
	script := append([]string{"env", path, "sh", "../dist/docker/mk-docker-opts.sh", "-f", d.host.SubnetFile(), "-d",
		d.dir + "/opts", "-c"}, options...)
	env := must[string](d.c.t)(d.host.Exec(d.c.ctx, script...))
	text, err := os.ReadFile(d.dir + "/opts")
	d.c.ok(err)
	_, flags, _ := strings.Cut(strings.Trim(string(text), " \"\n"), `="`)
	args := append([]string{
		"env", path, "DOCKER_MIN_API_VERSION=1.24", "dockerd", "--data-root", d.dir + "/data", "--exec-root", d.dir + "/run",
		"--pidfile", d.dir + "/pid", "-H", "unix://" + d.dir + "/sock", "--storage-driver", "vfs",
	}, append(strings.Fields(flags), d.more...)...)
	d.run = must[*lab.Process](d.c.t)(d.host.Start("dockerd", args...))
	d.c.await(func() error {
		select {
		case <-d.run.Done():
			d.c.t.Fatalf("dockerd has ended:\n%s%s", env, d.run.Log())
		default:
		}
		_, err := d.ask("version")
		return err
	})
}

func (d *docker) stop() { d.c.ok(d.run.Stop(d.c.ctx)) }

// end removes all containers, also after a test that has failed, and waits for the daemon.
func (d *docker) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if out, err := d.ask("ps", "-aq"); err == nil && strings.TrimSpace(out) != "" {
		_, _ = d.ask(append([]string{"rm", "-f"}, strings.Fields(out)...)...)
	}
	if err := d.run.Stop(ctx); err != nil {
		d.c.t.Log(err)
		d.run.Kill()
	}
}

func (d *docker) ask(args ...string) (string, error) {
	cmd := exec.CommandContext(d.c.ctx, "docker", append([]string{"-H", "unix://" + d.dir + "/sock"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (d *docker) load() {
	d.c.t.Helper()
	image, err := lab.PodArchive()
	d.c.ok(err)
	cmd := exec.CommandContext(d.c.ctx, "docker", "-H", "unix://"+d.dir+"/sock", "load")
	cmd.Stdin = bytes.NewReader(image)
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.c.t.Fatalf("docker load: %v: %s", err, out)
	}
}

// container runs one with a published port, and returns its network and its address.
func (d *docker) container(name string, publish string) (containerNet, netip.Addr) {
	d.c.t.Helper()
	must[string](d.c.t)(d.ask("run", "-d", "--name", name, "-p", publish, lab.PodImage))
	facts := strings.Fields(must[string](d.c.t)(d.ask("inspect", "--format",
		"{{.State.Pid}} {{.NetworkSettings.IPAddress}}", name)))
	return containerNet{facts[0]}, netip.MustParseAddr(facts[1])
}

// accepted says why our accept rules are not where they belong: once, in docker's chain for others.
func (d *docker) accepted() error {
	out, err := d.host.Output("iptables-" + d.kind + " -w -S")
	if err != nil {
		return err
	}
	if strings.Count(out, "-j FLANNELD-FORWARD") != 1 ||
		!strings.Contains(out, "-A DOCKER-USER -j FLANNELD-FORWARD\n-A DOCKER-USER -j RETURN\n") {
		return fmt.Errorf("the accept rules are not where they belong:\n%s", out)
	}
	return nil
}

// Slow: dockerd is started twice, loads an image and starts containers.
func TestDockerBesideTheFirewall(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"nft", "legacy"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newFirewallSite(t, network{"vxlan", lab.IPv4}, "-ip-masq", "-iptables-resync", "1")
			h := s.hosts[0]
			s.ok(h.Run("ip link del cni0"))            // its address is docker's
			s.ok(h.Sysctl("net/ipv4/ip_forward", "0")) // docker turns it on, and then has the policy drop
			d := s.docker(h, kind)
			d.start()
			t.Cleanup(func() { d.end() })
			d.load()
			inside, addr := d.container("c1", "8080:9000/udp")
			far := s.pods[1][0]
			sources := func(when string) {
				t.Helper()
				s.await(d.accepted)
				for _, p := range []path{
					{"container to a pod of another host", arrival{from: inside, to: far, at: at(far.Addr(), 9000)}, addr},
					{"pod of another host to a port that docker has not published", arrival{from: far, to: inside, at: at(addr, 9001)},
						far.Addr()},
					{"container to the outside", arrival{from: inside, to: s.outsider, at: at(s.outsider.Addr, 9000)}, h.Addr},
					{"outside to a published port", arrival{from: s.outsider, dst: at(h.Addr, 8080), to: inside, at: at(addr, 9000)},
						s.outsider.Addr},
					{"another host to a container", arrival{from: s.hosts[1], to: inside, at: at(addr, 9000)}, s.tunnelAddr(1, 0)},
				} {
					p.way.within = 5 * time.Second
					if got := p.way.see(t); got != p.want {
						t.Errorf("%s: %s: %s arrives, want %s", when, p.name, got, p.want)
					}
				}
			}
			sources("docker after the daemon")
			s.ok(s.daemons[0].Stop(s.ctx))
			s.ok(h.Run("nft delete table inet flannel"))
			s.daemons[0] = s.flanneld(h, s.etcd, "-ip-masq", "-iptables-resync", "1")
			sources("the daemon after docker")
			must[string](t)(d.ask("rm", "-f", "c1"))
			d.stop()
			s.ok(h.Run("iptables-"+kind+" -w -F FORWARD", "iptables-"+kind+" -w -F DOCKER-USER"))
			d.start()
			inside, addr = d.container("c2", "8080:9000/udp")
			sources("docker started again after a flush")

			s.restart(0, "-ip-masq", "-iptables-forward-rules=false")
			s.await(func() error {
				if (arrival{from: far, to: inside, at: at(addr, 9001), within: silence}).see(t).IsValid() {
					return errors.New("docker lets through what -iptables-forward-rules=false no longer accepts")
				}
				return nil
			})
		})
	}
}

// Slow: two dockerd start, load an image and start containers.
func TestContainersOfDockerReachEachOtherInBothFamilies(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	n := network{"vxlan", lab.Dual}
	e := c.etcd(n.config())
	hosts := c.hosts(2)
	c.startAll(hosts, e, "-ip-masq")
	dockers, addrs := make([]*docker, len(hosts)), make([][]string, len(hosts))
	for i, h := range hosts {
		d := c.docker(h, "nft")
		d.start("-6")
		t.Cleanup(d.end)
		d.load()
		must[string](t)(d.ask("run", "-d", "--name", "c1", lab.PodImage))
		facts := must[string](t)(d.ask("inspect", "--format",
			"{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}", "c1"))
		dockers[i], addrs[i] = d, strings.Fields(facts)
		for family, p := range c.subnets(h) {
			if a := must[netip.Addr](t)(netip.ParseAddr(addrs[i][family])); !p.Contains(a) {
				t.Errorf("host %d: the container has %s, which is not in %s", i+1, a, p)
			}
		}
	}
	for i, d := range dockers {
		for _, a := range addrs[1-i] {
			// Full packets: what docker gives its network is the MTU of the tunnel.
			size := n.mtu() - 28
			if strings.Contains(a, ":") {
				size = n.mtu() - 48
			}
			c.await(func() error {
				_, err := d.ask("exec", "c1", "/bin/busybox", "ping", "-c", "3", "-i", "0.2", "-W", "5", "-s", fmt.Sprint(size), a)
				return err
			})
		}
	}
}
