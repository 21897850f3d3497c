package firewall

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"flanneld/firewall/foreign"
)

// elementsPerMessage bounds one list of elements: the length of an attribute has 16 bits.
const elementsPerMessage = 1000

// replace makes the table stand as t in one transaction, whatever stood before.
func (n *netfilter) replace(t table) error {
	err := n.with(func(c *nftables.Conn) error {
		k := kernelTable(t.name)
		c.AddTable(k) // so that deleting it succeeds
		c.DelTable(k)
		c.AddTable(k)
		for i, s := range t.sets {
			ks := s.kernel(k)
			ks.ID = uint32(i + 1)
			if err := c.AddSet(ks, nil); err != nil {
				return err
			}
			if err := eachPart(slices.Collect(s.elems.All()),
				func(e []nftables.SetElement) error { return c.SetAddElements(ks, e) }); err != nil {
				return err
			}
		}
		addChains(c, k, t.chains)
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("write table %s: %w", t.name, err)
	}
	return nil
}

func addChains(c *nftables.Conn, k *nftables.Table, chains []chain) {
	for _, ch := range chains {
		kc := &nftables.Chain{Table: k, Name: ch.name}
		if ch.kind != "" {
			accept := nftables.ChainPolicyAccept
			kc.Type, kc.Hooknum, kc.Priority, kc.Policy = ch.kind, &ch.hook, &ch.priority, &accept
		}
		c.AddChain(kc)
	}
	for _, ch := range chains {
		for _, r := range ch.rules {
			c.AddRule(&nftables.Rule{Table: k, Chain: &nftables.Chain{Table: k, Name: ch.name}, Exprs: r.exprs})
		}
	}
}

// update changes elements of sets in one transaction.
func (n *netfilter) update(name string, changes []change) error {
	err := n.with(func(c *nftables.Conn) error {
		for _, ch := range changes {
			ks := ch.set.kernel(kernelTable(name))
			err := errors.Join(
				eachPart(ch.del, func(e []nftables.SetElement) error { return c.SetDeleteElements(ks, e) }),
				eachPart(ch.add, func(e []nftables.SetElement) error { return c.SetAddElements(ks, e) }))
			if err != nil {
				return err
			}
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("update sets of table %s: %w", name, err)
	}
	return nil
}

// remove deletes a table that stands.
func (n *netfilter) remove(t foreign.Table) error {
	err := n.with(func(c *nftables.Conn) error {
		for family, word := range familyWords {
			if word == t.Family {
				c.DelTable(&nftables.Table{Family: family, Name: t.Name})
			}
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("delete table %s: %w", t, err)
	}
	return nil
}

func kernelTable(name string) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: name}
}

func (s set) kernel(t *nftables.Table) *nftables.Set {
	k := &nftables.Set{
		Table: t, Name: s.name, KeyType: nftables.TypeIP6Addr, KeyByteOrder: binaryutil.BigEndian,
		Interval: s.ranges, Dynamic: s.dynamic, HasTimeout: s.dynamic, Timeout: s.timeout, Size: s.size,
	}
	if s.is4 {
		k.KeyType = nftables.TypeIPAddr
	}
	return k
}

// eachPart calls f with the elements in lists that fit into a message.
func eachPart(elems []element, f func([]nftables.SetElement) error) error {
	for part := range slices.Chunk(elems, elementsPerMessage) {
		list := make([]nftables.SetElement, len(part))
		for i, e := range part {
			list[i] = nftables.SetElement{Key: e.addr.AsSlice(), IntervalEnd: e.end}
		}
		if err := f(list); err != nil {
			return err
		}
	}
	return nil
}
