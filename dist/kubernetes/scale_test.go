//go:build kubernetes

package kubernetes_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flanneld/api"
	"flanneld/lab"
	"flanneld/subnet"
	"flanneld/subnet/annotation"
	"flanneld/subnet/kube"
)

// What is promised at 5,000 nodes.
const (
	scaleManagers = 20 // beside the daemons, in this process
	firstRequests = 5
	laterRequests = 2
	// where the API server has no streaming list: it is asked for the own node, the streaming list, a list and a watch
	oldRequests  = 4
	scaleMemory  = 64 << 10 // KiB, at most ever
	scaleLag     = 1500 * time.Millisecond
	scaleNetwork = `{"Network": "10.0.0.0/8", "Backend": {"Type": "vxlan"}}`
)

// scaleNodes is how many Node objects there are. What is promised holds for 5,000.
var scaleNodes = flag.Int("nodes", 5000, "Node objects of the test of large clusters")

// TestFiveThousandNodes runs daemons at a real API server with the Node objects of a large cluster, whose kubelets are
// this test.
func TestFiveThousandNodes(t *testing.T) {
	s := newStory(t, clusterOptions{bare: true})
	l := &large{story: s}
	s.run(t, []step{
		{"5,000 nodes are made", l.fill},
		{"daemons start first", func(t *testing.T) { l.startDaemons(t, firstRequests, "first start") }},
		{"managers start", l.startManagers},
		{"heartbeats of others wake nobody", l.heartbeats},
		{"a new node is a peer everywhere", l.converge},
		{"daemons start again", func(t *testing.T) { l.stopDaemons(t); l.startDaemons(t, laterRequests, "restart") }},
		{"daemons start at an API server without the streaming list", l.withoutStream},
	})
}

// large is a cluster with many nodes.
type large struct {
	*story
	http     *http.Client
	server   []string // arguments of the API server
	audit    string   // its file
	program  string   // flanneld
	hosts    []*lab.Host
	daemons  []*lab.Process
	managers []*kube.Source
	made     int // Node objects so far
}

