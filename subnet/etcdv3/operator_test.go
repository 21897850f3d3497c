package etcdv3_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

// story renders a history, a change each line.
func story(changes []etcdv3.Change) string {
	var b strings.Builder
	for _, c := range changes {
		switch {
		case c.Deleted:
			fmt.Fprintln(&b, "deleted")
		case c.Problem != "":
			fmt.Fprintln(&b, "nonsense")
		default:
			fmt.Fprintln(&b, c.Record.Leases[0].PublicIP)
		}
	}
	return b.String()
}

func TestTheHistoryOfASubnetIsToldAsFarAsTheStoreKnowsIt(t *testing.T) {
	e := startEtcd(t, nil)
	s := e.store()
	const key = "subnets/10.5.7.0-24"
	check := func(want string, forgotten bool) {
		t.Helper()
		changes, from, err := s.History(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if got := story(changes); got != want || (from > 1) != forgotten {
			t.Errorf("the history from revision %d is\n%swant\n%s", from, got, want)
		}
	}
	check("", false)
	e.put(key, `{"PublicIP":"192.0.2.1"}`)
	e.remove(key)
	e.put(key, "nonsense")
	e.put("subnets/10.5.7.0-25", `{"PublicIP":"192.0.2.9"}`)
	e.put(key, `{"PublicIP":"192.0.2.2"}`)
	check("192.0.2.1\ndeleted\nnonsense\n192.0.2.2\n", false)
	e.compact()
	check("192.0.2.2\n", true)
	e.remove(key)
	check("192.0.2.2\ndeleted\n", true)
}

func TestAConfigurationIsReplacedOnlyIfItIsTheOneThatWasSeen(t *testing.T) {
	e := startEtcd(t, nil)
	s := e.store()
	for _, step := range []struct {
		old  []byte
		text string
		want error
	}{
		{[]byte("a"), "b", etcdv3.ErrChanged}, {nil, "a", nil}, {nil, "b", etcdv3.ErrChanged}, {[]byte("a"), "b", nil},
		{[]byte("a"), "c", etcdv3.ErrChanged},
	} {
		if err := s.PutConfig(t.Context(), step.old, step.text); !errors.Is(err, step.want) {
			t.Errorf("replacing %q by %q gives %v, want %v", step.old, step.text, err, step.want)
		}
	}
	snap, err := s.List(t.Context())
	if err != nil || string(snap.Config) != "b" {
		t.Errorf("the configuration is %q, %v, want b", snap.Config, err)
	}
}

func TestAskingForTheRightToWriteWritesNothing(t *testing.T) {
	e := startEtcd(t, nil)
	s := e.store()
	before, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.MayWrite(t.Context()); err != nil {
		t.Error(err)
	}
	after, err := s.List(t.Context())
	if err != nil || after.Position != before.Position {
		t.Errorf("the store was at %+v and is at %+v, %v", before.Position, after.Position, err)
	}
}

func TestTheExpiryOfLeasesIsRead(t *testing.T) {
	e := startEtcd(t, nil)
	s := e.store()
	var ids []subnet.LeaseID
	for range 40 { // more than are asked for at once
		id, err := s.Grant(t.Context(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	got, err := s.Expiries(t.Context(), append(ids, 12345))
	if err != nil || len(got) != len(ids) {
		t.Fatalf("%d expiries, %v, want %d: one lease is not there", len(got), err, len(ids))
	}
	for id, at := range got {
		if left := time.Until(at); left < 50*time.Minute || left > time.Hour+time.Minute {
			t.Errorf("lease %x ends in %s, want an hour", id, left)
		}
	}
}
