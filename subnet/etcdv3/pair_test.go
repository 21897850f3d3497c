package etcdv3_test

import (
	"log/slog"
	"net/netip"
	"testing"

	"flanneld/subnet/etcdv3"
	"flanneld/subnet/etcdv3/member"
	"flanneld/subnet/subnettest"
)

func TestPairsOfSubnets(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	listen := netip.MustParseAddrPort("[::1]:12379")
	m, err := member.Start(t.Context(), member.Options{Dir: t.TempDir(), Listen: listen, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s, err := etcdv3.New(etcdv3.Options{Endpoints: []string{"http://" + listen.String()}, Prefix: "/net", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	subnettest.Pairs(t, s)
}
