package registry

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"flanneld/subnet"
)

// TestAMoveOfAThousandHosts is the view of one of them: the others step forth in any order, some at each pass. It sends
// to each by what that receives by, and changes the routes of those only whose path changes.
func TestAMoveOfAThousandHosts(t *testing.T) {
	for _, to := range []string{`{"Type":"wireguard"}`, `{"Type":"host-gw"}`, `{"Type":"vxlan","VNI":2}`} {
		t.Run(to, func(t *testing.T) { moveThousand(t, to) })
	}
}

// data is what record number i of a backend carries.
func data(setting string, i int) (kind, text string) {
	key := sha256.Sum256(fmt.Append(nil, i))
	switch setting {
	case `{"Type":"host-gw"}`:
		return "host-gw", ""
	case `{"Type":"wireguard"}`:
		return "wireguard", fmt.Sprintf(`{"PublicKey":%q}`, base64.StdEncoding.EncodeToString(key[:]))
	case `{"Type":"vxlan","VNI":2}`:
		return "vxlan", fmt.Sprintf(`{"VNI":2,"VtepMAC":"02:00:00:02:%02x:%02x"}`, i>>8, i&255)
	}
	return "vxlan", fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:01:%02x:%02x"}`, i>>8, i&255)
}

// recordAt is that of host number i at a stage of the move.
func recordAt(stage, i int, from, to string) *subnet.Entry {
	addr := netip.AddrFrom4([4]byte{192, 0, byte(2 + i>>8), byte(i)})
	l := subnet.Lease{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)}
	main, other := from, to
	if stage >= switched {
		main, other = to, from
	}
	l.PublicIP = addr
	l.BackendType, l.BackendData = data(main, i)
	if stage == offering || stage == switched {
		kind, text := data(other, i)
		l.Offers = subnet.OffersText([]subnet.Offer{{Type: kind, Data: text}})
	}
	r := subnet.Record{Leases: []subnet.Lease{l}}
	return &subnet.Entry{Record: r, Key: r.Key(), LeaseID: 1}
}

func moveThousand(t *testing.T, to string) {
	const hosts, atOnce, from = 1000, 333, `{"Type":"vxlan"}`
	m := newMover(t, from, to, 1, `"Network":"10.0.0.0/8"`)
	m.kernel.Underlay("eth0", "192.0.2.1/16")
	w := &walker{mover: m}
	stages := make([]int, hosts)
	var entries []*subnet.Entry
	for i := 2; i <= hosts; i++ {
		entries = append(entries, recordAt(before, i, from, to))
	}
	pass := func() {
		t.Helper()
		if err := w.applier.Set(w.self, subnet.PeersOfEntries(entries...)); err != nil {
			t.Fatal(err)
		}
		if n := len(w.applier.Skipped()); n != 0 {
			t.Fatalf("%d hosts are skipped: %v", n, w.applier.Skipped())
		}
	}
	pass()
	for stage := offering; stage <= after; stage++ {
		w.enter(stage)
		pass()
		order := rand.Perm(len(entries))
		for len(order) > 0 {
			some := order[:min(atOnce, len(order))]
			order = order[len(some):]
			for _, at := range some {
				entries[at], stages[at] = recordAt(stage, at+2, from, to), stage
			}
			pass()
			for at, e := range entries {
				w.sendsTo(e, stages[at])
			}
			if t.Failed() {
				return
			}
		}
	}
}

// sendsTo wants packets to a host to go by the preferred backend that both have.
func (w *walker) sendsTo(e *subnet.Entry, stage int) {
	link := w.route(e.Leases[0].Subnet).Link
	want := w.from
	if w.stage >= switched && stage >= offering || w.stage >= offering && stage == after {
		want = w.to
	}
	links := want.Owns().Links
	if len(links) == 0 {
		links = []string{"eth0"}
	}
	if link != links[0] {
		w.t.Errorf("at stage %d packets to %s, at stage %d, go by %q, want %s", w.stage, e.Leases[0].Subnet, stage, link,
			links[0])
	}
}
