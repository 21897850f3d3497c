package firewall

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
)

// firewalldForward is the chain that firewalld judges all forwarded packets in. What its zones do not let pass it rejects, and no
// accept of another table undoes that.
var firewalldForward = foreignChain{table: foreignTable{inet, "firewalld"}, name: "filter_FORWARD"}

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
	return rule{fmt.Sprintf("%s %s %s", ipWord(is4), side, p), []expr.Any{load, mask(ones...), equal(p.Masked().Addr().AsSlice()...)}}
}

// admitLocked has firewalld's table accept forwarding from and to the networks, where that is wanted. firewalld drops the rules
// with each reload. It returns what stands in the way.
func (f *Firewall) admitLocked(ctx context.Context, rules Rules, chains []foreignChain) string {
	if !slices.ContainsFunc(chains, func(c foreignChain) bool { return c.table == firewalldForward.table && c.name == firewalldForward.name }) {
		f.admitted = false
		return ""
	}
	var want []rule
	if rules.Forward {
		want = acceptRules(rules.Networks)
	}
	changed, err := f.edge.lead(firewalldForward, f.names.table, want)
	if err != nil {
		return f.host.firewalld(ctx, rules.Networks, err)
	}
	if changed && f.admitted {
		f.drift++
		f.log.Warn("drift repaired", "kind", "firewall", "object", firewalldForward.String(), "count", len(want))
	}
	if changed {
		f.log.Info("rules written", "table", firewalldForward.String(), "lines", len(want))
	}
	f.admitted = true
	return ""
}

func (c foreignChain) String() string { return c.table.String() + " " + c.name }

// firewalld says how to have firewalld let packets pass whose table is its own alone; empty if that has been done.
func (h *hostFilter) firewalld(ctx context.Context, networks []netip.Prefix, reason error) string {
	var missing []string
	for _, n := range networks {
		if _, err := h.runner.run(ctx, "", "firewall-cmd", "--get-zone-of-source="+n.String()); err != nil {
			missing = append(missing, "--add-source="+n.String())
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("firewalld rejects forwarded packets of the network and lets nobody change its table (%v): firewall-cmd --permanent --zone=trusted %s && firewall-cmd --reload",
		reason, strings.Join(missing, " "))
}
