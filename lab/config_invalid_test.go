package lab_test

import (
	"fmt"
	"strings"
	"testing"

	"flanneld/lab"
)

// TestAHostThatRebootsWhileTheConfigurationIsInvalidCarriesTraffic as it does while the store is away.
func TestAHostThatRebootsWhileTheConfigurationIsInvalidCarriesTraffic(t *testing.T) {
	t.Parallel()
	s := newSite(t, network{"vxlan", lab.Dual}, 2)
	s.connected()
	h := s.hosts[0]
	s.ok(s.daemons[0].Stop(s.ctx)) // which saves the position of the store
	s.ok(h.Run("ip link del flannel.1", "ip link del flannel-v6.1"))
	s.ok(s.store.Put(s.ctx, "config", `{"Network":`))
	s.daemons[0] = s.flanneld(h, s.store)
	s.connected()
	pending := func(want string) func() error {
		return func() error {
			if got := statusOf(t, s.cluster, s.daemons[0]).Pending; !strings.Contains(got, want) || want == "" && got != "" {
				return fmt.Errorf("pending is %q, want %q", got, want)
			}
			return nil
		}
	}
	s.await(pending("the network configuration is invalid"))
	s.ok(s.store.Put(s.ctx, "config", s.config()))
	s.await(pending(""))
}
