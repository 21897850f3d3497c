//go:build kubernetes

package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"flanneld/lab"
	"flanneld/subnet"
)

// TestANetworkMovesOverTheKubernetesAPI moves a network from vxlan to host-gw and back, as docs/change-backend.md says:
// what flannelctl prints goes into the ConfigMap, and comes to each node in its own time. The API server is a real one;
// daemons run on hosts of the lab, and all pods ping all the time.
func TestANetworkMovesOverTheKubernetesAPI(t *testing.T) {
	s := newStory(t, clusterOptions{bare: true})
	b := &backends{move: &move{story: s}}
	s.run(t, []step{
		{"a network has its configuration in a ConfigMap", b.begin},
		{"nodes offer host-gw in annotations", b.offer},
		{"the move goes on from another node, to host-gw", func(t *testing.T) { b.to(t, 1, "host-gw") }},
		{"a move back is stopped when nodes send by vxlan, and given up", b.abort},
		{"the network moves back to vxlan", func(t *testing.T) { b.to(t, 2, "vxlan") }},
		{"nothing is lost, no daemon was restarted, no annotation is left", b.end},
	})
}

// backends is a network of three nodes whose configuration is a ConfigMap.
type backends struct {
	*move
	commands int
	changes  int // of the ConfigMap
	pings    []*lab.Pings
}

func (b *backends) begin(*testing.T) {
	p := b.plane
	b.startStore()
	p.serve(b.store)
	b.bin = lab.Built(filepath.Dir(p.bin))
	for out, pkg := range map[string]string{b.bin.Flanneld: "flanneld/cmd/flanneld",
		b.bin.Flannelctl: "flanneld/cmd/flannelctl"} {
		p.ok(lab.GoBuild(b.ctx, out, pkg))
	}
	b.apply("{apiVersion: v1, kind: Namespace, metadata: {name: kube-flannel}}")
	for i := range 3 {
		h, err := b.lab.Host(fmt.Sprintf("host%d", i+1))
		p.ok(err)
		b.hosts, b.daemons = append(b.hosts, h), append(b.daemons, nil)
		b.apply(fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: %s}, spec: {podCIDR: 10.244.%d.0/24, "+
			"podCIDRs: [10.244.%[2]d.0/24]}}", b.nameOf(i), i))
	}
	b.configure(moveNetwork)
	for i, h := range b.hosts {
		b.start(b.whole, i, "-kube-subnet-mgr", "-net-config-path", b.file(i), "-kubeconfig-file",
			p.config(h.Name(), h.Name(), "system:masters"))
	}
	for i := range b.hosts {
		b.awaitPeers(i, len(b.hosts)-1)
	}
	var err error
	b.boxes, err = lab.Pods(b.hosts...)
	p.ok(err)
	env, err := b.hosts[0].Env()
	p.ok(err)
	for _, from := range b.boxes {
		for _, to := range b.boxes {
			if from == to {
				continue
			}
			_, err := from.Ping(b.ctx, to.Addr(), lab.PingOptions{})
			p.ok(err)
			ping, err := from.Pings(to.Addr(), lab.PingOptions{Size: env.MTU})
			p.ok(err)
			b.pings = append(b.pings, ping)
		}
	}
}

// file is where node i has the network configuration.
func (b *backends) file(i int) string {
	return filepath.Join(b.hosts[i].Dir(), "kube-flannel", "net-conf.json")
}

// configure changes the ConfigMap, and brings it to one node after the other as kubelet does: the file is a link to
// another link, which is exchanged.
func (b *backends) configure(text string) {
	p := b.plane
	p.t.Helper()
	data, err := json.Marshal(text)
	p.ok(err)
	b.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: kube-flannel-cfg, namespace: kube-flannel}, " +
		"data: {net-conf.json: " + string(data) + "}}")
	b.changes++
	for i := range b.hosts {
		i = (i + b.changes) % len(b.hosts)
		text := p.must("--namespace=kube-flannel", "get", "configmap", "kube-flannel-cfg",
			`--output=jsonpath={.data.net-conf\.json}`)
		dir, version := filepath.Dir(b.file(i)), fmt.Sprintf("..%d", b.changes)
		p.ok(os.MkdirAll(filepath.Join(dir, version), 0o755))
		p.ok(os.WriteFile(filepath.Join(dir, version, "net-conf.json"), []byte(text), 0o644))
		p.ok(os.Symlink(version, filepath.Join(dir, "..tmp")))
		p.ok(os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
		if b.changes == 1 {
			p.ok(os.Symlink(filepath.Join("..data", "net-conf.json"), b.file(i)))
		} else {
			b.followed(i, text)
		}
	}
}

// followed waits until a daemon has a network configuration.
func (b *backends) followed(i int, text string) {
	b.plane.t.Helper()
	want, err := subnet.ParseConfig([]byte(text))
	b.plane.ok(err)
	b.plane.await(func() error {
		log := b.daemons[i].Log()
		last := log[strings.LastIndex(log, "network configuration changed")+1:]
		last, _, _ = strings.Cut(last, "\n")
		if kinds := fmt.Sprint(want.Kinds()); !strings.Contains(last, kinds) {
			return fmt.Errorf("%s has not followed to %s: %s", b.hosts[i].Name(), kinds, last)
		}
		return nil
	})
}

