package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/google/nftables"
)

// Bypass tells whether packets between hosts may go past the host's packet filter, as those do that BPF programs send
// and receive. Any goroutine may use it.
type Bypass struct {
	mu         sync.Mutex // guards all below
	nf         netfilter
	generation uint32
	known      bool
	why        string
}

// NewBypass returns one that opens its socket when it is asked, and closes it then.
func NewBypass() *Bypass { return &Bypass{} }

// tablePrefix begins the names of our tables, one for each network.
const tablePrefix = "flannel"

// legacyTables lists the tables of iptables-legacy in this network namespace that have been used.
const legacyTables = "/proc/thread-self/net/ip_tables_names"

// Why names a chain that packets of the host's own must not go past: one that may drop or change packets that the host
// sends or receives, other than by translation of addresses. Empty: there is none. What cannot be read counts as one.
func (b *Bypass) Why() string {
	legacy, err := os.ReadFile(legacyTables)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	for table := range bytes.FieldsSeq(legacy) {
		if string(table) != "nat" {
			return fmt.Sprintf("the packet filter has a table %s of iptables-legacy", table)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.nf.close()
	generation, err := b.nf.generation()
	if err != nil {
		return fmt.Sprintf("the packet filter cannot be read: %v", err)
	}
	if b.known && generation == b.generation {
		return b.why
	}
	b.known = false
	err = b.nf.consistent(func(c *nftables.Conn) (err error) {
		b.why, err = filters(c)
		return err
	})
	if err != nil {
		return fmt.Sprintf("the packet filter cannot be read: %v", err)
	}
	b.generation, b.known = generation, true
	return b.why
}

// filters names the first chain that is no empty one.
func filters(c *nftables.Conn) (string, error) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyUnspecified)
	if err != nil {
		return "", err
	}
	for _, k := range chains {
		if !sees(k) {
			continue
		}
		rules, err := c.GetRules(k.Table, k)
		if err != nil {
			return "", err
		}
		if drops := k.Policy != nil && *k.Policy == nftables.ChainPolicyDrop; drops || len(rules) > 0 {
			return fmt.Sprintf("the packet filter has rules for packets of the host, in chain %s of table %s %s", k.Name,
				familyWords[k.Table.Family], k.Table.Name), nil
		}
	}
	return "", nil
}

// sees reports whether packets that the host sends or receives pass a chain of others.
func sees(k *nftables.Chain) bool {
	if k.Hooknum == nil || k.Table == nil || k.Type == nftables.ChainTypeNAT {
		return false
	}
	switch k.Table.Family {
	case nftables.TableFamilyNetdev:
		return true
	case nftables.TableFamilyINet, nftables.TableFamilyIPv4:
	default:
		return false
	}
	own := k.Table.Family == nftables.TableFamilyINet && strings.HasPrefix(k.Table.Name, tablePrefix)
	forward := *k.Hooknum == *nftables.ChainHookForward
	return !forward && !own
}
