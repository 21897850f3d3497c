package firewall

import (
	"bytes"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"

	"flanneld/firewall/foreign"
)

// udataComment is the number of the comment in the user data of a rule (NFTNL_UDATA_RULE_COMMENT of libnftnl).
const udataComment userdata.Type = 0

// lead implements edge. The mark is the comment of the rules.
func (n *netfilter) lead(c foreign.Chain, mark string, rules []rule) (changed bool, err error) {
	comment := userdata.AppendString(nil, udataComment, mark)
	err = n.with(func(conn *nftables.Conn) error {
		k := &nftables.Chain{Table: kernelTable(c.Table.Name), Name: c.Name}
		have, err := conn.GetRules(k.Table, k)
		if err != nil {
			return err
		}
		var marked []*nftables.Rule
		for _, r := range have {
			if bytes.Equal(r.UserData, comment) {
				marked = append(marked, r)
			}
		}
		if leads(have, marked, rules) {
			return nil
		}
		changed = true
		for _, r := range marked {
			if err := conn.DelRule(r); err != nil {
				return err
			}
		}
		for i := len(rules) - 1; i >= 0; i-- {
			conn.InsertRule(&nftables.Rule{Table: k.Table, Chain: k, Exprs: rules[i].exprs, UserData: comment})
		}
		return conn.Flush()
	})
	if err != nil {
		return false, fmt.Errorf("write into %s: %w", c, err)
	}
	return changed, nil
}

// leads reports whether the marked rules are the wanted ones and come before all others.
func leads(have, marked []*nftables.Rule, want []rule) bool {
	if len(marked) != len(want) {
		return false
	}
	for i, r := range want {
		if have[i] != marked[i] || canonical(have[i].Exprs) != canonical(r.exprs) {
			return false
		}
	}
	return true
}
