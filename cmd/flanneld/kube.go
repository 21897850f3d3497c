package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"flanneld/api"
	"flanneld/backend"
	"flanneld/backend/alloc"
	"flanneld/backend/vxlan"
	"flanneld/ip"
	"flanneld/options"
	"flanneld/subnet"
	"flanneld/subnet/kube"
)

// checkAnnotations says what is wrong with the names of the annotations.
func checkAnnotations(o options.Options) error {
	if _, err := kube.NewNames(o.KubeAnnotationPrefix); err != nil {
		return fmt.Errorf("%s: %w", options.Named("kube-annotation-prefix"), err)
	}
	return nil
}

// kubeSource returns the Kubernetes API as the source of leases, once the own node is known; b is filled in before it
// runs.
func (d *process) kubeSource(ctx context.Context, b *backend.Planner) (leaseSource, subnet.Config, error) {
	config, text, err := readConfigFile(d.o.NetConfigPath)
	if err != nil {
		return nil, subnet.Config{}, err
	}
	config = config.Assigned()
	names, err := kube.NewNames(d.o.KubeAnnotationPrefix)
	if err != nil {
		return nil, subnet.Config{}, err
	}
	client, err := kube.NewClient(kube.ClientOptions{
		APIURL: d.o.KubeAPIURL, Kubeconfig: d.o.KubeconfigFile, UserAgent: "flanneld/" + version, Log: d.log,
	})
	if err != nil {
		return nil, subnet.Config{}, err
	}
	d.status.Waiting("waiting for the API server")
	o := kube.OwnOptions{
		Node: os.Getenv("NODE_NAME"), Namespace: os.Getenv("POD_NAMESPACE"), Pod: os.Getenv("POD_NAME"), Names: names,
		Waiting: func(reason error) {
			d.log.Warn("waiting for the Node object of this host", "reason", reason)
			d.status.Waiting("waiting for the Node object of this host: %v", reason)
		},
	}
	d.kube.Store(&kubeAccess{client, o})
	usable := usableWith(d.state, d.network(), config)
	if usable == nil {
		o.Last = d.state.Own.Host
	} else if len(d.state.Own.Leases) > 0 {
		d.log.Warn("saved state not used", "reason", usable)
	}
	own, err := kube.WaitOwn(ctx, client, o)
	if err != nil {
		return nil, subnet.Config{}, err
	}
	d.takeOver(config, own)
	source := kube.Options{
		Node: own.Name, Names: names, Config: config, Text: string(text), PeerGrace: d.o.PeerGrace,
		Peers: config.BackendType != alloc.Type, Condition: d.o.SetNodeNetworkUnavailable,
		Attrs: d.attrs(b), Valid: valid(b), Log: d.log,
	}
	if usable == nil && d.state.Own.Host == own.Name {
		source.State = d.state
	}
	return kube.New(client, source), config, nil
}

// kubeAccess is how the API server is asked about the own node.
type kubeAccess struct {
	client *kube.Client
	own    kube.OwnOptions
}

// inspection asks the API server what a diagnosis needs.
func (d *process) inspection(ctx context.Context) api.Kubernetes {
	access := d.kube.Load()
	if access == nil {
		return api.Kubernetes{NodeError: "the API server was not asked yet", RightsError: "the API server was not asked yet"}
	}
	in := access.client.Inspect(ctx, access.own)
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

// usableWith says why the state of the last run must not be used before the API server has answered; nil: it may.
func usableWith(st subnet.State, network string, c subnet.Config) error {
	if err := st.Current(network, time.Now()); err != nil {
		return err
	}
	if len(st.Own.Leases) != len(c.Pools) {
		return fmt.Errorf("it has %d subnets, the network wants %d", len(st.Own.Leases), len(c.Pools))
	}
	for i, l := range st.Own.Leases {
		if !c.Pools[i].Holds(l.Subnet) || l.BackendType != c.BackendType {
			return fmt.Errorf("its subnet %s (%s) is not of the network", l.Subnet, l.BackendType)
		}
	}
	return nil
}

// takeOver goes on with what stands in the annotations of the own node: the operator's public addresses, where no flag
// gives one, and the hardware addresses of a former run, also of another implementation.
func (d *process) takeOver(c subnet.Config, own kube.Own) {
	for family, addr := range []*netip.Addr{&d.o.PublicIP, &d.o.PublicIPv6} {
		if a := own.PublicIPs[family]; a.IsValid() && !addr.IsValid() {
			*addr = a
			d.log.Info("public address taken from the annotation of the node", "address", a)
		}
	}
	if len(d.state.MACs) > 0 || c.BackendType != vxlan.Type {
		return
	}
	d.state.MACs = map[string]string{}
	for device, mac := range vxlan.Published(c, own.Published) {
		if mac != (ip.MAC{}) {
			d.state.MACs[device] = mac.String()
		}
	}
}
