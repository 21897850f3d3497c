package kube_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flanneld/need"
	"flanneld/subnet"
	"flanneld/subnet/kube"
)

// TestTheConfigurationChangesWhileTheSourceRuns goes through a move to another backend, whose offer is published.
func TestTheConfigurationChangesWhileTheSourceRuns(t *testing.T) {
	const head = `{"Network":"10.244.0.0/16","Backend":`
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	var followed []string
	var offers atomic.Value
	offers.Store("")
	h := start(t, s, "a", "192.0.2.1", func(o *kube.Options) {
		attrs := o.Attrs
		o.Attrs = func(p netip.Prefix) subnet.Attrs {
			a := attrs(p)
			a.Offers = offers.Load().(string)
			return a
		}
		o.Following = subnet.Following{
			Read: func(text []byte) (subnet.Config, error) {
				c, err := subnet.ParseConfig(text)
				return c.Assigned(), err
			},
			Follow: func(c subnet.Config) error {
				if c.BackendType == "extension" {
					return errors.New("no such command")
				}
				followed = append(followed, strings.Join(c.Kinds(), "+"))
				return nil
			},
		}
	})
	need.Until(t, "published", time.Minute, func() bool { return h.Status().Held })
	for _, tt := range []struct{ text, pending string }{
		{netConf, ""},
		{head + `{"Type":"vxlan"},"Next":{"Type":"host-gw"}}`, ""},
		{head + `{"Type":"udp"}}`, "restart flanneld"},
		{head + `{"Type":"extension"},"Previous":{"Type":"vxlan"}}`, "no such command"},
		{`{`, "invalid"},
		{head + `{"Type":"host-gw"},"Previous":{"Type":"vxlan"}}`, ""},
		{head + `{"Type":"host-gw"},"Migrated":{"Type":"vxlan"}}`, ""},
	} {
		h.SetConfig([]byte(tt.text))
		if got := h.Status().Pending; (got == "") != (tt.pending == "") || !strings.Contains(got, tt.pending) {
			t.Errorf("%s: pending %q, want %q", tt.text, got, tt.pending)
		}
		if v := h.View(); tt.pending == "" && v.Text != tt.text {
			t.Errorf("in use is %s, want %s", v.Text, tt.text)
		}
	}
	if want := []string{"vxlan+host-gw", "host-gw+vxlan", "host-gw"}; !slices.Equal(followed, want) {
		t.Errorf("followed to %q, want %q", followed, want)
	}
	offers.Store(`[{"Type":"host-gw"}]`)
	h.Refresh()
	need.Until(t, "the offer is published", time.Minute, func() bool {
		return s.annotation("a", "offers") == `[{"Type":"host-gw"}]`
	})
}