// migrate starts the command on a node.
func (b *backends) migrate(i int, args ...string) *lab.Process {
	p, h := b.plane, b.hosts[i]
	p.t.Helper()
	b.commands++
	command := []string{b.bin.Flannelctl, "--subnet-file", h.SubnetFile(), "--state-dir", h.StateDir(), "network",
		"migrate", "--pause", "1s", "--timeout", "2m"}
	c, err := h.Start(fmt.Sprintf("migrate%d", b.commands), append(command, args...)...)
	p.ok(err)
	return c
}

// asked waits until the command asks for the nth change of the ConfigMap, and returns the text; empty: it has ended.
func (b *backends) asked(c *lab.Process, n int) (text string) {
	b.plane.t.Helper()
	b.plane.await(func() error {
		select {
		case <-c.Done():
			return nil
		default:
		}
		parts := strings.Split(c.Log(), "write this to the ConfigMap, under net-conf.json,")
		if len(parts) <= n {
			return fmt.Errorf("the command does not go on:\n%s", c.Log())
		}
		text, _, _ = strings.Cut(parts[n], "\nwaiting for "+filepath.Dir(b.hosts[0].Dir()))
		if len(text) == len(parts[n]) {
			return fmt.Errorf("the command has not said all:\n%s", c.Log())
		}
		_, text, _ = strings.Cut(text, ":\n")
		return nil
	})
	return text
}

// finish does what a command asks for until it has ended.
func (b *backends) finish(t *testing.T, c *lab.Process) {
	t.Helper()
	for n := 1; ; n++ {
		text := b.asked(c, n)
		if text == "" {
			break
		}
		b.configure(text)
	}
	if code, err := c.Wait(b.ctx); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v:\n%s", code, err, c.Log())
	}
	t.Log(c.Log())
}

// offer begins the move to host-gw, and stops the command when all have followed.
func (b *backends) offer(t *testing.T) {
	c := b.migrate(0, "--to", `{"Type": "host-gw"}`)
	b.configure(b.asked(c, 1))
	for i := range b.hosts {
		b.publishes(i, "vxlan", `[{"Type":"host-gw"}]`)
	}
	b.stop(t, c)
}

// stop ends a command as Ctrl-C does.
func (b *backends) stop(t *testing.T, c *lab.Process) {
	b.plane.ok(c.Signal(syscall.SIGINT))
	if code, err := c.Wait(b.ctx); code == 0 || err != nil || !strings.Contains(c.Log(), "traffic is not affected") {
		t.Errorf("exit code %d, %v:\n%s", code, err, c.Log())
	}
}

// publishes waits for the annotations of a node.
func (b *backends) publishes(i int, kind, offers string) {
	b.plane.t.Helper()
	b.plane.await(func() error {
		notes := b.object(&node{name: b.nameOf(i)}).Metadata.Annotations
		const prefix = "flannel.alpha.coreos.com/"
		got, there := notes[prefix+"offers"]
		if notes[prefix+"backend-type"] != kind || !strings.HasPrefix(got, offers) || there == (offers == "") {
			return fmt.Errorf("%s has the annotations %v, want %s and offers %s", b.nameOf(i), notes, kind, offers)
		}
		return nil
	})
}

// to takes the network to a backend from node i.
func (b *backends) to(t *testing.T, i int, kind string) {
	b.finish(t, b.migrate(i, "--to", `{"Type": "`+kind+`"}`))
	for i := range b.hosts {
		b.publishes(i, kind, "")
	}
}

// abort begins the move back to vxlan, and goes back after its second step.
func (b *backends) abort(t *testing.T) {
	c := b.migrate(2, "--to", `{"Type": "vxlan"}`)
	b.configure(b.asked(c, 1))
	b.configure(b.asked(c, 2))
	for i := range b.hosts {
		b.publishes(i, "vxlan", `[{"Type":"host-gw"}]`)
	}
	b.stop(t, c)
	b.finish(t, b.migrate(0, "--abort"))
	for i := range b.hosts {
		b.publishes(i, "host-gw", "")
	}
}

func (b *backends) end(t *testing.T) {
	sent := 0
	for _, ping := range b.pings {
		s := ping.Stop()
		if sent += s.Sent; s.Lost() > 0 {
			t.Errorf("%s: %s", ping, s)
		}
	}
	t.Logf("%d pings", sent)
	for i, d := range b.daemons {
		if n := strings.Count(d.Log(), "starting flanneld"); n != 1 {
			t.Errorf("daemon %d was started %d times", i, n)
		}
		out, err := b.hosts[i].Output("ip -o link show")
		b.plane.ok(err)
		if strings.Count(out, ": flannel") != 1 || !strings.Contains(out, ": flannel.1:") {
			t.Errorf("%s has the devices\n%s", b.hosts[i].Name(), out)
		}
	}
}
