//go:build kubernetes

package kubernetes_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// TestFromEtcdToTheKubernetesAPI takes a network over from one store to the other, host by host and back, as
// docs/kubernetes.md says. The API server is a real one; daemons run on hosts of the lab.
func TestFromEtcdToTheKubernetesAPI(t *testing.T) {
	s := newStory(t, clusterOptions{bare: true})
	m := &move{story: s}
	s.run(t, []step{
		{"a network has its records in etcd, and the cluster has nodes without podCIDRs", m.begin},
		{"the records are taken over into Node objects", m.takeOver},
		{"hosts go to the Kubernetes API one by one, and nothing is lost", func(t *testing.T) { m.each(t, m.onKubernetes) }},
		{"hosts go back one by one, and nothing is lost", func(t *testing.T) { m.each(t, m.onEtcd) }},
	})
}

// move is a network of three hosts.
type move struct {
	*story
	old     *lab.Etcd
	bin     lab.Binaries
	config  string // file with the network configuration
	hosts   []*lab.Host
	daemons []*lab.Process
	boxes   []*lab.Pod
	notes   map[string]map[string]string // annotations of the nodes, as flannelctl has written them
}

const moveNetwork = `{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}`

func (m *move) begin(t *testing.T) {
	p := m.plane
	m.startStore()
	p.serve(m.store)
	var err error
	m.old, err = m.lab.Etcd(m.ctx, "old")
	p.ok(err)
	p.ok(m.old.Put(m.ctx, "config", moveNetwork))
	dir := filepath.Dir(p.bin)
	m.bin = lab.Built(dir)
	for out, pkg := range map[string]string{m.bin.Flanneld: "flanneld/cmd/flanneld",
		m.bin.Flannelctl: "flanneld/cmd/flannelctl"} {
		p.ok(lab.GoBuild(m.ctx, out, pkg))
	}
	m.config = filepath.Join(p.Dir(), "net-conf.json")
	p.ok(os.WriteFile(m.config, []byte(moveNetwork), 0o644))
	for i := range 3 {
		h, err := m.lab.Host(fmt.Sprintf("host%d", i+1))
		p.ok(err)
		m.hosts, m.daemons = append(m.hosts, h), append(m.daemons, nil)
		m.onEtcd(t, i)
		m.awaitPeers(i, 0) // it is ready
		box, err := h.Pod()
		p.ok(err)
		m.boxes = append(m.boxes, box)
		m.apply(fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: %s}}", m.nameOf(i)))
	}
	for i := range m.hosts {
		m.awaitPeers(i, len(m.hosts)-1)
	}
}

// nameOf returns the name of a host, which is the machine's for all: what its record has, and that of its node must be,
// stand for it.
func (m *move) nameOf(i int) string { return fmt.Sprintf("node%d", i+1) }

// onEtcd starts the daemon of a host with etcd as the store.
func (m *move) onEtcd(t *testing.T, i int) {
	m.start(t, i, "-etcd-endpoints", m.old.URL())
}

// onKubernetes starts it with the Kubernetes API as the store.
func (m *move) onKubernetes(t *testing.T, i int) {
	h := m.hosts[i]
	m.start(t, i, "-kube-subnet-mgr", "-net-config-path", m.config, "-kubeconfig-file",
		m.plane.config(h.Name(), h.Name(), "system:masters"))
}

func (m *move) start(t *testing.T, i int, args ...string) {
	t.Helper()
	p, h := m.plane, m.hosts[i]
	if m.daemons[i] != nil {
		p.ok(m.daemons[i].Stop(m.ctx))
	}
	// The name of the host is a namespace's of its own, as its record carries it.
	command := append([]string{"unshare", "--uts", "sh", "-c", `hostname "$0" && exec "$@"`, m.nameOf(i),
		"env", "NODE_NAME=" + m.nameOf(i), m.bin.Flanneld,
		"-subnet-file", h.SubnetFile(), "-state-dir", h.StateDir()}, args...)
	d, err := h.Start("flanneld", command...)
	p.ok(err)
	m.whole.Cleanup(func() { printEnd(m.whole, h.Name(), d) })
	m.daemons[i] = d
}

// awaitPeers waits until a host is ready and has so many peers.
func (m *move) awaitPeers(i, peers int) api.Status {
	m.plane.t.Helper()
	var st api.Status
	m.plane.await(func() error {
		st = api.Status{}
		err := api.NewClient(m.hosts[i].SubnetFile()).Get(m.ctx, api.PathStatus, &st)
		if err == nil && (!st.Ready || !st.Lease.Held || st.Daemon == nil || st.Daemon.PID != m.daemons[i].Pid() ||
			st.Peers < peers) {
			err = fmt.Errorf("%s is ready: %t, lease held: %t, peers: %d: %v", m.hosts[i].Name(), st.Ready, st.Lease.Held,
				st.Peers, st.Reasons)
		}
		return err
	})
	return st
}

func (m *move) takeOver(t *testing.T) {
	p := m.plane
	script, err := m.hosts[0].Exec(m.ctx, m.bin.Flannelctl, "leases", "nodes", "--etcd-endpoints", m.old.URL())
	p.ok(err)
	out, err := p.Exec(m.ctx, "env", "PATH="+p.bin+":"+os.Getenv("PATH"), "KUBECONFIG="+
		filepath.Join(p.certs, "admin.yaml"), "HOME="+p.certs, "sh", "-euc", script)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	m.notes = map[string]map[string]string{}
	for i := range m.hosts {
		o := m.object(&node{name: m.nameOf(i)})
		m.notes[m.nameOf(i)] = o.Metadata.Annotations
		env, err := m.hosts[i].Env()
		p.ok(err)
		if len(o.Metadata.Annotations) < 4 || o.Spec.PodCIDR != env.Subnets[0].String() {
			t.Errorf("%s has podCIDR %s and annotations %v, want the subnet %s and four annotations", m.nameOf(i),
				o.Spec.PodCIDR, o.Metadata.Annotations, env.Subnets)
		}
	}
}

// each changes one host after the other while all pods ping all, and checks that each keeps its subnet and all that
// peers know.
func (m *move) each(t *testing.T, change func(*testing.T, int)) {
	p := m.plane
	var pings []*lab.Pings
	for _, from := range m.boxes {
		for _, to := range m.boxes {
			if from != to {
				ping, err := from.Pings(to.Addr(), lab.PingOptions{})
				p.ok(err)
				pings = append(pings, ping)
			}
		}
	}
	for i, h := range m.hosts {
		before, err := h.Env()
		p.ok(err)
		change(t, i)
		m.awaitPeers(i, len(m.hosts)-1)
		if after, err := h.Env(); err != nil || !slices.Equal(before.Subnets, after.Subnets) {
			t.Errorf("%s has %v, %v, want what it had: %v", h.Name(), after.Subnets, err, before.Subnets)
		}
		for k, from := range m.boxes {
			ctx, cancel := context.WithTimeout(m.ctx, patience)
			_, err := from.Ping(ctx, m.boxes[(k+1)%len(m.boxes)].Addr(), lab.PingOptions{})
			cancel()
			p.ok(err)
		}
	}
	sent := 0
	for _, ping := range pings {
		s := ping.Stop()
		sent += s.Sent
		if s.Lost() > 0 {
			t.Errorf("%d of %d pings were lost", s.Lost(), s.Sent)
		}
	}
	t.Logf("%d pings", sent)
	for name, notes := range m.notes {
		if now := m.object(&node{name: name}).Metadata.Annotations; !maps.Equal(now, notes) {
			t.Errorf("%s publishes %v, want what flannelctl has written: %v", name, now, notes)
		}
	}
}
