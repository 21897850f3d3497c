package subnet_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flanneld/subnet"
)

func record(id, host, prefix, ip string) subnet.Record {
	return subnet.Record{Identity: id, Host: host, Leases: []subnet.Lease{{
		Subnet: netip.MustParsePrefix(prefix),
		Attrs:  subnet.Attrs{PublicIP: netip.MustParseAddr(ip), BackendType: "vxlan", BackendData: `{"VNI":1}`},
	}}}
}

func openState(t *testing.T, dir string) *subnet.StateDir {
	t.Helper()
	s, err := subnet.OpenState(dir, "/run/flannel/subnet.env")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// memory is one of each kind of what a store can tell.
func memory() subnet.Memory {
	entry := func(r subnet.Record, revision int64, id subnet.LeaseID) *subnet.Entry {
		return &subnet.Entry{Record: r, Key: r.Key(), Revision: revision, Created: 2, LeaseID: id}
	}
	b := entry(record("b", "b", "10.5.4.0/24", "192.0.2.2"), 5, 77)
	reserved := entry(record("r", "r", "10.5.6.0/24", "192.0.2.4"), 3, 0)
	reserved.Value = `{"PublicIP":"192.0.2.4"}`
	claim := record("c", "c", "10.5.4.0/24", "192.0.2.2")
	claim.Claim = true
	bad := subnet.BadRecord{Key: "subnets/10.5.7.0-24", Revision: 6, LeaseID: 9, Err: errors.New("no address")}
	return subnet.Memory{
		Position: subnet.Position{Cluster: 1 << 63, Revision: 9},
		Records:  append(subnet.Stale(record("", "", "10.5.5.0/24", "192.0.2.3")), b, reserved),
		Claims:   []subnet.Entry{*entry(claim, 8, 78)}, Bad: []subnet.BadRecord{bad},
		Trail: []subnet.Event{{Revision: 5, Put: b}, {Revision: 6, Bad: &bad}, {Revision: 7, Deleted: "subnets/10.5.8.0-24"},
			{Revision: 8, Put: entry(claim, 8, 78)}, {Revision: 9, ConfigSet: true, Config: []byte("{\xff}")}},
	}
}

// TestPeersOfAnEarlierVersionAreKnown: its file has records alone, and ours may be read by it.
func TestPeersOfAnEarlierVersionAreKnown(t *testing.T) {
	dir := t.TempDir()
	s := openState(t, dir)
	const line = `{"Leases":[{"Subnet":"10.5.4.0/24","PublicIP":"192.0.2.2","Underlay":"","BackendType":"vxlan",` +
		`"BackendData":""}],"Identity":"b","Host":"b","Claim":false}`
	text := `{"Cluster":1,"Revision":7}` + "\n" + line + "\n"
	if err := errors.Join(s.Save(subnet.State{Identity: "me"}),
		os.WriteFile(filepath.Join(dir, "run-flannel-subnet.env.peers"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	st, err := s.Load()
	m := st.Memory
	if err != nil || m.Revision != 7 || len(m.Records) != 1 || m.Records[0].Revision != 0 || m.Trail != nil {
		t.Errorf("%v: %+v", err, m)
	}
}

// TestAMemoryThatIsNotWholeIsNoTrail: a host that goes on from it would not know what it lacks.
func TestAMemoryThatIsNotWholeIsNoTrail(t *testing.T) {
	for name, change := range map[string]func(m *subnet.Memory){
		"a record under another's key": func(m *subnet.Memory) { m.Records[1].Key = "subnets/10.5.9.0-24" },
		"a claim among the records":    func(m *subnet.Memory) { m.Records[1] = &m.Claims[0] },
		"a record among the claims":    func(m *subnet.Memory) { m.Claims[0] = *m.Records[1] },
		"a trail that proves nothing":  func(m *subnet.Memory) { m.Trail[0].Put.LeaseID = 0 },
		"a trail with a confirmation":  func(m *subnet.Memory) { m.Trail[1] = subnet.Event{Revision: 6} },
		"a trail with no subnet": func(m *subnet.Memory) {
			m.Trail[0].Put = &subnet.Entry{Key: "subnets/", LeaseID: 1, Revision: 5}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := openState(t, t.TempDir()), memory()
			change(&m)
			if err := errors.Join(s.SaveMemory(m), s.Save(subnet.State{Identity: "me"})); err != nil {
				t.Fatal(err)
			}
			st, err := s.Load()
			if err != nil || len(st.Memory.Records) != 3 || st.Memory.Trail != nil {
				t.Errorf("%v: %d records, trail %v, want 3 and none", err, len(st.Memory.Records), st.Memory.Trail)
			}
		})
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	want := subnet.State{
		Identity: "me", Network: "/net", Config: `{"Network":"10.5.0.0/16"}`,
		Own:   record("me", "a", "10.5.3.0/24", "192.0.2.1"),
		Until: time.Now().Add(time.Hour).UTC().Truncate(0),
		MACs:  map[string]string{"flannel.1": "02:00:00:00:00:01"}, Links: []string{"flannel.1"},
		Networks: prefixes("10.5.0.0/16"),
		Memory:   memory(),
	}
	s := openState(t, dir)
	if err := s.Save(want); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveMemory(want.Memory); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := openState(t, dir).Load()
	if diff := cmp.Diff(got, want, equate); diff != "" || err != nil {
		t.Errorf("%v (-got +want):\n%s", err, diff)
	}
}

func TestAHostWithoutStateGetsAnIdentityOfItsOwn(t *testing.T) {
	a, errA := openState(t, t.TempDir()).Load()
	b, errB := openState(t, t.TempDir()).Load()
	if errA != nil || errB != nil || a.Identity == "" || a.Identity == b.Identity {
		t.Errorf("identities %q (%v) and %q (%v)", a.Identity, errA, b.Identity, errB)
	}
}

func TestBrokenStateIsNamedAndTheDaemonGoesOnWithoutIt(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "no JSON": "{", "wrong type": `{"Own":7}`} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "run-flannel-subnet.env.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			st, err := openState(t, dir).Load()
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v does not name %s", err, path)
			}
			if st.Identity == "" || len(st.Own.Leases) > 0 {
				t.Errorf("got %+v, want only an identity", st)
			}
		})
	}
}

