package keeper_test

import (
	"strings"
	"testing"
	"time"

	"flanneld/subnet/subnettest"
)

func TestAKeyInTheNetworkConfigurationIsNotLogged(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		const config = `{"Network":"10.5.0.0/16","SubnetMax":"10.5.9.0","Backend":{"Type":"wireguard","PSK":"hunter2"}}`
		s.SetConfig([]byte(config))
		h := newHost(t, s, 1).start()
		after(time.Second)
		s.SetConfig([]byte(strings.Replace(config, "10.5.9.0", "10.5.19.0", 1)))
		after(time.Second)
		h.wantLog("10.5.19.0")
		if strings.Contains(h.log.String(), "hunter2") {
			t.Errorf("the log has the key:\n%s", h.log)
		}
		_ = h.quit()
	})
}

// TestAHostStartsWithTheConfigurationOfItsLastRun where the store has none that is valid, unless that is another store.
func TestAHostStartsWithTheConfigurationOfItsLastRun(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config string // empty: none
		wiped  bool
		again  bool // the host has registered in it, and what it knows of its peers is still of the store before
		starts bool
		says   string
	}{
		{name: "invalid", config: `{"Network":`, starts: true, says: "the network configuration is invalid"},
		{name: "deleted", starts: true, says: "the network configuration was deleted"},
		{name: "of a store that was wiped", wiped: true, says: "network configuration /net/config is missing"},
		{name: "of a store that was wiped while the host ran", wiped: true, again: true, starts: true,
			says: "the network configuration was deleted"},
		{name: "invalid in a store that was wiped", config: "{", wiped: true, says: "/net/config is invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			network(t, func(t *testing.T, s *subnettest.Server) {
				h := newHost(t, s, 1).start()
				after(0)
				first := h.subnet()
				state := h.remembered()
				_ = h.quit()
				if tt.wiped {
					s.Wipe()
				}
				if tt.again {
					s.SetConfig([]byte(netConfig))
					h = newHost(t, s, 1)
					h.options.State = state
					h.start()
					after(time.Second)
					state.Store = h.manager.View().Position.Cluster
					first = h.subnet()
					_ = h.quit()
				}
				var text []byte
				if tt.config != "" {
					text = []byte(tt.config)
				}
				s.SetConfig(text)
				h = newHost(t, s, 1)
				h.options.State = state
				h.start()
				after(time.Second)
				if got := h.subnet(); (got == first) != tt.starts {
					t.Errorf("subnet %s, before %s, want the same: %t", got, first, tt.starts)
				}
				st := h.manager.Status()
				if !strings.Contains(st.Pending+st.Waiting, tt.says) {
					t.Errorf("status %q, %q, want %q", st.Pending, st.Waiting, tt.says)
				}
				// Mended.
				s.SetConfig([]byte(netConfig))
				after(10 * time.Second)
				if st := h.manager.Status(); !h.subnet().IsValid() || st.Pending != "" || st.Waiting != "" {
					t.Errorf("with a valid configuration: subnet %s, status %q, %q", h.subnet(), st.Pending, st.Waiting)
				}
				_ = h.quit()
			})
		})
	}
}
