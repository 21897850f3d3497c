package subnet_test

import (
	"testing"

	"flanneld/subnet/subnettest"
)

func TestAnOddHostNameDoesNotHideTheOwnRecord(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		for range 2 {
			h := newHost(t, s, 1)
			h.options.Host = "my host\x1b\xff"
			h.start()
			after(0)
			if e := s.Entries(); len(e) != 1 || e[0].Host != "my?host??" || !h.manager.Status().Held {
				t.Errorf("records %+v", e)
			}
			if h.client.Counts()["Create"] > 1 || h.client.Counts()["Update"] > 0 {
				t.Errorf("calls %v", h.client.Counts())
			}
			h.quit()
		}
	})
}
