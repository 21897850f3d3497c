package keeper

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"flanneld/subnet"
)

const testConfig = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`

// testFacts are those of a host whose store has some records, with a store lease that is fresh.
func testFacts(t *testing.T, now time.Time, records ...*subnet.Entry) *facts {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(testConfig))
	if err != nil {
		t.Fatal(err)
	}
	f := &facts{
		host: testHost(), policy: subnet.LostMove, config: c, seed: "id",
		records: subnet.NewPeerTable("id", func(subnet.Lease) error { return nil }),
		lease:   storeLease{7, now.Add(time.Minute), now.Add(time.Hour)},
		claims:  map[string]claim{},
	}
	for _, e := range records {
		f.records.Put(e)
	}
	return f
}

// TestADecisionFollowsFromTheRecords goes through what one record leads to, over its relation, key, store lease and
// age.
func TestADecisionFollowsFromTheRecords(t *testing.T) {
	const own, other, here, away = "10.5.1.0/24", "10.5.2.0/24", "192.0.2.1", "192.0.2.9"
	using := func(p string) func(*facts) {
		return func(f *facts) { f.inUse = entry("id", "me", 1, 7, p, here).Leases }
	}
	policy := func(p subnet.LostPolicy, then func(*facts)) func(*facts) {
		return func(f *facts) {
			f.policy = p
			then(f)
		}
	}
	for _, tt := range []struct {
		name    string
		records []*subnet.Entry
		change  func(*facts)
		want    Verb
		key     string // of the record that the action is about, or writes
	}{
		{"no record", nil, nil, Create, ""},
		{"no record and no store lease", nil, func(f *facts) { f.lease = storeLease{} }, Grant, ""},
		{"no record of the subnet in use", nil, using(own), Create, own},
		{"our record", []*subnet.Entry{entry("id", "me", 1, 7, own, here)}, nil, Keep, own},
		{"our record on another store lease", []*subnet.Entry{entry("id", "me", 1, 8, own, here)}, nil, Renew, own},
		{"our record on a lease that has expired", []*subnet.Entry{entry("id", "me", 1, 8, own, here)},
			func(f *facts) { f.expired = 8 }, Update, own},
		{"our record, a reservation", []*subnet.Entry{entry("id", "me", 1, 0, own, here)}, nil, Keep, own},
		{"our record, with other data", []*subnet.Entry{entry("id", "me", 1, 7, own, here)},
			func(f *facts) { f.attrs4.BackendData = "{}" }, Update, own},
		{"ours elsewhere", []*subnet.Entry{entry("id", "me", 1, 8, own, away)}, nil, Claim, own},
		{"ours under another name", []*subnet.Entry{entry("id", "x", 1, 8, own, here)}, nil, Claim, own},
		{"ours, with another subnet than that in use", []*subnet.Entry{entry("id", "me", 1, 7, other, here)}, using(own),
			Create, own},
		{"ours, a reservation of another subnet from while we did not run",
			[]*subnet.Entry{entry("id", "me", 1, 0, other, here)},
			using(own), Keep, other},
		{"a reservation for our address", []*subnet.Entry{entry("", "", 1, 0, own, here)}, nil, Update, own},
		{"our address, of another host", []*subnet.Entry{entry("x", "x", 1, 8, own, here)}, nil, Claim, own},
		{"our address and name, another identity", []*subnet.Entry{entry("x", "me", 1, 8, own, here)}, nil, Claim, own},
		{"another host's", []*subnet.Entry{entry("x", "x", 1, 8, own, away)}, nil, Create, ""},
		{"another host's, with the subnet in use", []*subnet.Entry{entry("x", "x", 1, 8, own, away)}, using(own), Abandon,
			""},
		{"the same under the policy hold", []*subnet.Entry{entry("x", "x", 1, 8, own, away)},
			policy(subnet.LostHold, using(own)), Wait, ""},
		{"the same under the policy exit", []*subnet.Entry{entry("x", "x", 1, 8, own, away)},
			policy(subnet.LostExit, using(own)), Fail, ""},
		{"an old record beside ours", []*subnet.Entry{entry("id", "me", 1, 7, own, here),
			entry("id", "me", 2, 7, other, here)},
			using(own), Delete, other},
		{"an old reservation beside ours",
			[]*subnet.Entry{entry("id", "me", 1, 7, own, here), entry("id", "me", 2, 0, other, here)},
			func(f *facts) {
				using(own)(f)
				f.published = &entry("id", "me", 1, 7, own, here).Record
			}, Keep, own},
		{"ours of a network with both families",
			[]*subnet.Entry{entry("id", "me", 1, 7, own, here, "fd00::/64", "2001:db8::1")}, nil, Update, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := time.Now()
			f := testFacts(t, now, tt.records...)
			if tt.change != nil {
				tt.change(f)
			}
			a := decide(f, now)
			if a.Do != tt.want {
				t.Fatalf("got verb %d (%s), want %d: %+v", a.Do, a.Why, tt.want, a)
			}
			about := slices.Concat(a.Entry.Prefixes(), a.Record.Prefixes())
			if tt.key != "" && !slices.Contains(about, netip.MustParsePrefix(tt.key)) {
				t.Errorf("about %v, want %s", about, tt.key)
			}
		})
	}
}

func TestOfTwoPairsWithOneSubnetInCommonTheYoungerIsReplaced(t *testing.T) {
	now := time.Now()
	pair := func(identity, name, ip string, revision int64, six string) *subnet.Entry {
		return entry(identity, name, revision, 7, "10.5."+name+".0/24", ip, six, "2001:db8::"+name)
	}
	both := func(own, other int64) *facts {
		f := testFacts(t, now, pair("id", "1", "192.0.2.1", own, "fd00:5:0:7::/64"),
			pair("x", "2", "192.0.2.9", other, "fd00:5:0:7::/64"))
		f.name = "1"
		f.config, _ = subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`))
		return f
	}
	if a := decide(both(1, 2), now); a.Do != Keep {
		t.Errorf("ours is the older one: %+v", a)
	}
	f := both(2, 1)
	a := decide(f, now)
	if a.Do != Update || a.Record.Leases[0].Subnet != netip.MustParsePrefix("10.5.1.0/24") ||
		a.Record.Leases[1].Subnet == netip.MustParsePrefix("fd00:5:0:7::/64") {
		t.Errorf("ours is the younger one: %+v", a)
	}
	f.inUse = pair("id", "1", "192.0.2.1", 1, "fd00:5:0:7::/64").Leases
	if a := decide(f, now); a.Do != Abandon || a.Lost == nil || a.Lost.subnet != netip.MustParsePrefix("fd00:5:0:7::/64") {
		t.Errorf("ours is the younger one and in use: %+v", a)
	}
	f.policy = subnet.LostHold
	if a := decide(f, now); a.Do != Wait || a.Lost == nil {
		t.Errorf("under the policy hold: %+v", a)
	}
}

