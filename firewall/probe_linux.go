package firewall

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// probeTable is written and deleted within one transaction, so that nobody ever sees it.
const probeTable = "flannel-probe"

// piece is a part of the kernel that our table is made of.
type piece struct {
	what, option string
	try          func(c *nftables.Conn, t *nftables.Table) error
}

// pieces are tried in this order; each needs those before it.
var pieces = []piece{
	{"nftables with tables of the family inet", "CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET, module nf_tables",
		func(*nftables.Conn, *nftables.Table) error { return nil }},
	{"nftables chains that translate addresses", "CONFIG_NFT_NAT, module nft_chain_nat",
		func(c *nftables.Conn, t *nftables.Table) error {
			c.AddChain(natChain(t))
			return nil
		}},
	{"masquerading by nftables", "CONFIG_NFT_MASQ, module nft_masq", func(c *nftables.Conn, t *nftables.Table) error {
		c.AddRule(&nftables.Rule{Table: t, Chain: c.AddChain(natChain(t)), Exprs: []expr.Any{&expr.Masq{}}})
		return nil
	}},
	{"nftables sets", "CONFIG_NF_TABLES", func(c *nftables.Conn, t *nftables.Table) error {
		return c.AddSet(set{name: "s", is4: true, ranges: true}.kernel(t), nil)
	}},
	{"nftables sets that packets fill", "CONFIG_NF_TABLES", func(c *nftables.Conn, t *nftables.Table) error {
		return c.AddSet(set{name: "s", is4: true, dynamic: true, size: 1, timeout: nonPeersTimeout}.kernel(t), nil)
	}},
}

func natChain(t *nftables.Table) *nftables.Chain {
	return &nftables.Chain{
		Table: t, Name: "c", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	}
}

// diagnose implements edge.
func (n *netfilter) diagnose() error {
	for _, p := range pieces {
		err := n.with(func(c *nftables.Conn) error {
			t := c.AddTable(kernelTable(probeTable))
			if err := p.try(c, t); err != nil {
				return err
			}
			c.DelTable(t)
			return c.Flush()
		})
		switch {
		case err == nil:
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			return fmt.Errorf("this process may not use nftables, it needs the capability CAP_NET_ADMIN: %w", err)
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT),
			errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EINVAL):
			return fmt.Errorf("this kernel lacks %s (%s): %w", p.what, p.option, err)
		}
	}
	return nil
}
