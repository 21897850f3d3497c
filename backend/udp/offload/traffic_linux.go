package offload

import (
	"errors"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Traffic is what was sent to a peer and received from it: struct traffic of datapath.c.
type Traffic struct{ SentPackets, SentBytes, ReceivedPackets, ReceivedBytes uint64 }

// Add adds what was counted elsewhere.
func (t Traffic) Add(o Traffic) Traffic {
	return Traffic{t.SentPackets + o.SentPackets, t.SentBytes + o.SentBytes, t.ReceivedPackets + o.ReceivedPackets,
		t.ReceivedBytes + o.ReceivedBytes}
}

// countFor has the programs count the traffic of these peers, from nothing for those that are new.
func (p *Programs) countFor(now Peers) error {
	hosts := map[netip.Addr]bool{}
	for _, r := range now.Routes {
		hosts[r.Host] = true
	}
	for _, host := range now.Hosts {
		hosts[host] = true
	}
	var errs []error
	for host := range p.counted {
		if !hosts[host] {
			errs = append(errs, gone(p.objects.Peers.Delete(host.As4())))
			delete(p.counted, host)
		}
	}
	processors, err := ebpf.PossibleCPU()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	nothing := make([]Traffic, processors)
	for host := range hosts {
		if p.counted[host] {
			continue
		}
		if err := p.objects.Peers.Put(host.As4(), nothing); err != nil {
			errs = append(errs, err)
			continue
		}
		p.counted[host] = true
	}
	return errors.Join(errs...)
}

// Traffic returns what the programs have carried, by the public address of the peer.
func (p *Programs) Traffic() map[netip.Addr]Traffic {
	out := make(map[netip.Addr]Traffic, len(p.counted))
	var each []Traffic
	for host := range p.counted {
		if p.objects.Peers.Lookup(host.As4(), &each) != nil {
			continue // somebody else has deleted it
		}
		sum := Traffic{}
		for _, t := range each {
			sum = sum.Add(t)
		}
		out[host] = sum
	}
	return out
}
