package lab_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"flanneld/cni-plugin/plugintest"
	"flanneld/lab"
)

// block returns the first block of a language below a heading of a document.
func block(t testing.TB, file, heading, language string) string {
	t.Helper()
	page := string(must[[]byte](t)(os.ReadFile("../docs/" + file)))
	_, section, _ := strings.Cut(page, "\n## "+heading+"\n")
	m := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindStringSubmatch(section)
	if m == nil {
		t.Fatalf("docs/%s has no block of %s below %q", file, language, heading)
	}
	return m[1]
}

// halvedConfig is the configuration of docs/troubleshooting.md for a host whose subnet docker and CNI share, for the
// half that is CNI's.
func halvedConfig(t *testing.T, network, high netip.Prefix, dataDir string) []byte {
	t.Helper()
	text := block(t, "troubleshooting.md", "docker and CNI on one host use the same addresses", "json")
	text = strings.NewReplacer("10.5.34.128/25", high.String(), "10.5.0.0/16", network.String()).Replace(text)
	var config map[string]any
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		t.Fatalf("docs/troubleshooting.md: %v\n%s", err, text)
	}
	config["ipam"].(map[string]any)["dataDir"] = dataDir
	return must[[]byte](t)(json.Marshal(config))
}

// attach attaches a new namespace to a host by a CNI plugin, and returns its name and its address.
func (c *cluster) attach(h *lab.Host, config []byte) (string, netip.Addr) {
	c.t.Helper()
	plugins := plugintest.Reference(c.t)
	name := h.Name() + "-cni"
	c.ok(h.Run("ip netns add " + name))
	c.t.Cleanup(func() { _ = h.Run("ip netns delete " + name) })
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(c.ctx, filepath.Join(plugins, "bridge"))
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID=c2", "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/"+
		name, "CNI_PATH="+plugins)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(config), &out, &stderr
	if err := h.Do(cmd.Run); err != nil {
		c.t.Fatalf("bridge: %v: %s%s", err, out.String(), stderr.String())
	}
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil || len(result.IPs) != 1 {
		c.t.Fatalf("bridge: %v: %s", err, out.String())
	}
	return name, result.IPs[0].Address.Addr()
}

// Slow: dockerd starts, loads an image and starts a container.
func TestDockerAndCNIShareTheSubnetByHalves(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(network{"vxlan", lab.IPv4}.config())
	hosts := c.hosts(2)
	c.startAll(hosts, e, "-ip-masq")
	far, h := c.pods(hosts[1])[0], hosts[0]
	own := c.subnets(h)[0]
	low := netip.PrefixFrom(own.Addr(), own.Bits()+1)
	env, err := h.Env()
	c.ok(err)

	// What docker is started with: the subnet file with the first half.
	text := string(must[[]byte](t)(os.ReadFile(h.SubnetFile())))
	half := filepath.Join(h.Dir(), "half.env")
	first := netip.PrefixFrom(own.Addr().Next(), own.Bits()).String()
	c.ok(os.WriteFile(half, []byte(strings.Replace(text, first, netip.PrefixFrom(own.Addr().Next(), low.Bits()).String(),
		1)), 0o644))
	d := c.docker(h, "nft")
	d.start("-f", half)
	t.Cleanup(d.end)
	d.load()
	must[string](t)(d.ask("run", "-d", "--name", "c1", lab.PodImage))
	inDocker := must[netip.Addr](t)(netip.ParseAddr(must[string](t)(d.ask("inspect", "--format",
		"{{.NetworkSettings.IPAddress}}", "c1"))))

	high := netip.PrefixFrom(lastHalf(own), own.Bits()+1)
	name, inCNI := c.attach(h, halvedConfig(t, env.Networks[0], high, t.TempDir()))
	if !low.Contains(inDocker) || !high.Contains(inCNI) {
		t.Errorf("docker gives %s and CNI %s, want addresses of %s and %s", inDocker, inCNI, low, high)
	}
	for _, a := range []netip.Addr{inDocker, inCNI} {
		c.await(func() error { return far.Run("ping -c 1 -W 5 " + a.String()) })
	}
	c.await(func() error { return h.Run(fmt.Sprintf("ip netns exec %s ping -c 1 -W 5 %s", name, inDocker)) })
	for _, a := range []netip.Addr{inCNI, far.Addr()} {
		c.await(func() error {
			_, err := d.ask("exec", "c1", "/bin/busybox", "ping", "-c", "1", "-W", "5", a.String())
			return err
		})
	}
	c.marked(h, far, inCNI)
	for _, f := range c.doctor(h) {
		if f.Check == "bridge-addresses" && f.Result != "ok" {
			t.Errorf("doctor: %+v", f)
		}
	}
}

// likeDockersNftables is what docker's own nftables firewall does, with bridge-accept-fwmark, to packets for containers
// behind a bridge.
const likeDockersNftables = `table ip docker-bridges {
	chain filter-FORWARD {
		type filter hook forward priority filter
		oifname "cni0" ct state established,related accept
		oifname "cni0" meta mark and 0x200 == 0x200 accept
		oifname "cni0" iifname != "cni0" drop
	}
}
`

// marked shows that the table of docs/docker.md marks what docker's nftables firewall is to accept.
func (c *cluster) marked(h *lab.Host, far *lab.Pod, addr netip.Addr) {
	c.t.Helper()
	table := block(c.t, "docker.md", "docker 28 and later", "nft")
	for name, text := range map[string]string{"docker.nft": likeDockersNftables, "mark.nft": table} {
		c.ok(os.WriteFile(filepath.Join(h.Dir(), name), []byte(text), 0o644))
	}
	c.ok(h.Run("nft -f " + h.Dir() + "/docker.nft"))
	if far.Run("ping -c 1 -W 1 "+addr.String()) == nil {
		c.t.Error("a packet without a mark is accepted: the test shows nothing")
	}
	c.ok(h.Run("nft -f " + h.Dir() + "/mark.nft"))
	c.await(func() error { return far.Run("ping -c 1 -W 5 " + addr.String()) })
}

// lastHalf returns the first address of the second half of an IPv4 subnet.
func lastHalf(s netip.Prefix) netip.Addr {
	a := s.Addr().As4()
	a[s.Bits()/8] |= 0x80 >> (s.Bits() % 8)
	return netip.AddrFrom4(a)
}
