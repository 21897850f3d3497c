package keeper_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/keeper"
	"flanneld/subnet/subnettest"
)

// peerRecord returns the record of peer number i.
func peerRecord(i int) subnet.Record {
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1 + byte(i>>8), byte(i), 0}), 24)
	r := record(fmt.Sprint("peer", i), "", p.String(), netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}).String())
	return r
}

// BenchmarkView is what every pass of a host asks of its manager.
func BenchmarkView(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := subnettest.NewServer()
			s.SetConfig([]byte(`{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}`))
			for i := range n {
				s.Put(peerRecord(i))
			}
			m := newDaemon(s.Client("me"), keeper.Options{
				Identity: "me", TTL: time.Hour, RenewMargin: time.Minute, OnLost: subnet.LostMove,
				Valid: func(subnet.Lease) error { return nil }, Check: func(subnet.Config) error { return nil },
				Attrs: func(netip.Prefix) subnet.Attrs {
					return subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.1"), BackendType: "vxlan"}
				},
				Log: slog.New(slog.DiscardHandler),
			})
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error)
			go func() {
				ended <- m.Run(ctx)
			}()
			defer func() {
				cancel()
				<-ended
			}()
			for m.View().Peers.Len() < n {
				time.Sleep(time.Millisecond)
			}
			b.ReportAllocs()
			for b.Loop() {
				m.View()
			}
		})
	}
}
