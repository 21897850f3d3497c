package keeper_test

import (
	"slices"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

// TestARestartGoesOnWithoutAListIfTheStoreIsTheSame stops a host, changes the store, and looks whether the next run
// has listed and knows all peers, whether the peers were written down at the end or before the last change.
func TestARestartGoesOnWithoutAListIfTheStoreIsTheSame(t *testing.T) {
	for _, tt := range append(slices.Clone(aways), []away{
		{"a record goes", func(s *subnettest.Server, _ subnettest.Backup) { s.Remove(keyOf(known)) }, 0, nil},
		{"all records go", func(s *subnettest.Server, _ subnettest.Backup) {
			s.Remove(keyOf(known))
			for _, e := range s.Entries() {
				s.Remove(e.Key)
			}
		}, 0, []string{known}},
		{"another store is there", func(s *subnettest.Server, _ subnettest.Backup) {
			s.Wipe()
			s.SetConfig([]byte(netConfig))
		}, 1, []string{known}},
	}...) {
		for _, early := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				network(t, func(t *testing.T, s *subnettest.Server) {
					h := newHost(t, s, 1)
					s.Put(record("x", "x", known, "192.0.2.99"))
					b := s.Backup()
					h.start()
					after(time.Minute)
					written := h.remembered()
					s.Put(record("x", "x", known, "192.0.2.99"))
					after(time.Second)
					if !early {
						written = h.remembered()
					}
					h.options.State = throughFile(t, written)
					h.quit()
					tt.change(s, b)
					lists, own := h.client.Counts()["List"], written.Own.Prefixes()
					h.start()
					after(time.Minute)
					if got := h.client.Counts()["List"] - lists; got != tt.lists {
						t.Errorf("%d lists, want %d", got, tt.lists)
					}
					var peers []string
					for p := range h.manager.View().Peers.All() {
						peers = append(peers, p.Subnet.String())
					}
					slices.Sort(peers)
					if v := h.manager.View(); !slices.Equal(peers, tt.peers) || !v.Status.Held || v.Own.Prefixes()[0] != own[0] {
						t.Errorf("peers %v, want %v; own %v, want %v; %+v", peers, tt.peers, v.Own.Prefixes(), own, v.Status)
					}
					h.quit()
				})
			})
		}
	}
}

// throughFile is a state as it comes back from the disk.
func throughFile(t *testing.T, st subnet.State) subnet.State {
	t.Helper()
	dir, err := subnet.OpenState(t.TempDir(), "/run/flannel/subnet.env")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := dir.Save(st); err != nil {
		t.Fatal(err)
	}
	if err := dir.SaveMemory(st.Memory); err != nil {
		t.Fatal(err)
	}
	out, err := dir.Load()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestARestartWithoutAListUsesTheConfigurationOfNow: the watch tells those in between once more.
func TestARestartWithoutAListUsesTheConfigurationOfNow(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(time.Minute)
		h.options.State = throughFile(t, h.remembered())
		h.quit()
		s.SetConfig([]byte(`{"Network":"10.6.0.0/16","Backend":{"Type":"host-gw"}}`))
		const now = `{"Network":"10.5.0.0/16","SubnetMax":"10.5.90.0","Backend":{"Type":"vxlan"}}`
		s.SetConfig([]byte(now))
		lists := h.client.Counts()["List"]
		h.start()
		after(time.Minute)
		v := h.manager.View()
		if got := h.client.Counts()["List"]; got != lists || v.Text != now || v.Status.Pending != "" {
			t.Errorf("%d lists, configuration %s, pending %q", got-lists, v.Text, v.Status.Pending)
		}
		h.quit()
	})
}

// TestAHostThatStartsWithoutTheStoreLearnsTheConfigurationOfNow: the watch begins after the change that the last run
// has heard of and could not follow.
func TestAHostThatStartsWithoutTheStoreLearnsTheConfigurationOfNow(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(time.Minute)
		s.SetConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`))
		after(time.Minute)
		if h.manager.View().Status.Pending == "" {
			t.Fatal("the change is followed by a host that runs")
		}
		h.options.State = throughFile(t, h.remembered())
		h.quit()
		h.client.Cut(true)
		h.start()
		after(time.Minute)
		if got := h.manager.View().Status.Pending; got != "" {
			t.Errorf("without the store: pending %q", got)
		}
		lists := h.client.Counts()["List"]
		h.client.Cut(false)
		after(time.Minute)
		if got := h.client.Counts()["List"]; got != lists || h.manager.View().Status.Pending == "" {
			t.Errorf("%d lists, and the change of the backend is not pending", got-lists)
		}
		h.quit()
	})
}

// TestARestartedHostAnswersAClaimThatWasMadeBefore: who asks for its record must learn that it lives.
func TestARestartedHostAnswersAClaimThatWasMadeBefore(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(time.Minute)
		own := h.manager.View().Own
		h.client.Cut(true) // it hears the claim and cannot answer
		claim := own
		claim.Host, claim.Claim = "clone", true
		s.Put(claim)
		m := h.remembered()
		entry := s.Entries()
		i := slices.IndexFunc(entry, func(e subnet.Entry) bool { return e.Claim })
		m.Memory.Claims, m.Memory.Revision = []subnet.Entry{entry[i]}, s.Revision()
		m.Memory.Trail = append(m.Memory.Trail, subnet.Event{Revision: entry[i].Revision, Put: &entry[i]})
		h.options.State = throughFile(t, m)
		h.quit()
		h.client.Cut(false)
		lists := h.client.Counts()["List"]
		h.start()
		after(2 * time.Second)
		standing := slices.ContainsFunc(s.Entries(), func(e subnet.Entry) bool { return e.Claim })
		if got := h.client.Counts()["List"]; got != lists || standing {
			t.Errorf("%d lists; the claim stands: %t", got-lists, standing)
		}
		h.quit()
	})
}
