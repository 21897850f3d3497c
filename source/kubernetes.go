//go:build !nokube

package source

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"flanneld/api"
	"flanneld/backend/alloc"
	"flanneld/backend/check"
	"flanneld/backend/vxlan"
	"flanneld/ip"
	"flanneld/options"
	"flanneld/subnet"
	"flanneld/subnet/kube"
)

// Kubernetes is the Kubernetes API as the source of leases. The zero value has not asked it yet. Any goroutine may call
// Inspect.
type Kubernetes struct {
	access atomic.Pointer[access]
}

// access is how the API server is asked about the own node.
type access struct {
	client *kube.Client
	own    kube.OwnOptions
}

// checkAnnotations says what is wrong with the names of the annotations.
func checkAnnotations(o options.Options) error {
	if _, err := kube.NewNames(o.KubeAnnotationPrefix); err != nil {
		return fmt.Errorf("%s: %w", options.Named("kube-annotation-prefix"), err)
	}
	return nil
}

// Open returns the source once the own node is known.
func (k *Kubernetes) Open(ctx context.Context, h Host) (Source, subnet.Config, Node, error) {
	var none subnet.Config
	config, text, err := configOf(h.Options.NetConfigPath)
	if err != nil {
		return nil, none, Node{}, err
	}
	config = config.Assigned()
	names, err := kube.NewNames(h.Options.KubeAnnotationPrefix)
	if err != nil {
		return nil, none, Node{}, err
	}
	client, err := kube.NewClient(kube.ClientOptions{
		APIURL: h.Options.KubeAPIURL, Kubeconfig: h.Options.KubeconfigFile, UserAgent: "flanneld/" + h.Version, Log: h.Log,
	})
	if err != nil {
		return nil, none, Node{}, err
	}
	h.Report.Waiting("waiting for the API server")
	o := ownOptions(h, names)
	k.access.Store(&access{client, o})
	usable := usableWith(h.State, Network(h.Options), config)
	if usable == nil {
		o.Last = h.State.Own.Host
	} else if len(h.State.Own.Leases) > 0 {
		h.Log.Warn("saved state not used", "reason", usable)
	}
	own, err := kube.WaitOwn(ctx, client, o)
	if err != nil {
		return nil, none, Node{}, err
	}
	live := h.live()
	source := kube.Options{
		Node: own.Name, Names: names, Config: config, Text: string(text), PeerGrace: h.Options.PeerGrace,
		Peers: config.BackendType != alloc.Type, Condition: h.Options.SetNodeNetworkUnavailable,
		Attrs: live.attrs, Valid: live.valid, Log: h.Log,
		Following: subnet.Following{Read: assigned, Adjusts: check.Adjusts, Follow: h.Follow},
	}
	if usable == nil && h.State.Own.Host == own.Name {
		source.State = h.State
	}
	return kube.New(client, source), config, takeOver(h, config, own), nil
}

// assigned reads a network configuration for the subnets of Node objects.
func assigned(text []byte) (subnet.Config, error) {
	c, err := check.Network(text)
	return c.Assigned(), err
}

func ownOptions(h Host, names kube.Names) kube.OwnOptions {
	return kube.OwnOptions{
		Node: os.Getenv("NODE_NAME"), Namespace: os.Getenv("POD_NAMESPACE"), Pod: os.Getenv("POD_NAME"), Names: names,
		Waiting: func(reason error) {
			h.Log.Warn("waiting for the Node object of this host", "reason", reason)
			h.Report.Waiting("waiting for the Node object of this host: %v", reason)
		},
	}
}

// usableWith says why the state of the last run must not be used before the API server has answered; nil: it may.
func usableWith(st subnet.State, network string, c subnet.Config) error {
	if err := st.Current(network, time.Now()); err != nil {
		return err
	}
	if len(st.Own.Leases) != len(c.Pools) {
		return fmt.Errorf("it has %d subnets, the network configuration needs %d", len(st.Own.Leases), len(c.Pools))
	}
	for i, l := range st.Own.Leases {
		if !c.Pools[i].Holds(l.Subnet) || l.BackendType != c.BackendType {
			return fmt.Errorf("its subnet %s (backend %s) does not belong to the network configuration", l.Subnet, l.BackendType)
		}
	}
	return nil
}

// takeOver returns what this host is to use: what the flags and earlier runs say, else what stands in the annotations
// of the own node.
func takeOver(h Host, c subnet.Config, own kube.Own) Node {
	n := Node{PublicIPs: [2]netip.Addr{h.Options.PublicIP, h.Options.PublicIPv6}, MACs: h.State.MACs}
	for family, given := range n.PublicIPs {
		if a := own.PublicIPs[family]; a.IsValid() && !given.IsValid() {
			n.PublicIPs[family] = a
			h.Log.Info("public address taken from the annotation of the node", "address", a)
		}
	}
	if len(n.MACs) > 0 || c.BackendType != vxlan.Type {
		return n
	}
	n.MACs = map[string]string{}
	for device, mac := range vxlan.Published(c, own.Published) {
		if mac != (ip.MAC{}) {
			n.MACs[device] = mac.String()
		}
	}
	return n
}

// Inspect asks the API server what a diagnosis needs.
func (k *Kubernetes) Inspect(ctx context.Context) api.Kubernetes {
	a := k.access.Load()
	if a == nil {
		const reason = "the API server was not asked yet"
		return api.Kubernetes{NodeError: reason, RightsError: reason}
	}
	in := a.client.Inspect(ctx, a.own)
	out := api.Kubernetes{Node: in.Node, PodCIDRs: in.PodCIDRs}
	for _, r := range in.Rights {
		out.Rights = append(out.Rights, api.Right{Verb: r.Verb, Resource: r.Resource, Allowed: r.Allowed, Reason: r.Reason})
	}
	if in.NodeErr != nil {
		out.NodeError = in.NodeErr.Error()
	}
	if in.RightErr != nil {
		out.RightsError = in.RightErr.Error()
	}
	return out
}
