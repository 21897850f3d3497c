package kube_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"flanneld/need"
	"flanneld/subnet"
	"flanneld/subnet/annotation"
	"flanneld/subnet/kube"
)

const netConf = `{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}`

// host is one Source on a server.
type host struct {
	*kube.Source
	t *testing.T
}

func names(t *testing.T) kube.Names {
	t.Helper()
	n, err := kube.NewNames(annotation.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// start runs a source for the node until the test ends. Its address is the given one.
func start(t *testing.T, s *server, name, address string, change func(*kube.Options)) *host {
	t.Helper()
	config, err := subnet.ParseConfig([]byte(netConf))
	if err != nil {
		t.Fatal(err)
	}
	o := kube.Options{
		Node: name, Names: names(t), Config: config.Assigned(), Text: netConf, PeerGrace: time.Hour, Peers: true,
		Condition: true,
		Attrs: func(netip.Prefix) subnet.Attrs {
			return subnet.Attrs{PublicIP: netip.MustParseAddr(address), BackendType: "vxlan",
				BackendData: `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`}
		},
		Valid: func(subnet.Lease) error { return nil }, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&o)
	}
	h := &host{kube.New(s.client(), o), t}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return h
}

// joined adds a node as the controllers of a cluster make it.
func (s *server) joined(name, cidr string) {
	s.set(name, func(n *corev1.Node) { n.Spec.PodCIDR, n.Spec.PodCIDRs = cidr, []string{cidr} })
}

// peer adds a node whose flanneld has published.
func (s *server) peer(name, cidr, address string) {
	s.set(name, func(n *corev1.Node) {
		n.Spec.PodCIDR, n.Spec.PodCIDRs = cidr, []string{cidr}
		for key, text := range map[string]string{
			"kube-subnet-manager": "true", "backend-type": "vxlan", "public-ip": address,
			"backend-data": `{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}`,
		} {
			n.Annotations[annotation.DefaultPrefix+"/"+key] = text
		}
	})
}

func (h *host) peers() []string {
	var out []string
	for l := range h.View().Peers.All() {
		out = append(out, fmt.Sprintf("%s at %s", l.Subnet, l.PublicIP))
	}
	return out
}

func (h *host) awaitPeers(want ...string) {
	h.t.Helper()
	need.Until(h.t, fmt.Sprintf("peers %v", want), time.Minute, func() bool { return slices.Equal(h.peers(), want) })
}

func (h *host) awaitStatus(text string) {
	h.t.Helper()
	need.Until(h.t, "status with "+text, time.Minute, func() bool { return strings.Contains(h.Status().Waiting, text) })
}

func TestANodeTakesItsPodCIDRAndPublishesWhatPeersNeed(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	s.peer("b", "10.244.2.0/24", "192.0.2.2")
	s.joined("c", "10.244.3.0/24") // runs no flanneld yet
	h := start(t, s, "a", "192.0.2.1", nil)
	h.awaitPeers("10.244.2.0/24 at 192.0.2.2")
	need.Until(t, "published", time.Minute, func() bool { return h.Status().Held })
	for name, want := range map[string]string{
		"kube-subnet-manager": "true", "backend-type": "vxlan", "public-ip": "192.0.2.1",
		"backend-data": `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`, "public-ipv6": "", "backend-v6-data": "",
	} {
		if got := s.annotation("a", name); got != want {
			t.Errorf("annotation %s is %q, want %q", name, got, want)
		}
	}
	if v := h.View(); len(v.Self) != 1 || v.Self[0].Subnet.String() != "10.244.1.0/24" {
		t.Errorf("own subnets %v, want 10.244.1.0/24", v.Self)
	}
	s.peer("c", "10.244.3.0/24", "192.0.2.3")
	h.awaitPeers("10.244.2.0/24 at 192.0.2.2", "10.244.3.0/24 at 192.0.2.3")
	s.delete("b")
	h.awaitPeers("10.244.3.0/24 at 192.0.2.3")
}

func TestAStartTakesFewRequestsAndARestartWritesNothing(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	run := func() []string {
		h := start(t, s, "a", "192.0.2.1", nil)
		need.Until(t, "published", time.Minute, func() bool { return h.Status().Held })
		h.SetReady()
		need.Until(t, "the condition is set", time.Minute, func() bool { return s.condition("a") == "False FlannelIsUp" })
		return s.asked()
	}
	// This server refuses the streaming list, which costs one request more.
	if got := run(); len(got) > 5 {
		t.Errorf("a first start takes %d requests, want at most 5: %v", len(got), got)
	}
	if got := run(); slices.ContainsFunc(got, func(r string) bool { return strings.HasPrefix(r, http.MethodPatch) }) {
		t.Errorf("a restart writes: %v", got)
	}
}

func (s *server) condition(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.nodes[name].Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			return fmt.Sprintf("%s %s", c.Status, c.Reason)
		}
	}
	return ""
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	s := newServer(t)
	h := start(t, s, "a", "192.0.2.1", nil)
	h.awaitStatus("node a does not exist")
	s.set("a", func(*corev1.Node) {})
	h.awaitStatus("--allocate-node-cidrs")
	s.delete("a")
	h.awaitStatus("node a does not exist")
	s.joined("a", "192.168.0.0/24")
	h.awaitStatus("does not lie inside the network 10.244.0.0/16")
	s.delete("a")
	s.failing(func(r *http.Request) int {
		if r.Method == http.MethodPatch {
			return http.StatusForbidden
		}
		return 0
	})
	s.joined("a", "10.244.1.0/24")
	h.awaitStatus("may not patch nodes/status")
	s.failing(nil)
	need.Until(t, "published", time.Minute, func() bool { return h.Status().Held && h.Status().Waiting == "" })
}

