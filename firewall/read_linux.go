package firewall

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"flanneld/firewall/foreign"
	"flanneld/sorted"
)

// read returns the table as it stands.
func (n *netfilter) read(name string) (table, error) {
	var t table
	err := n.consistent(func(c *nftables.Conn) (err error) {
		t, err = readTable(c, name)
		return err
	})
	if err != nil {
		return table{}, fmt.Errorf("read table %s: %w", name, err)
	}
	return t, nil
}

func readTable(c *nftables.Conn, name string) (table, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return table{}, err
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == name })
	if i < 0 {
		return table{}, nil
	}
	t := table{name: name, flags: tables[i].Flags}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return table{}, err
	}
	for _, k := range chains {
		if k.Table == nil || k.Table.Name != name {
			continue
		}
		rules, err := c.GetRules(tables[i], k)
		if err != nil {
			return table{}, err
		}
		t.chains = append(t.chains, decodeChain(k, rules))
	}
	sets, err := c.GetSets(tables[i])
	if err != nil {
		return table{}, err
	}
	for _, k := range sets {
		s := decodeSet(k)
		if !s.dynamic {
			if s.elems, err = readElements(c, k); err != nil {
				return table{}, err
			}
		}
		t.sets = append(t.sets, s)
	}
	t.sort()
	return t, nil
}

func decodeChain(k *nftables.Chain, rules []*nftables.Rule) chain {
	c := chain{name: k.Name, kind: k.Type}
	if k.Hooknum != nil && k.Priority != nil {
		c.hook, c.priority = *k.Hooknum, *k.Priority
	}
	c.drop = k.Policy != nil && *k.Policy == nftables.ChainPolicyDrop
	for _, r := range rules {
		c.rules = append(c.rules, rule{exprs: r.Exprs})
	}
	return c
}

func decodeSet(k *nftables.Set) set {
	s := set{
		name: k.Name, is4: k.KeyType.Name == nftables.TypeIPAddr.Name, ranges: k.Interval,
		dynamic: k.Dynamic, timeout: k.Timeout, size: k.Size,
	}
	address := s.is4 || k.KeyType.Name == nftables.TypeIP6Addr.Name
	s.foreign = !address || k.IsMap || k.Constant || k.Anonymous || k.Concatenation || k.HasTimeout != k.Dynamic
	return s
}

func readElements(c *nftables.Conn, k *nftables.Set) (none sorted.Snapshot[element], err error) {
	list, err := c.GetSetElements(k)
	if err != nil {
		return none, err
	}
	elems := make([]element, 0, len(list))
	for _, e := range list {
		addr, _ := netip.AddrFromSlice(e.Key)
		elems = append(elems, element{addr, e.IntervalEnd})
	}
	return sorted.Of(element.compare, elems), nil
}

// familyWords are the families of tables as nft names them.
var familyWords = map[nftables.TableFamily]string{
	nftables.TableFamilyINet: foreign.INet, nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
	nftables.TableFamilyARP: "arp", nftables.TableFamilyNetdev: "netdev", nftables.TableFamilyBridge: "bridge",
}

// chains implements edge.
func (n *netfilter) chains() ([]foreign.Chain, error) {
	var out []foreign.Chain
	err := n.consistent(func(c *nftables.Conn) error {
		list, err := c.ListChainsOfTableFamily(nftables.TableFamilyUnspecified)
		out = out[:0]
		for _, k := range list {
			if k.Table == nil {
				continue // no chain is without one
			}
			f := foreign.Chain{Table: foreign.Table{Family: familyWords[k.Table.Family], Name: k.Table.Name}, Name: k.Name}
			if k.Hooknum != nil {
				f.Hook = "other"
			}
			routed := k.Table.Family == nftables.TableFamilyINet || k.Table.Family == nftables.TableFamilyIPv4 ||
				k.Table.Family == nftables.TableFamilyIPv6
			if routed && k.Hooknum != nil && *k.Hooknum == *nftables.ChainHookForward {
				f.Hook = foreign.HookForward
			}
			f.Drop = k.Policy != nil && *k.Policy == nftables.ChainPolicyDrop
			out = append(out, f)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read chains: %w", err)
	}
	return out, nil
}

// dropped implements edge.
func (n *netfilter) dropped(t table) (packets uint64, nonPeers []NonPeer, err error) {
	err = n.with(func(c *nftables.Conn) error {
		k := kernelTable(t.name)
		rules, err := c.GetRules(k, &nftables.Chain{Table: k, Name: chainTunnel})
		if err != nil {
			return err
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				if counter, ok := e.(*expr.Counter); ok {
					packets += counter.Packets
				}
			}
		}
		for _, is4 := range foreign.Families {
			list, err := c.GetSetElements(&nftables.Set{Table: k, Name: in(is4, setNonPeers)})
			if err != nil {
				return err
			}
			for _, e := range list {
				if addr, ok := netip.AddrFromSlice(e.Key); ok && e.Counter != nil {
					nonPeers = append(nonPeers, NonPeer{addr, e.Counter.Packets})
				}
			}
		}
		return nil
	})
	if err != nil {
		return 0, nil, fmt.Errorf("read counters of table %s: %w", t.name, err)
	}
	return packets, nonPeers, nil
}
