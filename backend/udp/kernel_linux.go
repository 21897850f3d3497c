package udp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"flanneld/backend/udp/offload"
	"flanneld/ip"
	"flanneld/subnet"
)

// inKernel is what a host publishes whose kernel takes packets from the kernels of its peers. It is not only about
// speed: between network namespaces a packet of the kernel may arrive with a checksum that is yet to be filled in,
// which a socket does not see.
const inKernel = `{"InKernel":true}`

// takesFromKernels reports whether the host of a lease publishes that.
func takesFromKernels(l *subnet.Lease) bool {
	var data struct{ InKernel bool }
	return l.BackendData != "" && json.Unmarshal([]byte(l.BackendData), &data) == nil && data.InKernel
}

// kernelPath keeps the BPF programs attached that carry packets inside the kernel, or away where something speaks
// against them.
//
//	Carry, netlink notification, tick ─▶ check: decide ─┬─ nothing against it ─▶ programs made, told of peers, attached
//	                                                    └─ a reason ───────────▶ programs detached; user space has all
type kernelPath struct {
	device   string
	log      *slog.Logger
	filtered func(ip.Flow) (string, error) // see ip.Host
	poke     func()                        // asks for a pass
	able     func() error

	mu       sync.Mutex // guards all below
	want     kernelWant
	decided  bool
	reason   string // why packets are left to user space; empty: they are not
	programs *offload.Programs
	before   map[string]uint64              // counters of earlier programs
	earlier  map[netip.Addr]offload.Traffic // what earlier programs have carried, by the peer's public address
	repaired uint64
	look     time.Time // when to read again which peers packets were sent to
	narrow   narrow
	blind    bool // the host lacked what it takes to look
}

// kernelWant is what the programs are to do.
type kernelWant struct {
	against string // a reason that the configuration gives
	link    string // of the underlay
	spec    offload.Spec
	peers   offload.Peers
}

// deviceGone is the reason while the device is deleted.
const deviceGone = "the device is not there"

// notAsked is a reason that is not worth a line in the log.
const notAsked = "the network configuration says so (Kernel or Offload is false)"

const (
	// checkEvery is how often the programs are looked after, beside notifications.
	checkEvery = 5 * time.Second
	// usedPause is how long the marks of used routes are not read again, for each route.
	usedPause = 200 * time.Microsecond
)

func newKernelPath(device string, h ip.Host) *kernelPath {
	k := &kernelPath{
		device: device, log: h.Log, filtered: h.Filtered, poke: h.Poke, able: sync.OnceValue(offload.Supported),
		before: map[string]uint64{},
	}
	if k.filtered == nil {
		k.filtered = func(ip.Flow) (string, error) { return "", nil }
	}
	if k.poke == nil {
		k.poke = func() {}
	}
	return k
}

// receives reports whether the kernel takes packets from kernels, and before the first decision whether it may.
func (k *kernelPath) receives() bool {
	k.mu.Lock()
	decided, reason := k.decided, k.reason
	k.mu.Unlock()
	if decided {
		return reason == ""
	}
	return k.able() == nil
}

// path says where packets are carried.
func (k *kernelPath) path() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !k.decided:
		return ""
	case k.reason != "":
		return "user space: " + k.reason
	}
	return "kernel"
}

// carry takes in what is wanted now.
func (k *kernelPath) carry(w kernelWant) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	w.spec.Name = k.device
	n, _ := strconv.ParseUint(strings.TrimPrefix(k.device, "flannel"), 10, 16) // Devices has names with numbers only
	w.spec.Slot = uint16(n)
	k.want = w
	return k.checkLocked()
}

// checkLocked makes the kernel be as wanted. The error says that programs are there that must not be.
func (k *kernelPath) checkLocked() error {
	against, err := k.decideLocked()
	if err == nil && against == "" {
		err = k.useLocked()
	}
	before := k.blind
	// The host lacks what it takes to look, or to change anything: all stays as it is until the next look.
	k.blind = errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) ||
		errors.Is(err, unix.ENOBUFS)
	switch {
	case k.blind && !before:
		k.log.Warn("BPF programs not checked, retrying", "reason", err)
		return nil
	case k.blind:
		return nil
	case err != nil:
		against = err.Error()
	case against == "":
		k.reportLocked("")
		return nil
	}
	if k.decided && k.reason != "" && k.programs == nil {
		k.reportLocked(against)
		return nil // they are away already
	}
	k.dropLocked(nil)
	switch err := ip.DetachPrograms(k.device); {
	case err != nil && against == notAsked:
		k.log.Debug("BPF programs of an earlier run not looked for", "reason", err)
	case err != nil:
		return err
	}
	k.reportLocked(against)
	return nil
}

// decideLocked says what speaks against the programs; empty: nothing. The error says why that is not known.
func (k *kernelPath) decideLocked() (against string, err error) {
	if k.want.against != "" {
		return k.want.against, nil
	}
	device, _, err := ip.Ethernet(k.device)
	if errors.Is(err, unix.ENODEV) {
		return deviceGone, nil
	}
	if err != nil {
		return "", err
	}
	underlay, isEthernet, err := ip.Ethernet(k.want.link)
	if err != nil {
		return "", err
	}
	if !isEthernet {
		return fmt.Sprintf("the interface %s is no Ethernet", k.want.link), nil
	}
	k.want.spec.Device, k.want.spec.Underlay = device, underlay
	policy, err := ip.IPsec()
	if err != nil {
		return "", err
	}
	if policy != "" {
		return fmt.Sprintf("there are IPsec policies, which the kernel would not apply: %s", policy), nil
	}
	return k.filtered(ip.Flow{Link: k.want.link, Local: k.want.spec.Local, Port: k.want.spec.Port})
}

