package firewall

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"

	"flanneld/firewall/foreign"
)

// acceptRules lets packets from and to the networks pass, in a chain that sees both families.
func acceptRules(networks []netip.Prefix) []rule {
	c := chain{}
	for _, n := range networks {
		for _, source := range []bool{true, false} {
			c.add(family(n.Addr().Is4()), inPrefix(n, source), verdictAccept())
		}
	}
	return c.rules
}

// inPrefix matches packets from or to a prefix.
func inPrefix(p netip.Prefix, source bool) rule {
	side, is4 := "daddr", p.Addr().Is4()
	if source {
		side = "saddr"
	}
	ones := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		ones[i/8] |= 1 << (7 - i%8)
	}
	load := loadAddr(is4, source)
	return rule{fmt.Sprintf("%s %s %s", ipWord(is4), side, p),
		[]expr.Any{load, mask(ones...), equal(p.Masked().Addr().AsSlice()...)}}
}

// admitLocked has firewalld's table accept forwarding from and to the networks, where that is wanted. firewalld drops
// the rules with each reload. It returns what stands in the way.
func (f *Firewall) admitLocked(ctx context.Context, rules Rules, chains []foreign.Chain) string {
	if !foreign.HasFirewalld(chains) {
		f.admitted = false
		return ""
	}
	var want []rule
	if rules.Forward {
		want = acceptRules(rules.Networks)
	}
	changed, err := f.edge.lead(foreign.FirewalldForward, f.names.table, want)
	if err != nil {
		return f.host.Firewalld(ctx, rules.Networks, err)
	}
	if changed && f.admitted {
		f.drift++
		f.log.Warn("drift repaired", "kind", "firewall", "object", foreign.FirewalldForward.String(), "count", len(want))
	}
	if changed {
		f.log.Info("rules written", "table", foreign.FirewalldForward.String(), "lines", len(want))
	}
	f.admitted = true
	return ""
}