// TestAHostThatWantsItsOwnSubnetLooksForNoOther counts the memory of a decision in a store with the records of many
// others.
func TestAHostThatWantsItsOwnSubnetLooksForNoOther(t *testing.T) {
	now := time.Now()
	var others []*subnet.Entry
	for i := range 5_000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 6 + byte(i>>8), byte(i), 0}), 24)
		others = append(others, entry(fmt.Sprint("x", i), "x", int64(i), 8, p.String(), "192.0.3.1"))
	}
	f := testFacts(t, now, others...)
	f.config, _ = subnet.ParseConfig([]byte(`{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}`))
	bytes := func() int64 {
		return testing.Benchmark(func(b *testing.B) {
			for b.Loop() {
				if a := decide(f, now); a.Do != Create {
					b.Fatalf("%+v", a)
				}
			}
		}).AllocedBytesPerOp()
	}
	if n := bytes(); n < 100_000 {
		t.Errorf("a host without a subnet used %d bytes: the test measures nothing", n)
	}
	f.inUse = entry("id", "me", 1, 7, "10.5.1.0/24", "192.0.2.1").Leases
	if n := bytes(); n > 20_000 {
		t.Errorf("a host that wants its own subnet used %d bytes", n)
	}
}

// TestTheStatesOfAClaim goes through them for a record with our identity at another address.
func TestTheStatesOfAClaim(t *testing.T) {
	now := time.Now()
	e := entry("id", "me", 5, 8, "10.5.1.0/24", "192.0.2.9")
	asked := subnet.Entry{Record: testHost().claim(e.Record), Revision: 6, LeaseID: 9}
	asked.Key = asked.Record.Key()
	open := claim{target: 5, entry: asked, expiry: now.Add(claimTTL), until: now.Add(claimWait)}
	for _, tt := range []struct {
		name  string
		claim claim
		at    time.Duration
		want  Verb
	}{
		{"open", open, time.Second, Wait},
		{"unanswered", open, claimWait, Update},
		{"expired", open, claimTTL, Claim},
		{"of an earlier state of the record", claim{target: 4, entry: asked, expiry: now.Add(claimTTL), until: now}, 0,
			Claim},
		{"refused", open.answer(now), 0, Fail},
	} {
		f := testFacts(t, now, e)
		f.claims[e.Key] = tt.claim
		a := decide(f, now.Add(tt.at))
		if a.Do != tt.want {
			t.Errorf("%s: verb %d, want %d", tt.name, a.Do, tt.want)
		}
		if tt.want == Update && (len(a.Spent) != 1 || a.Spent[0].LeaseID != 9 || a.Lease != 7) {
			t.Errorf("%s: %+v does not spend the claim, or keeps the store lease of another", tt.name, a)
		}
		if tt.want == Fail && !errors.Is(a.Err, ErrCloned) {
			t.Errorf("%s: %v", tt.name, a.Err)
		}
	}
}