// useLocked has the programs carry packets.
func (k *kernelPath) useLocked() error {
	peers := k.narrow.without(k.want.peers, k.want.spec.Local)
	if p := k.programs; p != nil && p.Spec == k.want.spec {
		k.set(p, peers)
		n, err := p.Attach()
		if n > 0 {
			k.repaired += uint64(n)
			k.log.Warn("BPF programs attached again after another program had detached them", "device", k.device, "programs", n)
		}
		return err
	}
	p, err := offload.Load(k.want.spec)
	if err != nil {
		return err
	}
	k.set(p, peers)
	if _, err := p.Attach(); err != nil {
		p.Close()
		return err
	}
	k.dropLocked(p)
	return p.Keep()
}

func (k *kernelPath) set(p *offload.Programs, peers offload.Peers) {
	if err := p.Set(peers); err != nil {
		k.log.Warn("packets to some peers carried in user space", "reason", err)
	}
}

// dropLocked replaces the programs, and keeps what the ones before have counted.
func (k *kernelPath) dropLocked(next *offload.Programs) {
	if k.programs != nil {
		for name, n := range k.programs.Counters() {
			k.before[name] += n
		}
		k.earlier = k.trafficLocked()
		k.programs.Close()
	}
	k.programs = next
}

func (k *kernelPath) reportLocked(reason string) {
	if k.decided && k.reason == reason {
		return
	}
	k.decided, k.reason = true, reason
	switch reason {
	case notAsked, deviceGone:
	case "":
		k.log.Info("packets are carried inside the kernel", "device", k.device)
	default:
		k.log.Info("packets are carried in user space", "device", k.device, "reason", reason)
	}
}

// counters adds what the kernel has carried.
func (k *kernelPath) counters(to map[string]uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, n := range k.before {
		to[name] += n
	}
	if k.programs != nil {
		for name, n := range k.programs.Counters() {
			to[name] += n
		}
	}
	to["BPF programs attached again"] += k.repaired
}

// traffic returns what the kernel has carried, by the public address of the peer.
func (k *kernelPath) traffic() map[netip.Addr]offload.Traffic {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.trafficLocked()
}

func (k *kernelPath) trafficLocked() map[netip.Addr]offload.Traffic {
	if k.programs == nil {
		return k.earlier
	}
	out := k.programs.Traffic()
	for host, t := range out {
		out[host] = t.Add(k.earlier[host])
	}
	return out
}

// used adds the hosts that the kernel has sent packets to.
func (k *kernelPath) used(to map[netip.Addr]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.programs == nil || time.Now().Before(k.look) {
		return
	}
	k.programs.Used(to)
	k.look = time.Now().Add(time.Duration(len(k.want.peers.Routes)) * usedPause)
}

// run looks after the programs until ctx ends. It leaves them in place then.
func (k *kernelPath) run(ctx context.Context) {
	changed, routes := make(chan struct{}, 1), make(chan struct{}, 1)
	var done sync.WaitGroup
	defer done.Wait()
	for _, g := range []struct {
		protocol, group int
		changed         chan struct{}
	}{
		{unix.NETLINK_ROUTE, unix.RTNLGRP_TC, changed}, {unix.NETLINK_XFRM, groupPolicies, changed},
		{unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_ROUTE, routes},
	} {
		done.Go(func() { listen(ctx, g.protocol, g.group, g.changed) })
	}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	ready := routes // nil until the next tick: a host whose routes never rest looks no oftener
	for {
		again := false // look up the routes
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			ready = routes
		case <-ready:
			ready, again = nil, true
		case <-changed:
		}
		k.check(again)
	}
}

// check looks after the programs; again says that routes to peers may have changed.
func (k *kernelPath) check(again bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.decided || k.reason == notAsked {
		return
	}
	if again {
		k.narrow.forget()
	}
	used := k.reason == ""
	if err := k.checkLocked(); err != nil {
		k.log.Error("BPF programs not detached, retrying", "error", err)
	}
	if used != (k.reason == "") {
		k.poke()
	}
}

// groupPolicies is XFRMNLGRP_POLICY (include/uapi/linux/xfrm.h).
const groupPolicies = 4

// listen signals notifications of a netlink group until ctx ends, and once when it begins: what changed before is told
// to nobody. Without a socket the tick remains.
func listen(ctx context.Context, protocol, group int, changed chan<- struct{}) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return
	}
	file := os.NewFile(uintptr(fd), "netlink")
	stop := context.AfterFunc(ctx, func() { _ = file.Close() })
	defer func() {
		if stop() {
			_ = file.Close()
		}
	}()
	if unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil ||
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group) != nil {
		return
	}
	buf := make([]byte, 16<<10)
	for {
		select {
		case changed <- struct{}{}:
		default:
		}
		if _, err := file.Read(buf); err != nil && (ctx.Err() != nil || !errors.Is(err, unix.ENOBUFS)) {
			return
		}
	}
}
