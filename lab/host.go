package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"flanneld/subnet"
)

// Host is a machine on the underlay that can run the daemon and pods.
type Host struct {
	*Namespace
	Addr  netip.Addr // on the underlay; the zero value where the host does not have the family
	Addr6 netip.Addr

	Environ []string // of its daemons, beside that of this process

	lab  *Lab
	dir  string
	kept fdStore
	last *Daemon    // that was started
	mu   sync.Mutex // guards all below
	pods int
}

// Host adds a machine to the underlay: forwarding is on, nothing runs yet.
func (l *Lab) Host(name string) (*Host, error) { return l.HostOf(name, l.o.Families) }

// HostOf adds a machine that has these families only; with none, its interface has no address but the link-local one.
func (l *Lab) HostOf(name string, families Families) (*Host, error) {
	n, err := l.namespace(name)
	if err != nil {
		return nil, err
	}
	h := &Host{Namespace: n, lab: l, dir: filepath.Join(l.dir, name)}
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		return nil, fmt.Errorf("create the host's folder: %w", err)
	}
	l.onClose(h.kept.close)
	if h.Addr, h.Addr6, err = l.connect(n, families); err != nil {
		return nil, err
	}
	return h, errors.Join(n.Sysctl("net/ipv4/ip_forward", "1"), n.Sysctl("net/ipv6/conf/all/forwarding", "1"))
}

// AddrOf returns the host's address on the underlay of the family of another address.
func (h *Host) AddrOf(family netip.Addr) netip.Addr {
	if family.Is4() {
		return h.Addr
	}
	return h.Addr6
}

// Dir returns the folder of the host's files.
func (h *Host) Dir() string { return h.dir }

// SubnetFile returns the path of the host's subnet.env.
func (h *Host) SubnetFile() string { return filepath.Join(h.dir, "run", "subnet.env") }

// StateDir returns the folder of the daemon's state.
func (h *Host) StateDir() string { return filepath.Join(h.dir, "state") }

// Env reads the host's subnet.env.
func (h *Host) Env() (subnet.Env, error) { return subnet.ReadEnv(h.SubnetFile()) }

// Pod is a container without the container: a network namespace behind the host's bridge cni0.
type Pod struct {
	*Namespace
	Host  *Host
	Addrs []netip.Addr // one for each family of the host's subnets
}

// Pod adds a pod with the next addresses of the host's subnets.
func (h *Host) Pod() (*Pod, error) {
	h.mu.Lock()
	h.pods++
	number := h.pods
	h.mu.Unlock()
	env, err := h.Env()
	if err != nil {
		return nil, err
	}
	if err := h.bridge(env); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("pod%d", number)
	n, err := h.lab.namespace(filepath.Base(h.dir) + "-" + name)
	if err != nil {
		return nil, err
	}
	p := &Pod{Namespace: n, Host: h}
	err = h.Run(
		fmt.Sprintf("ip link add %s mtu %d type veth peer name eth0 mtu %d netns %s", name, env.MTU, env.MTU, n.name),
		fmt.Sprintf("ip link set %s master cni0 up", name),
	)
	if err != nil {
		return nil, err
	}
	commands := []string{"ip link set eth0 up"}
	for _, s := range env.Subnets {
		gateway := s.Addr().Next()
		addr := gateway
		for range number {
			addr = addr.Next()
		}
		p.Addrs = append(p.Addrs, addr)
		commands = append(commands, fmt.Sprintf("ip addr add %s/%d dev eth0%s", addr, s.Bits(), nodad(addr)),
			"ip route add default via "+gateway.String())
	}
	if err := n.Run(commands...); err != nil {
		return nil, err
	}
	return p, errors.Join(n.isUp("eth0"), h.isUp("cni0"))
}

// Addr returns the pod's IPv4 address, on an IPv6-only network its IPv6 address.
func (p *Pod) Addr() netip.Addr { return p.Addrs[0] }

func nodad(a netip.Addr) string {
	if a.Is4() {
		return ""
	}
	return " nodad"
}

// bridge makes the bridge of the pods, with the first usable address of each subnet.
func (h *Host) bridge(env subnet.Env) error {
	there, err := h.has("cni0")
	if err != nil {
		return err
	}
	var commands []string
	if !there {
		commands = append(commands, "ip link add cni0 type bridge")
	}
	commands = append(commands, fmt.Sprintf("ip link set cni0 mtu %d up", env.MTU))
	for _, s := range env.Subnets {
		gateway := s.Addr().Next()
		commands = append(commands, fmt.Sprintf("ip addr replace %s/%d dev cni0%s", gateway, s.Bits(), nodad(gateway)))
	}
	return h.Run(commands...)
}

// Pods adds one pod to each host.
func Pods(hosts ...*Host) ([]*Pod, error) {
	pods := make([]*Pod, len(hosts))
	for i, h := range hosts {
		p, err := h.Pod()
		if err != nil {
			return nil, err
		}
		pods[i] = p
	}
	return pods, nil
}

// Ready waits until all daemons have said so.
func Ready(ctx context.Context, daemons ...*Daemon) error {
	for _, d := range daemons {
		if err := d.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}