func TestRightsThatAreMissingForTheWatchAreNamed(t *testing.T) {
	s := newServer(t)
	s.failing(func(r *http.Request) int {
		if r.Method == http.MethodGet {
			return http.StatusForbidden
		}
		return 0
	})
	h := start(t, s, "a", "192.0.2.1", nil)
	need.Until(t, "the rule is named", time.Minute,
		func() bool { return strings.Contains(h.Status().StoreError, "may not list nodes") })
}

func TestAnnotationsThatSomebodyRemovesComeBack(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	h := start(t, s, "a", "192.0.2.1", nil)
	need.Until(t, "published", time.Minute, func() bool { return h.Status().Held })
	for _, change := range []func(*corev1.Node){
		func(n *corev1.Node) { n.Annotations = map[string]string{"other": "stays"} },
		func(n *corev1.Node) { n.Annotations[annotation.DefaultPrefix+"/public-ip"] = "192.0.2.99" },
		func(n *corev1.Node) { n.Annotations[annotation.DefaultPrefix+"/backend-data"] = "" },
	} {
		s.set("a", change)
		need.Until(t, "published again", time.Minute, func() bool {
			return s.annotation("a", "public-ip") == "192.0.2.1" && strings.Contains(s.annotation("a", "backend-data"), "VNI") &&
				s.annotation("a", "kube-subnet-manager") == "true"
		})
	}
}

func TestTheOperatorsAddressIsPublished(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	h := start(t, s, "a", "192.0.2.1", nil)
	need.Until(t, "published", time.Minute, func() bool { return s.annotation("a", "public-ip") == "192.0.2.1" })
	s.set("a", func(n *corev1.Node) { n.Annotations[annotation.DefaultPrefix+"/public-ip-overwrite"] = "203.0.113.5" })
	need.Until(t, "the operator's is published", time.Minute,
		func() bool { return s.annotation("a", "public-ip") == "203.0.113.5" })
	if got := s.annotation("a", "underlay-ip"); got != "192.0.2.1" {
		t.Errorf("underlay-ip is %q, want the address that packets come from", got)
	}
	s.set("a", func(n *corev1.Node) { delete(n.Annotations, annotation.DefaultPrefix+"/public-ip-overwrite") })
	need.Until(t, "the own one is published", time.Minute, func() bool {
		return s.annotation("a", "public-ip") == "192.0.2.1" && s.annotation("a", "underlay-ip") == ""
	})
	need.Until(t, "held", time.Minute, func() bool { return h.Status().Held })
}

// TestTheAnswerToAWriteMayComeLate: the watch has told meanwhile what the operator has written.
func TestTheAnswerToAWriteMayComeLate(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	h := start(t, s, "a", "192.0.2.1", nil)
	need.Until(t, "published", time.Minute, func() bool { return h.Status().Held })
	s.mu.Lock()
	s.late = func() {
		s.set("a", func(n *corev1.Node) { n.Annotations[annotation.DefaultPrefix+"/public-ip-overwrite"] = "203.0.113.5" })
		need.Until(t, "the watch has told it", time.Minute, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return h.Position().Revision == int64(s.version)
		})
	}
	s.mu.Unlock()
	s.set("a", func(n *corev1.Node) { delete(n.Annotations, annotation.DefaultPrefix+"/public-ip") })
	need.Until(t, "the operator's is published", time.Minute,
		func() bool { return s.annotation("a", "public-ip") == "203.0.113.5" })
}