func TestAClaimToOurRecordIsRefusedAtRest(t *testing.T) {
	now := time.Now()
	e := entry("id", "me", 5, 7, "10.5.1.0/24", "192.0.2.1")
	c := entry("id", "clone", 6, 9, "10.5.1.0/24", "192.0.2.9")
	c.Claim = true
	c.Key = c.Record.Key()
	f := testFacts(t, now, e, c)
	if a := decide(f, now); a.Do != Delete || !a.Refuse || a.Entry.Key != c.Key {
		t.Errorf("got %+v, want the claim to be deleted", a)
	}
	f.attrs4.PublicIP = netip.MustParseAddr("192.0.2.77")
	f.published = &e.Record
	if a := decide(f, now); a.Do != Update {
		t.Errorf("got %+v, want the new address to be written first", a)
	}
}

// TestAHostThatIsRefusedGivesBackItsOtherClaims is about two hosts that would wait for each other: the one that refuses
// may need the record that the other claims, to leave the address that both want.
func TestAHostThatIsRefusedGivesBackItsOtherClaims(t *testing.T) {
	now := time.Now()
	ours, theirs := entry("id", "old", 5, 0, "10.5.1.0/24", "192.0.2.9"), entry("x", "x", 6, 8, "10.5.2.0/24", "192.0.2.1")
	f := testFacts(t, now, ours, theirs)
	for i, e := range []*subnet.Entry{ours, theirs} {
		c := subnet.Entry{Record: f.claim(e.Record), Revision: int64(7 + i), LeaseID: 9}
		c.Key = c.Record.Key()
		f.claims[e.Key] = claim{target: e.Revision, entry: c, expiry: now.Add(claimTTL), until: now.Add(claimWait)}
	}
	if a := decide(f, now); a.Do != Wait {
		t.Fatalf("both are asked: %+v", a)
	}
	f.claims[theirs.Key] = f.claims[theirs.Key].answer(now)
	a := decide(f, now)
	if a.Do != Delete || !a.Entry.Claim || a.Entry.Revision != 7 {
		t.Fatalf("one has refused: %+v, want the claim to the other to be deleted", a)
	}
	delete(f.claims, ours.Key)
	if a := decide(f, now); a.Do != Wait || a.Until != now.Add(claimAgain) {
		t.Errorf("the claim is given back: %+v, want to wait for a minute", a)
	}
	if a := decide(f, now.Add(claimAgain)); a.Do != Claim {
		t.Errorf("after a minute: %+v, want both to be asked again", a)
	}
}

// TestHostsThatSwapAddressesInACircleDoNotWait has a host see that the host with its new address is looking for another
// one itself. That claim was answered, and is gone, before this host decides.
func TestHostsThatSwapAddressesInACircleDoNotWait(t *testing.T) {
	now := time.Now()
	ours, theirs := entry("id", "me", 5, 7, "10.5.1.0/24", "192.0.2.9"), entry("x", "x", 6, 8, "10.5.2.0/24", "192.0.2.1")
	third := entry("y", "y", 4, 9, "10.5.3.0/24", "192.0.2.2")
	f := testFacts(t, now, ours, theirs, third)
	f.published = &ours.Record
	if a := decide(f, now); a.Do != Claim || a.Entry.Key != theirs.Key {
		t.Fatalf("got %+v, want the host with our address to be asked", a)
	}
	c := entry("x", "x", 7, 10, "10.5.3.0/24", "192.0.2.2")
	c.Claim = true
	c.Key = c.Record.Key()
	f.hearClaims(now, *c)
	if a := decide(f, now); a.Do != Update || a.Entry.Key != ours.Key {
		t.Errorf("got %+v, want our record to be updated", a)
	}
	f.records.Put(entry("x", "x", 8, 8, "10.5.2.0/24", "192.0.2.1"))
	if a := decide(f, now); a.Do != Claim {
		t.Errorf("it has our address again, later than its claim: got %+v, want it to be asked", a)
	}
	f.hearClaims(now.Add(time.Hour))
	if len(f.recent) != 0 {
		t.Errorf("claims are remembered for an hour: %+v", f.recent)
	}
}