func TestASecondDaemonWithOneStateIsRefused(t *testing.T) {
	dir := t.TempDir()
	openState(t, dir)
	_, err := subnet.OpenState(dir, "/run/flannel/subnet.env")
	if err == nil || !strings.Contains(err.Error(), "another flanneld (pid ") {
		t.Errorf("got %v", err)
	}
	other, err := subnet.OpenState(dir, "/run/flannel/second.env")
	if err != nil {
		t.Fatalf("another subnet file: %v", err)
	}
	_ = other.Close()
}

func TestUsableStateIsOfThisNetworkAndNotTooOld(t *testing.T) {
	now := time.Now()
	good := subnet.State{
		Identity: "me", Network: "/net", Config: `{"Network":"10.5.0.0/16"}`,
		Own: record("me", "a", "10.5.3.0/24", "192.0.2.1"), Until: now.Add(time.Minute),
	}
	for _, tt := range []struct {
		name   string
		change func(*subnet.State)
		want   string // empty: usable
	}{
		{"as it should be", func(*subnet.State) {}, ""},
		{"a reservation never ends", func(s *subnet.State) { s.Until = time.Time{} }, ""},
		{"no lease", func(s *subnet.State) { s.Own = subnet.Record{} }, "holds no lease"},
		{"another network", func(s *subnet.State) { s.Network = "/other" }, "of the network /other"},
		{"an ended lease", func(s *subnet.State) { s.Until = now.Add(-time.Second) }, "has ended"},
		{"a broken configuration", func(s *subnet.State) { s.Config = "{}" }, "configuration"},
		{"a subnet outside the network", func(s *subnet.State) { s.Config = `{"Network":"10.6.0.0/16"}` },
			"not in the network"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := good
			tt.change(&st)
			err := st.Usable("/net", now)
			if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPeersOfAnySizeAreKnownAfterARestart(t *testing.T) {
	s := openState(t, t.TempDir())
	m := subnet.Memory{Position: subnet.Position{Cluster: 1, Revision: 7}, Trail: memory().Trail}
	for i := range 1500 {
		r := record(strings.Repeat("x", 62_000), "b", fmt.Sprintf("10.%d.%d.0/24", i/256, i%256), "192.0.2.2")
		m.Records = append(m.Records, subnet.Stale(r)...)
	}
	m.Records[0].Identity = "b"
	err := s.SaveMemory(m)
	if err == nil || !strings.Contains(err.Error(), "of 1500 peers not saved") {
		t.Errorf("saving: %v, want how many were left out", err)
	}
	if err := s.Save(subnet.State{Identity: "me"}); err != nil {
		t.Fatal(err)
	}
	st, err := s.Load()
	got := st.Memory
	if err != nil || len(got.Records) < 1000 || got.Records[0].Identity != "b" || got.Revision != 7 || got.Trail != nil {
		t.Errorf("got %d peers, %v, want those that the file has room for, and no trail", len(got.Records), err)
	}
}

func TestADamagedPeersFileCostsOnlyWhatIsBehindTheDamage(t *testing.T) {
	for name, damage := range map[string]string{
		"cut":       `{"Leases":[{"Sub`,
		"no record": "7\n",
		"no subnet": `{"Leases":[]}` + "\n",
		"zeros":     "\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openState(t, dir)
			want := []subnet.Record{record("b", "b", "10.5.4.0/24", "192.0.2.2"), record("c", "c", "10.5.5.0/24", "192.0.2.3")}
			m := memory()
			m.Records = subnet.Stale(want...)
			if err := errors.Join(s.SaveMemory(m), s.Save(subnet.State{Identity: "me"})); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "run-flannel-subnet.env.peers")
			text, err := os.ReadFile(path)
			if err == nil {
				last := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
				err = os.WriteFile(path, append(text[:last], damage...), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			st, err := s.Load()
			if err == nil || !strings.Contains(err.Error(), path+": only the first 1 were read") {
				t.Errorf("error %v, want one that names %s", err, path)
			}
			if diff := cmp.Diff(st.Memory.Peers("me"), want[:1], equate); diff != "" || st.Identity != "me" ||
				st.Memory.Trail != nil {
				t.Errorf("peers (-got +want):\n%s", diff)
			}
		})
	}
}

// TestPeersThatWereAddedAreKnownAfterARestart also where the end of the last one is missing: it costs that one, and not
// the trail, which tells it again.
func TestPeersThatWereAddedAreKnownAfterARestart(t *testing.T) {
	for name, tt := range map[string]struct {
		cut  int // bytes at the end
		more int // records
	}{"whole": {0, 2}, "cut": {3, 1}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, m := openState(t, dir), memory()
			entry := func(r subnet.Record, revision int64) *subnet.Entry {
				return &subnet.Entry{Record: r, Key: r.Key(), Revision: revision, Created: revision, LeaseID: 79}
			}
			newOwner := entry(record("d", "d", "10.5.4.0/24", "192.0.2.9"), 11)
			pair := entry(record("e", "e", "10.5.9.0/24", "192.0.2.8"), 12)
			pair.Leases = append(pair.Leases, record("e", "e", "fd00:5:0:9::/64", "192.0.2.8").Leases...)
			pair.Key = pair.Record.Key()
			before := subnet.PeersOfEntries(m.Records...)
			after := subnet.PeersOfEntries(m.Records[0], m.Records[2], newOwner)
			moved := entry(record("d", "d", "10.5.10.0/24", "192.0.2.9"), 12)
			last := subnet.PeersOfEntries(m.Records[0], m.Records[2], moved)
			err := errors.Join(s.Save(subnet.State{Identity: "me"}), s.SaveMemory(m), s.AddPeers(before, before),
				s.AddPeers(before, after), s.AddPeers(after, last),
				s.AddPeers(last, subnet.PeersOfEntries(m.Records[0], m.Records[2], moved, pair)))
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "run-flannel-subnet.env.peers")
			info, err := os.Stat(path)
			if err == nil {
				err = os.Truncate(path, info.Size()-int64(tt.cut))
			}
			if err != nil {
				t.Fatal(err)
			}
			want := memory()
			want.Records = []*subnet.Entry{want.Records[0], want.Records[2]}
			want.Records = append(want.Records, []*subnet.Entry{moved, pair}[:tt.more]...)
			st, err := s.Load()
			if diff := cmp.Diff(st.Memory, want, equate); diff != "" || err != nil {
				t.Errorf("%v (-got +want):\n%s", err, diff)
			}
		})
	}
}

// TestPeersAreAddedOnlyToWhatThisRunHasSaved: the end of another file may be half a record.
func TestPeersAreAddedOnlyToWhatThisRunHasSaved(t *testing.T) {
	s, m := openState(t, t.TempDir()), memory()
	if err := s.AddPeers(subnet.Peers{}, subnet.PeersOfEntries(m.Records[1])); err == nil {
		t.Error("peers were added to a file that was not written")
	}
}

// TestDamageAmongAddedPeersIsNamed: only the end of the last one may be missing without a word.
func TestDamageAmongAddedPeersIsNamed(t *testing.T) {
	dir := t.TempDir()
	s, m := openState(t, dir), memory()
	path := filepath.Join(dir, "run-flannel-subnet.env.peers")
	if err := errors.Join(s.SaveMemory(m), s.Save(subnet.State{Identity: "me"})); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, append(text, `{"Leases":[`+"\n"+`{"Leases":[]}`+"\n"...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.Load()
	if err == nil || !strings.Contains(err.Error(), "only the first 3 were read") || len(st.Memory.Records) != 3 {
		t.Errorf("%d records, error %v", len(st.Memory.Records), err)
	}
}
