package lab_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/lab"
)

// rotateGap bounds how long traffic with a host is away while its key is replaced, in both directions.
const rotateGap = 2 * time.Second

// rotated has a host take a new key by command.
func (s *wireguardSite) rotated(t *testing.T, e *lab.Etcd) {
	h := s.hosts[0]
	file := filepath.Join(filepath.Dir(h.SubnetFile()), "wgkey")
	private, before := must[[]byte](t)(os.ReadFile(file)), s.public(t, e)
	pings := []*lab.Pings{
		must[*lab.Pings](t)(s.pods[0].Pings(s.pods[1].Addrs[0], lab.PingOptions{})),
		must[*lab.Pings](t)(s.pods[2].Pings(s.pods[0].Addrs[1], lab.PingOptions{})),
		must[*lab.Pings](t)(s.pods[1].Pings(s.pods[2].Addrs[0], lab.PingOptions{})), // not concerned
	}
	for _, p := range pings {
		answered(t, s.cluster, p, 3)
	}
	rotated := ctlJSON[api.Rotated](s.cluster, h, "rekey")
	for _, p := range pings {
		answered(t, s.cluster, p, 5)
	}
	for _, p := range pings[:2] {
		s.inTime("the gap in the traffic", p.Stop().LongestGap, scaled(rotateGap))
	}
	if stats := pings[2].Stop(); stats.Lost() > 0 {
		t.Errorf("between two other hosts: %s", stats)
	}
	if now := s.public(t, e); now == before {
		t.Errorf("the record is still %s", now)
	}
	if now := must[[]byte](t)(os.ReadFile(file)); string(now) == string(private) || rotated.PublicKey == "" {
		t.Errorf("the public key is %q, and the private key the one of before: %t", rotated.PublicKey,
			string(now) == string(private))
	}
	s.reachable(t)
}
