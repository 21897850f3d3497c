package lab

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// EtcdCluster starts a store of several members, each on a machine of its own.
func (l *Lab) EtcdCluster(ctx context.Context, name string, members int) ([]*Etcd, error) {
	out := make([]*Etcd, members)
	var initial []string
	for i := range out {
		e, err := l.IdleEtcd(fmt.Sprint(name, i+1))
		if err != nil {
			return nil, err
		}
		out[i] = e
		initial = append(initial, e.name+"="+e.peerURL())
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, e := range out {
		e.args = []string{
			"--listen-peer-urls", e.peerURL(), "--initial-advertise-peer-urls", e.peerURL(), "--initial-cluster",
			strings.Join(initial, ","),
			"--heartbeat-interval", "50", "--election-timeout", "500",
		}
		g.Go(func() error { return e.Start(ctx) })
	}
	return out, g.Wait()
}

func (e *Etcd) peerURL() string { return "http://" + netip.AddrPortFrom(e.addrs()[0], 2380).String() }

// IdleEtcd adds a machine for a store, on which nothing runs before Start.
func (l *Lab) IdleEtcd(name string) (*Etcd, error) {
	n, err := l.namespace(name)
	if err != nil {
		return nil, err
	}
	e := &Etcd{Namespace: n, lab: l, name: name, dir: filepath.Join(l.dir, name)}
	e.Addr, e.Addr6, err = l.connect(n, l.o.Families)
	return e, err
}

// StartTLS starts a store that talks TLS on its IPv4 address and demands certificates: those in a folder, as
// server.crt, server.key and ca.crt.
func (e *Etcd) StartTLS(ctx context.Context, dir string) error {
	file := func(name string) string { return filepath.Join(dir, name) }
	e.args = []string{
		"--listen-client-urls", e.TLSURL() + ",unix://" + e.socket(), "--advertise-client-urls", e.TLSURL(),
		"--cert-file", file("server.crt"), "--key-file", file("server.key"), "--trusted-ca-file", file("ca.crt"),
		"--client-cert-auth",
	}
	return e.Start(ctx)
}

// TLSURL returns where hosts reach a store that was started by StartTLS.
func (e *Etcd) TLSURL() string { return fmt.Sprintf("https://%s:2379", e.Addr) }

// CutFrom has the host's firewall drop all packets to and from stores, and let them pass again. Its other traffic flows
// on.
func (h *Host) CutFrom(stores ...*Etcd) (mend func() error, err error) {
	in, out := "", ""
	for _, e := range stores {
		for _, a := range e.addrs() {
			family := "ip"
			if a.Is6() {
				family = "ip6"
			}
			in += fmt.Sprintf("%s saddr %s drop; ", family, a)
			out += fmt.Sprintf("%s daddr %s drop; ", family, a)
		}
	}
	_, err = h.Exec(context.Background(), "nft", fmt.Sprintf(`table inet cut {
		chain in { type filter hook input priority -300; %s }
		chain out { type filter hook output priority -300; %s }
	}`, in, out))
	return func() error { return h.Run("nft delete table inet cut") }, err
}
