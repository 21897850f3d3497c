package keeper_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

// wantCalm checks that the host has warned of nothing.
func (h *host) wantCalm() {
	h.t.Helper()
	if text := h.log.String(); strings.Contains(text, "level=WARN") || strings.Contains(text, "level=ERROR") {
		h.t.Errorf("%s warns:\n%s", h.name, text)
	}
}

func TestAHostThatHasLostItsStateFolderIsBackAtOnceAndWithoutAWarning(t *testing.T) {
	inEachFamily(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(time.Second)
		first := h.key()
		for _, away := range []time.Duration{0, time.Millisecond} { // the second run dies while it asks
			h.quit()
			h = newHost(t, s, 1)
			h.id = fmt.Sprint("new", away)
			h.start()
			after(away)
		}
		after(time.Second)
		if h.key() != first || !h.manager.Status().Held {
			t.Errorf("on %s, before %s, %+v", h.key(), first, h.manager.Status())
		}
		h.wantCalm()
		h.wantLog("new state folder")
		wantKeys(t, s, first)
		h.quit()
	})
}

func TestASecondDaemonOnTheSameMachineDoesNotTakeTheSubnetOfTheFirst(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(10 * time.Second)
		first := h.subnet()
		second := newHost(t, s, 1)
		second.id = "another"
		second.start()
		after(5 * time.Second)
		if h.subnet() != first || !h.manager.Status().Held || second.subnet().IsValid() {
			t.Errorf("first on %s, second on %s", h.subnet(), second.subnet())
		}
		h.quit()
		second.quit()
	})
}

func TestAHostThatIsAloneAndRenamedKeepsItsSubnetWithoutAWarning(t *testing.T) {
	inEachFamily(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(time.Second)
		first := h.key()
		h.quit()
		state := h.remembered()
		h = newHost(t, s, 1)
		h.options.Host, h.options.State = "renamed", state
		h.start()
		after(4 * time.Second) // a clone would have the identity, too: it asks as long as for any other record
		if e := s.Entries(); len(e) != 1 || e[0].Host != "renamed" || h.key() != first || !h.manager.Status().Held {
			t.Errorf("records %v, %+v", e, h.manager.Status())
		}
		h.wantCalm()
		h.quit()
	})
}

// TestARecordThatSomebodyEditsIsCorrectedAndNoCloneIsFound has an operator write over fields of a record while its host
// runs.
func TestARecordThatSomebodyEditsIsCorrectedAndNoCloneIsFound(t *testing.T) {
	for name, edit := range map[string]func(*subnet.Record){
		"address":       func(r *subnet.Record) { r.Leases[0].PublicIP = netip.MustParseAddr("198.51.100.7") },
		"host name":     func(r *subnet.Record) { r.Host = "somebody" },
		"both":          func(r *subnet.Record) { r.Host, r.Leases[0].PublicIP = "", netip.MustParseAddr("198.51.100.7") },
		"backend's":     func(r *subnet.Record) { r.Leases[0].BackendData = "{}" },
		"identity gone": func(r *subnet.Record) { r.Identity, r.Host = "", "" },
	} {
		for _, reservation := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reservation: %t", name, reservation), func(t *testing.T) {
				network(t, func(t *testing.T, s *subnettest.Server) {
					h := newHost(t, s, 1).start()
					after(time.Second)
					first := h.subnet()
					e, _ := recordOf(s, first)
					id, r := e.LeaseID, e.Record
					if r.Leases = slices.Clone(r.Leases); reservation {
						id = 0
					}
					edit(&r)
					s.PutLeased(r, id)
					after(10 * time.Second)
					got, ok := recordOf(s, first)
					if !ok || got.Identity != "id1" || got.Host != "host1" || got.Leases[0] != e.Leases[0] || h.subnet() != first {
						t.Errorf("record %+v, want %+v, subnet %s", got, e, h.subnet())
					}
					if len(s.Entries()) != 1 {
						t.Errorf("records %v", s.Entries())
					}
					if err := h.quit(); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

// TestAClaimOfAnotherHostIsWaitedOut has claims stand in the way of a host that would take over its record from another
// address.
func TestAClaimOfAnotherHostIsWaitedOut(t *testing.T) {
	leased := func(t *testing.T, s *subnettest.Server, ttl time.Duration) subnet.LeaseID {
		id, err := s.Client("other").Grant(t.Context(), ttl)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	for name, tt := range map[string]struct {
		stand func(t *testing.T, s *subnettest.Server, r subnet.Record)
		until time.Duration // it stands
	}{
		"of another host": {func(t *testing.T, s *subnettest.Server, r subnet.Record) {
			s.PutLeased(r, leased(t, s, 30*time.Second))
		}, 30 * time.Second},
		"invalid, without a lease": {func(_ *testing.T, s *subnettest.Server, r subnet.Record) { s.PutBad(r.Key(), "junk") },
			0},
		"without a lease": {func(_ *testing.T, s *subnettest.Server, r subnet.Record) { s.Put(r) }, 0},
		"of the last run": {func(t *testing.T, s *subnettest.Server, r subnet.Record) {
			r.Host, r.Leases[0].PublicIP = "host1", netip.MustParseAddr("198.51.100.1")
			s.PutLeased(r, leased(t, s, 30*time.Second))
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			network(t, func(t *testing.T, s *subnettest.Server) {
				h := newHost(t, s, 1).start()
				after(time.Second)
				first := h.subnet()
				h.quit()
				claim := record("x", "x", first.String(), "203.0.113.9")
				claim.Claim = true
				tt.stand(t, s, claim)
				h = newHost(t, s, 1)
				h.address = netip.MustParseAddr("198.51.100.1")
				h.start()
				if tt.until > 0 {
					after(tt.until - time.Second)
					if h.manager.Status().Held {
						t.Error("the record was taken although another claims it")
					}
				}
				after(10 * time.Second)
				if e, _ := recordOf(s, first); h.subnet() != first || e.Leases[0].PublicIP != h.address ||
					!h.manager.Status().Held {
					t.Errorf("subnet %s, record %+v, %+v", h.subnet(), e, h.manager.Status())
				}
				wantCalls(t, h, 40)
				h.quit()
			})
		})
	}
}

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

// TestManyRecordsWithTheAddressOfANewHostDelayItNoMoreThanOne counts requests and processor time.
func TestManyRecordsWithTheAddressOfANewHostDelayItNoMoreThanOne(t *testing.T) {
	const n = 20_000
	for _, identity := range []string{"", "x"} {
		network(t, func(t *testing.T, s *subnettest.Server) {
			s.SetConfig([]byte(`{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}`))
			for i := range n {
				r := record(identity, identity, fmt.Sprintf("10.%d.%d.0/24", 1+i/256, i%256), "192.0.0.1")
				if identity != "" {
					r.Identity = fmt.Sprint(identity, i)
				}
				s.Put(r)
			}
			before := cpuTime(t)
			h := newHost(t, s, 1).start()
			after(5 * time.Second)
			if !h.manager.Status().Held {
				t.Errorf("%+v", h.manager.Status())
			}
			h.manager.View()
			wantCalls(t, h, 40)
			t.Logf("%s of a processor", cpuTime(t)-before)
			h.quit()
		})
	}
}
