package keeper_test

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"flanneld/subnet/subnettest"
)

// watchPeer reads what the data plane of a host reads, after each change, until ctx ends: as long as the host has
// subnets, another host must be its peer in an IPv4 subnet.
func watchPeer(ctx context.Context, h *host, m *daemon, want netip.Prefix) {
	for {
		if v := m.View(); len(v.Self) > 0 {
			if _, ok := v.Peers.Find(want); !ok {
				h.t.Errorf("%s, on %v: no peer has %s any more", h.name, v.Own.Prefixes(), want)
				return
			}
		}
		k := m.running()
		if k == nil { // it waits for the configuration
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Millisecond):
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-k.Changed():
		}
	}
}

// TestHostsStayPeersInIPv4WhileTheirNetworkGetsAndLosesIPv6 restarts two hosts in turn for each change of the
// configuration, with a store that answers and tells slowly.
func TestHostsStayPeersInIPv4WhileTheirNetworkGetsAndLosesIPv6(t *testing.T) {
	for seed := range uint64(100) {
		withConfig(t, config4, func(t *testing.T, s *subnettest.Server) {
			rng := rand.New(rand.NewPCG(seed, 3))
			hosts := []*host{newHost(t, s, 1).start(), newHost(t, s, 2).start()}
			after(time.Second)
			var own []netip.Prefix
			for _, h := range hosts {
				own = append(own, h.subnet())
				slow := rng.IntN(2) == 0
				h.client.Lag(time.Duration(rng.IntN(3)) * 500 * time.Millisecond)
				h.client.OnCall(func(string) (f subnettest.Fault) {
					if slow {
						f.Delay = time.Duration(rng.IntN(1500)) * time.Millisecond
					}
					return f
				})
			}
			watching, stop := context.WithCancel(t.Context())
			for i, h := range hosts {
				go watchPeer(watching, h, h.manager, own[1-i])
			}
			for _, config := range []string{configDual, config4} {
				s.SetConfig([]byte(config))
				for i, h := range hosts {
					_ = h.quit()
					h.options.State = h.remembered()
					h.start()
					go watchPeer(watching, h, h.manager, own[1-i])
					after(10 * time.Second)
					if p := h.manager.View().Own.Prefixes(); len(p) == 0 || p[0] != own[i] {
						t.Errorf("seed %d: %s has %v, before %s", seed, h.name, p, own[i])
					}
				}
			}
			stop()
			for _, h := range hosts {
				_ = h.quit()
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
