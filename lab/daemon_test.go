package lab_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"flanneld/lab"
	"flanneld/subnet"
)

// Slow: the programs are built with the flags of a release.
func TestTheReleasedProgramIsSmallAndKnowsItsVersion(t *testing.T) {
	t.Parallel()
	const most = 44 << 20 // bytes, with the embedded etcd and the client of Kubernetes in it
	dir := t.TempDir()
	cmd := exec.Command("make", "-C", "..", "build", "BUILD="+dir, "VERSION=v9.8.7")
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program := filepath.Join(dir, "flanneld")
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > most {
		t.Errorf("%d bytes, at most %d", info.Size(), most)
	}
	for _, name := range []string{"-version", "--version"} {
		var out, more strings.Builder
		cmd := exec.Command(program, name)
		cmd.Stdout, cmd.Stderr = &out, &more
		if err := cmd.Run(); out.String() != "v9.8.7\n" || err != nil {
			t.Errorf("%s prints %q, %v; want the version and nothing else, for scripts", name, &out, err)
		}
		if want := "go " + runtime.Version() + " linux/" + runtime.GOARCH + "\n"; !strings.HasSuffix(more.String(), want) {
			t.Errorf("%s prints %q to standard error, want %q at the end", name, &more, want)
		}
	}
}

func TestWrongFlagsEndTheDaemonWithUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-no-such-flag":                 "flanneld -help",
		"--subnet-lease-renew-margin=0": "subnet-lease-renew-margin",
		"-kube-annotation-prefix=a/b/c": "kube-annotation-prefix",
	} {
		out, err := exec.Command(binaries.Flanneld, args).CombinedOutput()
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), want) {
			t.Errorf("flanneld %s: %v\n%s", args, err, out)
		}
	}
}

// wantWaiting waits until the daemon says, where an operator looks, what it waits for.
func (c *cluster) wantWaiting(d *lab.Daemon, text string) {
	c.t.Helper()
	c.await(func() error {
		code, body, err := d.Get(c.ctx, "/readyz")
		if err == nil && (code != http.StatusServiceUnavailable || !strings.Contains(body, text)) {
			err = fmt.Errorf("/readyz says %d %s, want %q", code, body, text)
		}
		return err
	})
	c.await(func() error {
		if s := d.Status(); !strings.Contains(s, text) {
			return fmt.Errorf("status %q, want %q", s, text)
		}
		return nil
	})
	if code, _, err := d.Get(c.ctx, "/healthz"); code != http.StatusOK || err != nil {
		c.t.Errorf("/healthz says %d, %v", code, err)
	}
}

func TestTheDaemonWaitsForStoreConfigurationAndInterfaceAndSaysSo(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd("")
	h := c.host("host1")
	c.ok(h.Run("ip addr flush dev eth0"))
	e.Kill()
	d := c.start(h, e, "-iface", "eth0")
	c.wantWaiting(d, "store unreachable since")
	c.ok(e.Start(c.ctx))

	// etcd cannot be reached without an address either.
	c.ok(h.Run(fmt.Sprintf("ip addr add %s/16 dev eth0", h.Addr)))
	c.wantWaiting(d, "network configuration /coreos.com/network/config is missing")
	c.ok(e.Put(c.ctx, "config", `{"Network":"10.5.0.0/33"}`))
	c.wantWaiting(d, `Network`)
	c.ok(e.Put(c.ctx, "config", `{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0","Backend":{"Type":"vxlan"}}`))
	c.wantWaiting(d, "SubnetMin")
	c.ok(e.Put(c.ctx, "config", vxlanConfig))
	c.ok(d.Ready(c.ctx))
	if code, body, err := d.Get(c.ctx, "/readyz"); code != http.StatusOK || err != nil {
		t.Errorf("/readyz says %d %s, %v", code, body, err)
	}
}

func TestAnInterfaceWithoutAnAddressIsWaitedFor(t *testing.T) {
	t.Parallel()
	inEachFamily(t, interfaceWithoutAnAddressIsWaitedFor)
}

func interfaceWithoutAnAddressIsWaitedFor(t *testing.T, n network) {
	c := newClusterWith(t, lab.Options{Families: n.families})
	e := c.etcd(n.config())
	h := c.host("host1")
	lacks, addr, bits := "late0 has no IPv4 address", "203.0.113.7", "/24"
	if n.families == lab.IPv6 {
		lacks, addr, bits = "late0 has no IPv6 address", "2001:db8:7::7", "/64"
	}
	c.ok(h.Run("ip link add late0 type veth peer name late1"))
	// An IPv6 address is checked for duplicates first, as at every boot.
	c.ok(errors.Join(h.Sysctl("net/ipv6/conf/late0/accept_dad", "1"), h.Sysctl("net/ipv6/conf/late0/dad_transmits", "1")))
	d := c.start(h, e, "-iface", "late0")
	c.wantWaiting(d, "-iface late0: late0 is down")
	c.ok(h.Run("ip link set late1 up", "ip link set late0 up"))
	c.wantWaiting(d, lacks)
	c.ok(h.Run("ip addr add " + addr + bits + " dev late0"))
	c.ok(d.Ready(c.ctx))
	if out := must[string](t)(h.Output("ip -d link show " + n.devices()[0])); !strings.Contains(out, "local "+addr+
		" dev late0") {
		t.Errorf("device: %s", out)
	}
}

func TestTheInterfaceIsChosenByEveryRule(t *testing.T) {
	t.Parallel()
	inEachFamily(t, interfaceIsChosen)
}