func TestANodeThatIsMadeAgainWithAnotherPodCIDRMoves(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	h := start(t, s, "a", "192.0.2.1", nil)
	need.Until(t, "published", time.Minute, func() bool { return h.Status().Held })
	s.delete("a")
	h.awaitStatus("node a does not exist")
	if v := h.View(); len(v.Self) != 1 {
		t.Fatalf("own subnets %v while the node is away, want the old one", v.Self)
	}
	s.joined("a", "10.244.7.0/24")
	need.Until(t, "the new subnet is published", time.Minute,
		func() bool { return h.Status().Held && h.View().Self[0].Subnet.String() == "10.244.7.0/24" })
	// The node is deleted, and its subnet given to another one.
	s.delete("a")
	s.peer("d", "10.244.7.0/24", "192.0.2.4")
	need.Until(t, "the subnet is given up", time.Minute, func() bool { return len(h.View().Self) == 0 && h.Status().Lost })
	h.awaitPeers("10.244.7.0/24 at 192.0.2.4")
	s.joined("a", "10.244.8.0/24")
	need.Until(t, "the next subnet is in use", time.Minute,
		func() bool { return len(h.View().Self) == 1 && h.Status().Held && !h.Status().Lost })
}

func TestNodesThatMakeNoSenseAreSkipped(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	s.peer("b", "10.244.2.0/24", "not an address")
	s.peer("c", "10.244.1.0/24", "192.0.2.3") // our subnet
	s.peer("d", "192.168.7.0/24", "192.0.2.4")
	s.peer("e", "10.244.5.0/26", "192.0.2.5") // of another length
	h := start(t, s, "a", "192.0.2.1", nil)
	h.awaitPeers("10.244.5.0/26 at 192.0.2.5")
	if v := h.View(); v.Status.Skipped != 3 {
		t.Errorf("%d skipped, want 3", v.Status.Skipped)
	}
	s.peer("f", "10.244.6.0/24", "192.0.2.1")
	h.awaitStatus("node f publishes the address 192.0.2.1")
}

func TestPeersAreRetainedWhileTheServerHasLostThem(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	s.peer("b", "10.244.2.0/24", "192.0.2.2")
	h := start(t, s, "a", "192.0.2.1", nil)
	h.awaitPeers("10.244.2.0/24 at 192.0.2.2")
	s.failing(func(*http.Request) int { return http.StatusGone }) // watches must list again
	s.CloseClientConnections()
	need.Until(t, "the loss of the server is told", time.Minute, func() bool { return !h.Status().StoreSince.IsZero() })
	s.mu.Lock()
	delete(s.nodes, "b") // without an event: a backup was restored
	s.mu.Unlock()
	s.failing(nil)
	need.Until(t, "the server is back", time.Minute,
		func() bool { return h.Status().StoreSince.IsZero() && h.View().Status.Stale == 1 })
	h.awaitPeers("10.244.2.0/24 at 192.0.2.2")
}

func TestAHostStartsFromItsStateWithoutTheServer(t *testing.T) {
	s := newServer(t)
	s.failing(func(*http.Request) int { return http.StatusServiceUnavailable })
	own, err := kube.WaitOwn(t.Context(), s.client(),
		kube.OwnOptions{Node: "a", Last: "a", Names: names(t), Waiting: func(error) {}})
	if err != nil || own.Name != "a" {
		t.Fatalf("own node %v, %v, want that of the last run", own, err)
	}
	lease := func(cidr, address string) subnet.Record {
		return subnet.Record{Host: "b", Leases: []subnet.Lease{{Subnet: netip.MustParsePrefix(cidr), Attrs: subnet.Attrs{
			PublicIP: netip.MustParseAddr(address), BackendType: "vxlan", BackendData: "{}"}}}}
	}
	h := start(t, s, "a", "192.0.2.1", func(o *kube.Options) {
		o.State.Own = lease("10.244.1.0/24", "192.0.2.1")
		o.State.Memory.Records = subnet.Stale(lease("10.244.2.0/24", "192.0.2.2"))
	})
	h.awaitPeers("10.244.2.0/24 at 192.0.2.2")
	if v := h.View(); len(v.Self) != 1 {
		t.Errorf("own subnets %v, want that of the last run", v.Self)
	}
}

