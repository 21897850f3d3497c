package foreign_test

import (
	"net/netip"
	"strings"
	"testing"

	"flanneld/firewall/foreign"
)

var (
	net4 = netip.MustParsePrefix("10.5.0.0/16")
	net6 = netip.MustParsePrefix("fd00:5::/48")
)

// everything is a host of both families that does all that it can.
var everything = foreign.Rules{
	Networks:   []netip.Prefix{net4, net6},
	Subnets:    []netip.Prefix{netip.MustParsePrefix("10.5.34.0/24"), netip.MustParsePrefix("fd00:5:0:22::/64")},
	Masquerade: true, FullyRandom: true, Forward: true,
}

func FuzzPlansOfIPTables(f *testing.F) {
	f.Add(dockerOff + inPlace + "-A DOCKER-USER -j FLANNELD-FORWARD\n")
	f.Add("-P FORWARD DROP\n-A FORWARD -m comment --comment \"a \\\" -j\" -j REJECT\n-N FLANNEL-FWD\n" +
		"-A FORWARD -g FLANNEL-FWD\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, line := range foreign.PlanAll(text, everything) {
			if strings.Contains(line, "\n") {
				t.Errorf("a line of the plan has two: %q", line)
			}
		}
	})
}
