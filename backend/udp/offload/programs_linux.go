package offload

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/cilium/ebpf"

	"flanneld/ip"
)

// Spec is what the programs are made for. It is comparable: another one needs other programs.
type Spec struct {
	Name             string // of the device
	Slot             uint16 // tells apart the devices of a host
	Device, Underlay int    // numbers of the links
	Local            netip.Addr
	Own              netip.Addr // that no peer may use as a source, beside Local
	Port             uint16
	Self, Network    netip.Prefix
}

// Route is the way to the subnet of a peer.
type Route struct {
	Host   netip.Addr // public address
	Kernel bool       // the peer takes packets that the kernel has sent
}

// Peers is what the programs know of the peers.
type Peers struct {
	Routes map[netip.Prefix]Route
	Hosts  map[netip.Addr]netip.Addr // public addresses by where packets come from
}

// Programs are the two programs with their maps, in the kernel. One goroutine at a time may use them.
type Programs struct {
	Spec
	objects programsObjects
	peers   Peers
	counted map[netip.Addr]bool // peers whose traffic is counted, by public address
}

// prefixKey, routeValue: struct prefix, struct route of datapath.c.
type prefixKey struct {
	Bits uint32
	Addr [4]byte
}

type routeValue struct {
	Host   [4]byte
	Kernel uint32
	Used   uint32
}

// Load loads the programs. They see no packets before Attach.
func Load(s Spec) (*Programs, error) {
	spec, err := loadPrograms()
	if err != nil {
		return nil, fmt.Errorf("read BPF programs: %w", err)
	}
	for name, value := range map[string]uint32{
		programsVarDevice: uint32(s.Device), programsVarUnderlay: uint32(s.Underlay),
		programsVarLocal: word(s.Local), programsVarOwn: word(s.Own),
		programsVarSelf: word(s.Self.Masked().Addr()), programsVarSelfMask: mask(s.Self),
		programsVarNetwork: word(s.Network.Masked().Addr()), programsVarNetworkMask: mask(s.Network),
	} {
		err = errors.Join(err, spec.Variables[name].Set(value))
	}
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], s.Port)
	err = errors.Join(err, spec.Variables[programsVarPort].Set(binary.NativeEndian.Uint16(port[:])))
	if err != nil {
		return nil, fmt.Errorf("set constants of BPF programs: %w", err)
	}
	spec.Programs[programsProgSend].Name = ip.Hook{Device: s.Name, Egress: true}.ProgramName()
	spec.Programs[programsProgReceive].Name = ip.Hook{Device: s.Name}.ProgramName()
	p := &Programs{Spec: s, peers: Peers{map[netip.Prefix]Route{}, map[netip.Addr]netip.Addr{}},
		counted: map[netip.Addr]bool{}}
	if err := spec.LoadAndAssign(&p.objects, nil); err != nil {
		return nil, fmt.Errorf("load BPF programs: %w", explain(err))
	}
	return p, nil
}

// explain leaves away the listing of a program that the kernel refuses, and says which right is missing.
func explain(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("the daemon lacks the capability CAP_BPF: %w", fs.ErrPermission)
	}
	if v := (*ebpf.VerifierError)(nil); errors.As(err, &v) && len(v.Log) > 0 {
		return fmt.Errorf("%w: %s", v.Cause, v.Log[len(v.Log)-1])
	}
	return err
}

// word returns an address as it stands in a packet.
func word(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func mask(p netip.Prefix) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(uint64(1<<32-1)<<(32-p.Bits())))
	return binary.NativeEndian.Uint32(b[:])
}

// Set has the programs know these peers. What does not fit is left to user space, and the error says so.
func (p *Programs) Set(now Peers) error {
	var errs []error
	for prefix := range p.peers.Routes {
		if _, stays := now.Routes[prefix]; !stays {
			errs = append(errs, gone(p.objects.Routes.Delete(keyOf(prefix))))
		}
	}
	for addr := range p.peers.Hosts {
		if _, stays := now.Hosts[addr]; !stays {
			errs = append(errs, gone(p.objects.Hosts.Delete(addr.As4())))
		}
	}
	have := p.peers
	p.peers = Peers{map[netip.Prefix]Route{}, map[netip.Addr]netip.Addr{}}
	for prefix, r := range now.Routes {
		if have.Routes[prefix] != r {
			v := routeValue{Host: r.Host.As4()}
			if r.Kernel {
				v.Kernel = 1
			}
			if err := p.objects.Routes.Put(keyOf(prefix), v); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		p.peers.Routes[prefix] = r
	}
	for addr, host := range now.Hosts {
		if have.Hosts[addr] != host {
			if err := p.objects.Hosts.Put(addr.As4(), host.As4()); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		p.peers.Hosts[addr] = host
	}
	if err := errors.Join(append(errs, p.countFor(now))...); err != nil {
		return fmt.Errorf("tell BPF programs of peers: %w", err)
	}
	return nil
}

func keyOf(p netip.Prefix) prefixKey { return prefixKey{uint32(p.Bits()), p.Masked().Addr().As4()} }

func gone(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// hooks returns where the programs are attached, and which.
func (p *Programs) hooks() map[ip.Hook]*ebpf.Program {
	return map[ip.Hook]*ebpf.Program{
		{Link: p.Device, Egress: true, Device: p.Name, Slot: p.Slot}: p.objects.Send,
		{Link: p.Underlay, Device: p.Name, Slot: p.Slot}:             p.objects.Receive,
	}
}

// Attach attaches the programs where they are not attached, and reports how many were not.
func (p *Programs) Attach() (attached int, err error) {
	for hook, program := range p.hooks() {
		info, err := program.Info()
		if err != nil {
			return attached, fmt.Errorf("read BPF program: %w", err)
		}
		id, _ := info.ID()
		if have, err := hook.Attached(); err != nil {
			return attached, err
		} else if have == int(id) {
			continue
		}
		if err := hook.Attach(program.FD()); err != nil {
			return attached, err
		}
		attached++
	}
	return attached, nil
}

// Keep detaches what earlier programs of the device have left at other links.
func (p *Programs) Keep() error {
	var hooks []ip.Hook
	for h := range p.hooks() {
		hooks = append(hooks, h)
	}
	return ip.DetachPrograms(p.Name, hooks...)
}

// Close forgets the programs. Attached, they go on.
func (p *Programs) Close() { _ = p.objects.Close() }

// Counters returns what the programs have counted, by name.
func (p *Programs) Counters() map[string]uint64 {
	out := make(map[string]uint64, len(names))
	var each []uint64
	for i, name := range names {
		if p.objects.Counters.Lookup(uint32(i), &each) != nil {
			continue // there is no such error, but for a fault of the kernel
		}
		for _, n := range each {
			out[name] += n
		}
	}
	return out
}

// Used adds the public addresses of peers that packets were sent to since it was called last.
func (p *Programs) Used(hosts map[netip.Addr]bool) {
	for prefix, r := range p.peers.Routes {
		var v routeValue
		if p.objects.Routes.Lookup(keyOf(prefix), &v) == nil && v.Used != 0 {
			v.Used = 0
			hosts[r.Host] = p.objects.Routes.Put(keyOf(prefix), v) == nil || hosts[r.Host]
		}
	}
}

// Supported says why the kernel does not run the programs for this process; nil: it does.
func Supported() error {
	addr, net := netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, 0}), 24)
	p, err := Load(Spec{Local: addr, Own: addr, Self: net, Network: net})
	if err == nil {
		p.Close()
	}
	return err
}