func interfaceIsChosen(t *testing.T, n network) {
	c := newClusterWith(t, lab.Options{Families: n.families})
	e := c.etcd(n.config())
	h := c.host("host1")
	words := strings.NewReplacer("ADDR", "203.0.113.7", "LEN", "24", "GATEWAY", "203.0.113.1", "PATTERN", "^203\\.",
		"ROUTER", "198.18.0.1", "PUBLIC", "-public-ip")
	if n.families == lab.IPv6 {
		words = strings.NewReplacer("ADDR", "2001:db8:7::7", "LEN", "64", "GATEWAY", "2001:db8:7::1", "PATTERN",
			"^2001:db8:7:",
			"ROUTER", "fd00:18::1", "PUBLIC", "-public-ipv6")
	}
	far := map[lab.Families][2]string{lab.IPv4: {"192.0.2.0/24", "192.0.2.5"},
		lab.IPv6: {"2001:db8:9::/64", "2001:db8:9::5"}}[n.families]
	c.ok(h.Run("ip link add other type veth peer name other1", "ip link set other1 up", "ip link set other up",
		words.Replace("ip addr add ADDR/LEN dev other"), "ip route add "+far[0]+words.Replace(" via GATEWAY dev other")))
	for _, tt := range []struct{ flag, link, reason string }{
		{"", "eth0", "default route via ROUTER dev eth0"},
		{"-iface=other", "other", "-iface other"},
		{"-iface=ADDR", "other", "-iface ADDR, which other has"},
		{"-iface=nosuch,eth0", "eth0", "-iface eth0"},
		{"-iface-regex=PATTERN", "other", "-iface-regex"},
		{"-iface-can-reach=" + far[1], "other", "-iface-can-reach " + far[1] + ": route via GATEWAY dev other"},
		{"PUBLIC=ADDR", "other", "it has the public IP ADDR"},
	} {
		t.Run(tt.flag, func(t *testing.T) {
			var args []string
			if tt.flag != "" {
				args = []string{words.Replace(tt.flag)}
			}
			d := c.flanneld(h, e, args...)
			if out := must[string](t)(h.Output("ip -d link show " + n.devices()[0])); !strings.Contains(out, " dev "+tt.link+
				" ") {
				t.Errorf("device: %s", out)
			}
			if want := words.Replace(tt.reason); !strings.Contains(d.Log(), want) {
				t.Errorf("the log does not say %q:\n%s", want, d.Log())
			}
			c.ok(d.Stop(c.ctx))
		})
	}
}

func TestTheMTUFollowsTheUnderlayAndTheOption(t *testing.T) {
	t.Parallel()
	inEachFamily(t, mtuFollows)
}

func mtuFollows(t *testing.T, n network) {
	for _, tt := range []struct {
		underlay int
		backend  string
		want     int // of the underlay
	}{
		{1500, `"vxlan"`, 1500},
		{9000, `"vxlan"`, 9000},
		{1500, `"vxlan","MTU":1400`, 1400},
	} {
		c := newClusterWith(t, lab.Options{MTU: tt.underlay, Families: n.families})
		e := c.etcd(strings.Replace(n.config(), `"vxlan"`, tt.backend, 1))
		h := c.host("host1")
		c.flanneld(h, e)
		want := tt.want - 1500 + n.mtu()
		if got := must[subnet.Env](t)(h.Env()).MTU; got != want {
			t.Errorf("underlay %d, %s: subnet.env has %d, want %d", tt.underlay, tt.backend, got, want)
		}
		if out := must[string](t)(h.Output("ip link show " + n.devices()[0])); !strings.Contains(out,
			fmt.Sprint("mtu ", want, " ")) {
			t.Errorf("device: %s", out)
		}
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	h := c.host("host1")
	d := must[*lab.Daemon](t)(h.Flanneld("-etcd-endpoints", "http://198.18.0.1:1", "-etcd-username",
		"somebody", "-etcd-password", "hunter2", "-v", "1"))
	c.wantWaiting(d, "store unreachable since")
	c.ok(d.Stop(c.ctx))
	if strings.Contains(d.Log(), "hunter2") || strings.Contains(d.Status(), "hunter2") {
		t.Errorf("the password is printed:\n%s", d.Log())
	}
	if !strings.Contains(d.Log(), "etcd-endpoints=http://198.18.0.1:1") {
		t.Errorf("the effective values are not logged:\n%s", d.Log())
	}
}

func TestAClusterRunsOnTheEmbeddedStore(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hosts := c.hosts(2)
	daemons, before := c.embedded(hosts)
	pods := c.pods(hosts...)
	_, err := pods[0].Ping(c.ctx, pods[1].Addr(), lab.PingOptions{})
	c.ok(err)

	// The store comes back with its host, with all that was in it.
	pings := must[*lab.Pings](t)(pods[0].Pings(pods[1].Addr(), lab.PingOptions{}))
	c.ok(daemons[0].Stop(c.ctx))
	again := netip.AddrPortFrom(hosts[0].Addr, 2379).String()
	c.ok(must[*lab.Daemon](t)(hosts[0].Flanneld("-etcd-embedded", "-etcd-embedded-listen", again)).Ready(c.ctx))
	c.await(func() error {
		if code, body, err := daemons[1].Get(c.ctx, "/readyz"); code != http.StatusOK {
			return fmt.Errorf("/readyz of the second host: %d %s %w", code, body, err)
		}
		return nil
	})
	if s := pings.Stop(); s.Lost() > 0 {
		t.Error(s)
	}
	for i, h := range hosts {
		if got := c.subnets(h); !slices.Equal(got, before[i]) {
			t.Errorf("host %d has %s, before %s", i+1, got, before[i])
		}
	}
}
