package keeper_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flanneld/subnet"
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
			var mu sync.Mutex // guards rng
			random := func(n int) time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(rng.IntN(n))
			}
			for _, h := range hosts {
				own = append(own, h.subnet())
				slow := random(2) == 0
				h.client.Lag(random(3) * 500 * time.Millisecond)
				h.client.OnCall(func(string) (f subnettest.Fault) {
					if slow {
						f.Delay = random(1500) * time.Millisecond
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

func TestAMoveToAnotherBackendIsFollowedAtOnce(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		const (
			vxlan = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}`
			wg    = `{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard"}`
		)
		var followed []string
		refusal := error(nil)
		h := newHost(t, s, 1)
		h.options.Follow = func(c subnet.Config) error {
			if refusal == nil {
				followed = append(followed, c.BackendType+" "+c.Next.Type+" "+c.Previous.Type)
			}
			return refusal
		}
		h.start()
		after(0)
		held := h.subnet()
		for _, tt := range []struct {
			config   string
			refusal  error
			followed string // last
			pending  string
		}{
			{vxlan + `,"Next":{"Type":"wireguard"}}`, nil, "vxlan wireguard ", ""},
			{wg + `,"Previous":{"Type":"vxlan"}}`, errors.New("no key"), "vxlan wireguard ", "no key"},
			{wg + `,"Previous": {"Type":"vxlan"}}`, nil, "wireguard  vxlan", ""},
			{wg + `,"Migrated":{"Type":"vxlan"}}`, nil, "wireguard  ", ""},
			{`{"Network":"10.5.0.0/16","Backend":{"Type":"udp"}}`, nil, "wireguard  ", "restart flanneld"},
			{`{"Network":"10.9.0.0/16","Backend":{"Type":"udp"},"Migrated":{"Type":"wireguard"}}`, nil, "wireguard  ",
				"restart flanneld"},
			{`{"Network":"10.5.0.0/16","Backend":{"Type":"udp"},"Migrated":{"Type":"wireguard"}}`, nil, "udp  ", ""},
		} {
			refusal = tt.refusal
			s.SetConfig([]byte(tt.config))
			after(time.Second)
			pending := h.manager.Status().Pending
			if len(followed) == 0 || followed[len(followed)-1] != tt.followed || (pending == "") != (tt.pending == "") ||
				!strings.Contains(pending, tt.pending) {
				t.Errorf("%s: followed %q, pending %q", tt.config, followed, pending)
			}
		}
		if h.subnet() != held || !h.manager.Status().Held {
			t.Errorf("the subnet %s has become %s", held, h.subnet())
		}
		h.quit()
	})
}

// TestAConfigurationThatTheStoreHasNoLongerIsNotFollowed has a host hear of a move when that was given up already, and
// of the next one while the store does not tell what it has.
func TestAConfigurationThatTheStoreHasNoLongerIsNotFollowed(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		const (
			offered  = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"},"Next":{"Type":"wireguard"}}`
			switched = `{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard"},"Previous":{"Type":"vxlan"}}`
		)
		var followed []string
		h := newHost(t, s, 1)
		h.options.Follow = func(c subnet.Config) error {
			followed = append(followed, strings.Join(c.Kinds(), " "))
			return nil
		}
		h.start()
		after(0)
		s.SetConfig([]byte(offered))
		after(time.Second)
		h.client.Lag(10 * time.Second)
		s.SetConfig([]byte(switched))
		after(5 * time.Second)
		s.SetConfig([]byte(offered))
		after(time.Minute)
		if want := []string{"vxlan wireguard"}; !slices.Equal(followed, want) {
			t.Errorf("followed %q, want %q", followed, want)
		}
		failed := false
		h.client.OnCall(func(method string) (f subnettest.Fault) {
			if method == "Config" && !failed {
				failed = true
				f.Before = subnettest.ErrFault
			}
			return f
		})
		s.SetConfig([]byte(switched))
		after(time.Minute)
		if want := []string{"vxlan wireguard", "wireguard vxlan"}; !failed || !slices.Equal(followed, want) {
			t.Errorf("followed %q after an error (%v), want %q", followed, failed, want)
		}
		h.quit()
	})
}
