package etcdv3_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

// Forty values of nearly a megabyte are more than a page may have: they are read in smaller pages, and neither they nor
// a long key hide a record, or are kept.
func TestLargeKeysAndValuesHideNoRecordAndAreNotKept(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, nil)
	s := newStore(t, etcdv3.Options{Endpoints: []string{"http://" + e.addr}, Times: etcdv3.Times{Call: time.Minute}})
	for i := range 40 {
		e.put(fmt.Sprintf("subnets/junk-%02d", i), strings.Repeat("x", 1_000_000))
	}
	e.put("subnets/"+strings.Repeat("k", 1_000_000), "{}")
	e.put("subnets/10.5.34.0-24", `{"PublicIP":"192.0.2.1","BackendType":"host-gw"}`)
	snap, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(snap.Entries) != 1 || snap.Entries[0].Key != "subnets/10.5.34.0-24" {
		t.Errorf("got the records %v, want one", snap.Entries)
	}
	if len(snap.Bad) != 41 {
		t.Errorf("got %d bad records, want 41", len(snap.Bad))
	}
	for _, b := range snap.Bad {
		if text := (subnet.BadRecord{Key: b.Key, Err: b.Err}); len(text.Key)+len(text.Err.Error()) > 1000 {
			t.Errorf("a bad record is told of in %d bytes", len(text.Key)+len(text.Err.Error()))
		}
	}
}
