package main

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"flanneld/api"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

const (
	// mostExpiries bounds the records whose expiry is asked for, one request each. With -o wide all are.
	mostExpiries = 1000
	expiryTime   = 5 * time.Second
	// stamp is how times are printed.
	stamp = "2006-01-02 15:04:05 MST"
)

// addExpiries asks the store when the leases of records end. Without an answer the column stays empty: the records are
// worth printing.
func (a *app) addExpiries(ctx context.Context, records []api.Record) {
	ids := map[subnet.LeaseID]bool{}
	for _, r := range records {
		if id, err := strconv.ParseInt(r.Lease, 16, 64); err == nil && id != 0 {
			ids[subnet.LeaseID(id)] = true
		}
	}
	if len(ids) == 0 || len(ids) > mostExpiries && a.output != "wide" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, expiryTime)
	defer cancel()
	var expiries map[subnet.LeaseID]time.Time
	_ = a.withStore(ctx, func(s *etcdv3.Store) (err error) {
		expiries, err = s.Expiries(ctx, slices.Sorted(maps.Keys(ids)))
		return err
	})
	for i, r := range records {
		id, _ := strconv.ParseInt(r.Lease, 16, 64)
		if at, ok := expiries[subnet.LeaseID(id)]; ok {
			at = at.UTC().Truncate(time.Second)
			records[i].Expires = &at
		}
	}
}

// expiryOf says when a record goes, unless its host renews it.
func expiryOf(r api.Record) string {
	switch {
	case r.Reservation:
		return "never"
	case r.Expires != nil:
		return r.Expires.Local().Format(stamp)
	}
	return ""
}

// sortRecords orders records by their subnets as numbers, and puts those without any behind.
func sortRecords(records []api.Record) {
	slices.SortStableFunc(records, func(a, b api.Record) int {
		switch {
		case len(a.Subnets) == 0 || len(b.Subnets) == 0:
			return min(1, len(b.Subnets)) - min(1, len(a.Subnets))
		case a.Subnets[0] == b.Subnets[0]:
			return strings.Compare(a.Key, b.Key)
		}
		return netip.Prefix.Compare(a.Subnets[0], b.Subnets[0])
	})
}
