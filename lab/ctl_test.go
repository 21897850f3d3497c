package lab_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// ctl runs flannelctl on a host, and returns what it prints and its exit code.
func (c *cluster) ctl(h *lab.Host, args ...string) (string, int) {
	c.t.Helper()
	args = append([]string{binaries.Flannelctl, "--subnet-file", h.SubnetFile(), "--state-dir", h.StateDir()}, args...)
	out, err := h.Exec(c.ctx, args...)
	exit := (*exec.ExitError)(nil)
	switch {
	case errors.As(err, &exit):
		return out + err.Error(), exit.ExitCode()
	case err != nil:
		c.t.Fatal(err)
	}
	return out, 0
}

// ctlOK runs flannelctl and fails the test unless it exits with 0.
func (c *cluster) ctlOK(h *lab.Host, args ...string) string {
	c.t.Helper()
	out, code := c.ctl(h, args...)
	if code != 0 {
		c.t.Fatalf("flannelctl %s exits with %d:\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// ctlJSON reads what flannelctl prints as JSON.
func ctlJSON[T any](c *cluster, h *lab.Host, args ...string) T {
	c.t.Helper()
	out, code := c.ctl(h, append(args, "--json")...)
	// with these there is an answer, too: something is not ready or not reached, or degraded
	if code != 0 && code != 3 && code != 5 {
		c.t.Fatalf("flannelctl %s exits with %d:\n%s", strings.Join(args, " "), code, out)
	}
	var v T
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&v); err != nil {
		c.t.Fatalf("flannelctl %s --json prints no JSON: %v\n%s", strings.Join(args, " "), err, out)
	}
	return v
}

// refused runs flannelctl and fails the test unless it exits with the code and says so.
func (c *cluster) refused(h *lab.Host, code int, says string, args ...string) {
	c.t.Helper()
	out, got := c.ctl(h, args...)
	if got != code || !strings.Contains(out, says) {
		c.t.Errorf("flannelctl %s exits with %d, want %d and %q:\n%s", strings.Join(args, " "), got, code, says, out)
	}
}

func TestFlannelctlShowsAndChangesAHealthyCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(3)
	c.startAll(hosts, e)
	c.await(func() error {
		for _, h := range hosts {
			if n := len(ctlJSON[[]api.Peer](c, h, "peers")); n != 2 {
				return fmt.Errorf("%d peers, want 2", n)
			}
		}
		return nil
	})
	a := hosts[0]
	t.Run("status, peers and leases", func(t *testing.T) { c.shows(a) })
	t.Run("the network configuration", func(t *testing.T) { c.network(a) })
	t.Run("reservations", func(t *testing.T) { c.reservations(a, hosts[1]) })
	t.Run("bundle", func(t *testing.T) { c.bundles(a) })
	t.Run("version", func(t *testing.T) { c.versions(a) })
	t.Run("no daemon", func(t *testing.T) {
		c.refused(a, 4, "no daemon answers", "status", "--subnet-file", "/nonexistent/subnet.env")
		c.refused(a, 2, "unknown flag", "status", "--nonsense")
		c.refused(a, 2, "want 1 argument", "leases", "history")
	})
}

// versions looks at those of flannelctl and of the daemon, which were built together.
func (c *cluster) versions(h *lab.Host) {
	type build struct{ Version, Commit, Date, Go string }
	v := ctlJSON[struct {
		build
		Daemon build
	}](c, h, "version")
	if v.build != v.Daemon || v.Version != "lab" || v.Go == "" {
		c.t.Errorf("flannelctl is %+v and the daemon %+v, want both as they were built", v.build, v.Daemon)
	}
	out := c.ctlOK(h, "version")
	if !strings.Contains(out, "flannelctl lab\n") || !strings.Contains(out, "flanneld lab\n") {
		c.t.Errorf("flannelctl version prints\n%s", out)
	}
	out = c.ctlOK(h, "version", "--subnet-file", "/nonexistent/subnet.env")
	if !strings.Contains(out, "flannelctl lab\n") || !strings.Contains(out, "flanneld: no daemon answers") {
		c.t.Errorf("flannelctl version without a daemon prints\n%s", out)
	}
}

func (c *cluster) shows(h *lab.Host) {
	s := ctlJSON[api.Status](c, h, "status")
	if !s.Ready || s.Peers != 2 || s.Failing != 0 || len(s.Subnets) != 1 || s.Lease.Until == nil || s.MTU != 1450 ||
		s.Backend != "vxlan" {
		c.t.Errorf("status is %+v", s)
	}
	for _, text := range []string{"ready", "10.5.0.0/16", "flannel.1 mtu 1450", "2 installed, 0 not installed", "left"} {
		if out := c.ctlOK(h, "status"); !strings.Contains(out, text) {
			c.t.Errorf("status does not say %q:\n%s", text, out)
		}
	}
	if out := c.ctlOK(h, "peers"); strings.Count(out, "yes") != 2 {
		c.t.Errorf("peers are not both programmed:\n%s", out)
	}
	if out := c.ctlOK(h, "leases"); strings.Count(out, "lease") != 3 || !strings.Contains(out, "this host") {
		c.t.Errorf("leases are not three:\n%s", out)
	}
	if out := c.ctlOK(h, "status", "-o", "yaml"); !strings.Contains(out, "\nready: true\n") {
		c.t.Errorf("status is no YAML:\n%s", out)
	}
	if out := c.ctlOK(h, "leases", "history", s.Subnets[0].String()); !strings.Contains(out, s.PublicIPs[0].String()) {
		c.t.Errorf("the history of %s does not name %s:\n%s", s.Subnets[0], s.PublicIPs[0], out)
	}
}

func (c *cluster) bundles(h *lab.Host) {
	file := filepath.Join(h.Dir(), "bundle.tar.gz")
	c.ctlOK(h, "bundle", "-f", file)
	names := must[string](c.t)(h.Output("tar tzf " + file))
	for _, want := range []string{"status.json", "peers.json", "leases.json", "events.json", "doctor.txt", "subnet.env",
		"host/ip_addr_show.txt"} {
		if !strings.Contains(names, "flannel/"+want+"\n") {
			c.t.Errorf("the bundle has no %s:\n%s", want, names)
		}
	}
	info, err := os.Stat(file)
	if c.ok(err); info.Mode() != 0o600 {
		c.t.Errorf("the bundle has mode %v, want 0600", info.Mode())
	}
	c.refused(h, 1, "exists", "bundle", "-f", file)
}

func (c *cluster) network(h *lab.Host) {
	c.refused(h, 1, "SubnetLen", "network", "validate", `{"Network":"10.5.0.0/16","SubnetLen":8}`)
	c.refused(h, 1, "not available", "network", "validate",
		`{"Network":"10.5.0.0/16","Backend":{"Type":"carrier-pigeon"}}`)
	c.refused(h, 1, "VNI", "network", "set", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":-1}}`)
	c.refused(h, 1, "unusable", "network", "set", `{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan"}}`)
	if got := strings.Join(strings.Fields(c.ctlOK(h, "network", "get")), ""); got != vxlanConfig {
		c.t.Errorf("the configuration is %s, want it unchanged", got)
	}
	c.ctlOK(h, "network", "set", `{"Network":"10.5.0.0/16","SubnetMin":"10.5.16.0","Backend":{"Type":"vxlan"}}`, "--force")
	c.ctlOK(h, "network", "set", vxlanConfig)
}

func (c *cluster) reservations(h, other *lab.Host) {
	s := ctlJSON[api.Status](c, other, "status")
	own := s.Subnets[0].String()
	c.refused(h, 1, "is held by", "leases", "reserve", "198.18.0.77", own)
	c.refused(h, 1, "want a /24", "leases", "reserve", "198.18.0.77", "10.5.250.0/25")
	c.refused(h, 1, "is the lease of", "leases", "release", own)
	c.ctlOK(h, "leases", "reserve", "198.18.0.77", "10.5.250.0/24")
	if out := c.ctlOK(h, "leases", "reserve", "198.18.0.77", "10.5.250.0/24"); !strings.Contains(out, "already") {
		c.t.Errorf("the second reservation says %s", out)
	}
	c.ctlOK(h, "leases", "release", "10.5.250.0/24")
	c.ctlOK(h, "leases", "reserve", s.PublicIPs[0].String(), own)
	c.await(func() error {
		if s := ctlJSON[api.Status](c, other, "status"); !s.Lease.Reservation {
			return errors.New("the lease has not become a reservation")
		}
		return nil
	})
}

func TestFlannelctlCompletes(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out, err := exec.Command(binaries.Flannelctl, "completion", shell).Output(); err != nil || len(out) < 1000 {
			t.Errorf("no completion for %s: %v", shell, err)
		}
	}
}

func TestADrainedHostLeavesItsSubnetToOthers(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(`{"Network":"10.5.0.0/28","SubnetLen":30,"Backend":{"Type":"vxlan"}}`) // three subnets
	hosts := c.hosts(4)
	daemons := c.startAll(hosts[:3], e)
	last := c.start(hosts[3], e)
	c.await(func() error {
		if !strings.Contains(last.Status(), "no free subnet") {
			return fmt.Errorf("the fourth host says %q", last.Status())
		}
		return nil
	})
	c.refused(hosts[3], 3, "no free subnet", "status")
	freed := ctlJSON[api.Status](c, hosts[0], "status").Subnets[0]
	c.ctlOK(hosts[0], "drain")
	c.ok(last.Ready(c.ctx))
	if got := ctlJSON[api.Status](c, hosts[3], "status").Subnets; len(got) != 1 || got[0] != freed {
		t.Errorf("the fourth host has %v, want %s", got, freed)
	}
	c.refused(hosts[0], 3, "drained", "status")
	code, text, err := daemons[0].Get(c.ctx, "/readyz")
	if c.ok(err); code != 503 || !strings.Contains(text, "drained") {
		t.Errorf("/readyz of the drained host is %d %q", code, text)
	}
	if out := must[string](t)(hosts[0].Output("ip -o link show type vxlan")); out != "" {
		t.Errorf("the drained host has a device:\n%s", out)
	}
	c.refused(hosts[0], 1, "flanneld runs", "cleanup")
	c.ok(daemons[0].Stop(c.ctx))
	c.refused(hosts[0], 4, "no daemon answers", "drain")
}

// dates are the lines of iptables-save that are new each time.
var dates = regexp.MustCompile(`(?m)^# (Generated|Completed) .*\n`)

// kernelState is all that a daemon may have changed in a host's kernel.
func (c *cluster) kernelState(h *lab.Host) string {
	c.t.Helper()
	var b strings.Builder
	for _, command := range []string{
		"ip -d link show", "ip addr show", "ip route show table all", "ip -6 route show table all",
		"ip rule show", "ip neigh show nud permanent",
		"bridge fdb show", "nft list ruleset", "iptables-nft-save", "ip6tables-nft-save",
	} {
		fmt.Fprintf(&b, "# %s\n%s", command, dates.ReplaceAllString(must[string](c.t)(h.Output(command)), ""))
	}
	return b.String()
}

// hostState is the kernel's and that of the daemon's files.
func (c *cluster) hostState(h *lab.Host) string {
	c.t.Helper()
	out := c.kernelState(h)
	for _, dir := range []string{filepath.Dir(h.SubnetFile()), h.StateDir()} {
		files, _ := filepath.Glob(dir + "/*")
		out += fmt.Sprintln(dir, files)
	}
	return out
}

func TestCleanupLeavesNoTraceOfAnyBackend(t *testing.T) {
	t.Parallel()
	backends := []string{"vxlan", "host-gw", "udp", "wireguard", "alloc"}
	if kernelHasAll {
		backends = append(backends, "ipip")
		// The first device gives each namespace the device tunl0.
		must[[]byte](t)(exec.Command("modprobe", "ipip").CombinedOutput())
	}
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			n, peers := network{backend, familiesOf(backend)}, 2
			if n.families == lab.IPv4 {
				peers = 1
			}
			c := newClusterWith(t, lab.Options{Families: n.families})
			e := c.etcd(n.config())
			hosts := c.hosts(2)
			h := hosts[0]
			before, drained := c.hostState(h), c.kernelState(hosts[1])
			daemons := c.startAll(hosts, e, "-ip-masq")
			c.await(func() error {
				if s := ctlJSON[api.Status](c, h, "status"); s.Peers != peers {
					return errors.New("not all subnets of the peer yet")
				}
				return nil
			})
			c.ctlOK(hosts[1], "drain")
			if got := c.kernelState(hosts[1]); got != drained {
				t.Errorf("before the first start:\n%s\nafter drain:\n%s", drained, got)
			}
			c.ok(daemons[0].Stop(c.ctx))
			during := c.hostState(h)
			c.ctlOK(h, "cleanup", "--dry-run")
			if got := c.hostState(h); got != during {
				t.Errorf("a dry run changed the host from\n%s\nto\n%s", during, got)
			}
			out := c.ctlOK(h, "cleanup")
			if got := c.hostState(h); got != before {
				t.Errorf("before the first start:\n%s\nafter cleanup (%s):\n%s", before, out, got)
			}
			if _, err := os.Stat(h.StateDir()); err == nil {
				t.Error("the state folder is still there")
			}
			if out := c.ctlOK(h, "cleanup"); !strings.Contains(out, "nothing to remove") {
				t.Errorf("the second cleanup says %s", out)
			}
		})
	}
}