// The client library asks for the streaming list again and again then, and for nothing else.
func TestAServerThatRefusesConnectionsIsTold(t *testing.T) {
	s := newServer(t)
	s.Close()
	h := start(t, s, "a", "192.0.2.1", nil)
	need.Until(t, "the loss of the server is told", time.Minute, func() bool { return !h.Status().StoreSince.IsZero() })
}

func TestAHeartbeatWakesNobody(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	s.peer("b", "10.244.2.0/24", "192.0.2.2")
	h := start(t, s, "a", "192.0.2.1", nil)
	need.Until(t, "published", time.Minute, func() bool { return h.Status().Held && len(h.peers()) == 1 })
	need.Until(t, "all is quiet", time.Minute, func() bool {
		select {
		case <-h.Changed():
			return false
		default:
			return true
		}
	})
	s.set("b", func(n *corev1.Node) {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	})
	s.peer("c", "10.244.3.0/24", "192.0.2.3")
	<-h.Changed()
	if got := h.peers(); len(got) != 2 {
		t.Errorf("the first change that woke the host left peers %v: the heartbeat before it woke it, too", got)
	}
}

func TestAllocSeesItsOwnNodeOnly(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	s.peer("b", "10.244.2.0/24", "192.0.2.2")
	h := start(t, s, "a", "192.0.2.1", func(o *kube.Options) { o.Peers = false })
	need.Until(t, "published", time.Minute, func() bool { return h.Status().Held })
	s.peer("c", "10.244.3.0/24", "192.0.2.3")
	s.set("a", func(n *corev1.Node) { delete(n.Annotations, annotation.DefaultPrefix+"/public-ip") })
	need.Until(t, "published again", time.Minute, func() bool { return s.annotation("a", "public-ip") != "" })
	if got := h.peers(); len(got) > 0 {
		t.Errorf("peers %v, want none: only the own node is watched", got)
	}
}

func TestNodesComeInProtobuf(t *testing.T) {
	s := newServer(t)
	s.protobuf = true
	s.joined("a", "10.244.1.0/24")
	s.peer("b", "10.244.2.0/24", "192.0.2.2")
	h := start(t, s, "a", "192.0.2.1", nil)
	h.awaitPeers("10.244.2.0/24 at 192.0.2.2")
	s.peer("c", "10.244.3.0/24", "192.0.2.3") // after the list
	h.awaitPeers("10.244.2.0/24 at 192.0.2.2", "10.244.3.0/24 at 192.0.2.3")
	need.Until(t, "published", time.Minute, func() bool { return h.Status().Held })
}

// The time of a Node object is no revision of the store, and the package's own counter is none either.
func TestTheInventoryHasTheTimesAndVersionsOfNodes(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24") // made at 100 s, version 101
	s.peer("b", "10.244.2.0/24", "192.0.2.2")
	h := start(t, s, "a", "192.0.2.1", func(o *kube.Options) {
		o.State = subnet.State{Own: subnet.Record{Host: "a", Identity: "uid-a-100"},
			Memory: subnet.Memory{Position: subnet.Position{Revision: 1000}, Records: subnet.Stale(
				subnet.Record{Host: "gone", Identity: "uid-gone", Leases: []subnet.Lease{{
					Subnet: netip.MustParsePrefix("10.244.9.0/24"),
					Attrs:  subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.9"), BackendType: "vxlan"},
				}}})}}
	})
	need.Until(t, "published", time.Minute, func() bool { return h.Status().Held })
	got := map[string]string{}
	_, all := h.Inventory()
	for _, l := range all {
		got[l.Host] = fmt.Sprintf("created %d, since %d s", l.Created, max(0, l.Since.Unix()))
		if exact := map[string]int64{"b": 102, "gone": 0}; l.Host != "a" && l.Revision != exact[l.Host] {
			t.Errorf("%s has version %d, want %d", l.Host, l.Revision, exact[l.Host])
		}
	}
	want := map[string]string{"a": "created 0, since 100 s", "b": "created 0, since 101 s", "gone": "created 0, since 0 s"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