// auditPolicy has the API server write down the requests of the daemons.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, ResponseComplete, Panic]
rules: [{level: Metadata, users: [daemon0, daemon1]}, {level: None}]
`

func (l *large) fill(t *testing.T) {
	p := l.plane
	l.startStore()
	policy := filepath.Join(p.Dir(), "audit.yaml")
	l.audit = filepath.Join(p.Dir(), "audit.log")
	p.ok(os.WriteFile(policy, []byte(auditPolicy), 0o644))
	l.server = []string{"--audit-policy-file=" + policy, "--audit-log-path=" + l.audit, "--audit-log-mode=blocking"}
	p.serve(l.store, l.server...)
	l.program = filepath.Join(filepath.Dir(p.bin), "flanneld")
	must(t, ".", "go", "build", "-o", l.program, "../../cmd/flanneld")
	l.connect(t)
	g := errgroup.Group{}
	g.SetLimit(16)
	for i := range *scaleNodes {
		g.Go(func() error { return l.create(largeNode(i)) })
	}
	p.ok(g.Wait())
	l.made = *scaleNodes
}

// startDaemons starts both daemons, waits until they route to all others, and counts what they asked the API server.
func (l *large) startDaemons(t *testing.T, most int, what string) {
	p := l.plane
	before := l.requests()
	l.daemons = nil
	for i := range 2 {
		if len(l.hosts) <= i {
			h, err := l.lab.Host(userOf(i))
			p.ok(err)
			l.hosts = append(l.hosts, h)
		}
		h := l.hosts[i]
		config := filepath.Join(h.Dir(), "net-conf.json")
		p.ok(os.WriteFile(config, []byte(scaleNetwork), 0o644))
		d, err := h.Start("flanneld", "env", "NODE_NAME="+largeName(i), l.program, "-kube-subnet-mgr", "-net-config-path",
			config,
			"-kubeconfig-file", p.config(userOf(i), userOf(i), "system:masters"), "-subnet-file", h.SubnetFile(), "-state-dir",
			h.StateDir(), "-ip-masq")
		p.ok(err)
		l.whole.Cleanup(func() { printEnd(l.whole, h.Name(), d) })
		l.daemons = append(l.daemons, d)
	}
	for i, d := range l.daemons {
		p.await(func() error {
			st, err := l.status(i)
			if err == nil && (!st.Ready || !st.Lease.Held || st.Peers < *scaleNodes-2 || st.Failing > 0) {
				err = fmt.Errorf("%s has %d peers, %d failing, held %t: %v", l.hosts[i].Name(), st.Peers, st.Failing, st.Lease.Held,
					st.Reasons)
			}
			return err
		})
		t.Logf("%s of %s: %.2f s until it routes to all others", what, userOf(i), time.Since(d.Started).Seconds())
	}
	l.measure(t, most, what, before)
}

// userOf returns the name of a daemon as the API server knows it.
func userOf(i int) string { return fmt.Sprintf("daemon%d", i) }

// measure checks the numbers of requests and the memory of the daemons.
func (l *large) measure(t *testing.T, most int, what string, before map[string][]string) {
	t.Helper()
	p := l.plane
	if what == "first start" {
		for i := range l.daemons {
			p.await(func() error {
				out, err := p.kubectl("get", "node", largeName(i), "--output",
					`jsonpath={.status.conditions[?(@.type=="NetworkUnavailable")].reason}`)
				if err == nil && out != "FlannelIsUp" {
					err = fmt.Errorf("the condition of %s is %q", largeName(i), out)
				}
				return err
			})
		}
	}
	l.arrives(t) // the daemons have seen the whole list, and said what they have to
	after := l.requests()
	for i, d := range l.daemons {
		user := userOf(i)
		asked := after[user][len(before[user]):]
		t.Logf("%s of %s: %d requests: %s", what, user, len(asked), strings.Join(asked, "; "))
		if len(asked) > most {
			t.Errorf("%s of %s asks %d requests, want %d at most: %v", what, user, len(asked), most, asked)
		}
		now, peak := memory(t, d.Pid())
		t.Logf("%s of %s: %.1f MiB, %.1f at most", what, user, float64(now)/1024, float64(peak)/1024)
		if peak > scaleMemory {
			t.Errorf("%s needed %d KiB of memory, want %d at most", user, peak, scaleMemory)
		}
	}
}

// memory returns what a process has resident, and what it had at most, in KiB.
func memory(t *testing.T, pid int) (now, peak int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &now)
		_, _ = fmt.Sscanf(line, "VmHWM: %d kB", &peak)
	}
	return now, peak
}

func (l *large) status(i int) (api.Status, error) {
	var st api.Status
	return st, api.NewClient(l.hosts[i].SubnetFile()).Get(l.ctx, api.PathStatus, &st)
}

// withoutStream starts the daemons at an API server as those before Kubernetes 1.32, which sends all nodes in one
// message.
func (l *large) withoutStream(t *testing.T) {
	l.stopDaemons(t)
	l.plane.server.Kill()
	l.plane.serve(l.store, append(l.server, "--feature-gates=WatchList=false")...)
	l.startDaemons(t, oldRequests, "start without a streaming list")
}

func (l *large) stopDaemons(*testing.T) {
	for _, d := range l.daemons {
		l.plane.ok(d.Stop(l.ctx))
	}
}

// requests returns what each user has asked so far.
func (l *large) requests() map[string][]string {
	l.plane.t.Helper()
	text, err := os.ReadFile(l.audit)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		l.plane.t.Fatal(err)
	}
	out := map[string][]string{}
	for line := range bytes.Lines(text) {
		var e struct {
			Verb, RequestURI string
			User             struct{ Username string }
		}
		l.plane.ok(json.Unmarshal(line, &e))
		out[e.User.Username] = append(out[e.User.Username], e.Verb+" "+e.RequestURI)
	}
	return out
}

// startManagers runs sources of other nodes in this process, each with a watch of its own.
func (l *large) startManagers(t *testing.T) {
	p := l.plane
	names, err := kube.NewNames(annotation.DefaultPrefix)
	p.ok(err)
	config, err := subnet.ParseConfig([]byte(scaleNetwork))
	p.ok(err)
	kubeconfig := l.forward()
	ctx, cancel := context.WithCancel(l.ctx)
	var running sync.WaitGroup
	l.whole.Cleanup(func() { cancel(); running.Wait() })
	for i := range scaleManagers {
		client, err := kube.NewClient(kube.ClientOptions{Kubeconfig: kubeconfig, UserAgent: "manager",
			Log: slog.New(slog.DiscardHandler)})
		p.ok(err)
		n := largeNode(2 + i)
		attrs := subnet.Attrs{BackendType: "vxlan",
			PublicIP:    netip.MustParseAddr(n.Annotations[annotation.DefaultPrefix+"/public-ip"]),
			BackendData: n.Annotations[annotation.DefaultPrefix+"/backend-data"]}
		m := kube.New(client, kube.Options{
			Node: n.Name, Names: names, Config: config.Assigned(), Text: scaleNetwork, PeerGrace: time.Hour, Peers: true,
			Attrs: func(netip.Prefix) subnet.Attrs { return attrs }, Valid: func(subnet.Lease) error { return nil },
			Log: slog.New(slog.DiscardHandler),
		})
		running.Go(func() { _ = m.Run(ctx) })
		l.managers = append(l.managers, m)
	}
	for _, m := range l.managers {
		p.await(func() error {
			if n := m.View().Peers.Len(); n < *scaleNodes-2 {
				return fmt.Errorf("a manager has %d peers", n)
			}
			return nil
		})
	}
}

// heartbeats changes the status of other nodes as kubelets do, and checks that no daemon makes a pass for it.
func (l *large) heartbeats(t *testing.T) {
	p := l.plane
	l.arrives(t)
	var before []uint64
	for i := range l.daemons {
		st, err := l.status(i)
		p.ok(err)
		before = append(before, st.Passes.Count)
	}
	const beats = 1000
	g := errgroup.Group{}
	g.SetLimit(16)
	for i := range beats {
		g.Go(func() error {
			now := map[string]any{"type": "Ready", "lastHeartbeatTime": metav1.Now(), "message": fmt.Sprint("beat ", i)}
			return l.send(http.MethodPatch, "/api/v1/nodes/"+largeName(2+i%(*scaleNodes-2))+"/status",
				"application/strategic-merge-patch+json",
				map[string]any{"status": map[string]any{"conditions": []any{now}}})
		})
	}
	p.ok(g.Wait())
	l.arrives(t) // all that came before it was seen
	for i := range l.daemons {
		st, err := l.status(i)
		p.ok(err)
		// One for the node that arrived, and what the clock asks for.
		if passes := st.Passes.Count - before[i]; passes > 5 {
			t.Errorf("%s made %d passes for %d heartbeats", l.hosts[i].Name(), passes, beats)
		}
	}
}

// converge measures how long a new node needs to be a peer of all.
func (l *large) converge(t *testing.T) {
	var took []time.Duration
	for range 11 {
		took = append(took, l.arrives(t))
	}
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("a new node is a peer of both daemons and %d managers after %s, at most %s", len(l.managers), median,
		took[len(took)-1])
	if median > scaleLag {
		t.Errorf("a new node is a peer of all after %s, want %s", median, scaleLag)
	}
}

// arrives makes a node, and returns how long it takes until daemons have a route to it and managers a peer.
func (l *large) arrives(t *testing.T) time.Duration {
	t.Helper()
	n := largeNode(l.made)
	l.made++
	start := time.Now()
	l.plane.ok(l.create(n))
	prefix := netip.MustParsePrefix(n.Spec.PodCIDR)
	for _, h := range l.hosts {
		l.soon(func() bool {
			out, err := h.Output("ip route show " + prefix.String())
			return err == nil && out != ""
		})
	}
	for _, m := range l.managers {
		l.soon(func() bool {
			_, ok := m.View().Peers.Find(prefix)
			return ok
		})
	}
	return time.Since(start)
}

// soon waits for a condition that is expected within milliseconds.
func (l *large) soon(condition func() bool) {
	l.plane.t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			l.plane.t.Fatal("not within two minutes")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
