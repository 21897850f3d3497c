package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/google/nftables"

	"flanneld/ip"
)

// Bypass tells whether packets between hosts may go past the host's packet filter, as those do that BPF programs send
// and receive. Any goroutine may use it.
type Bypass struct {
	mu         sync.Mutex // guards all below
	nf         netfilter
	generation uint32
	known      bool
	flow       ip.Flow // of the answer
	why        string
}

// NewBypass returns one that opens its socket when it is asked, and closes it then.
func NewBypass() *Bypass { return &Bypass{} }

// tablePrefix begins the names of our tables, one for each network.
const tablePrefix = "flannel"

// legacyTables lists the tables of iptables-legacy in this network namespace that have been used.
const legacyTables = "/proc/thread-self/net/ip_tables_names"

// Why names a chain that packets between hosts must not go past: one whose rules may drop or change them, other than by
// translation of addresses, or may be about them in a way that is not understood. Empty: there is none. The error
// says that the packet filter cannot be read.
func (b *Bypass) Why(f ip.Flow) (why string, err error) {
	legacy, err := os.ReadFile(legacyTables)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	for table := range bytes.FieldsSeq(legacy) {
		if string(table) != "nat" {
			return fmt.Sprintf("the packet filter has a table %s of iptables-legacy", table), nil
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.nf.close()
	generation, err := b.nf.generation()
	if err != nil {
		return "", fmt.Errorf("the packet filter cannot be read: %w", err)
	}
	if b.known && generation == b.generation && f == b.flow {
		return b.why, nil
	}
	b.known = false
	err = b.nf.consistent(func(c *nftables.Conn) (err error) {
		b.why, err = filters(c, f)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("the packet filter cannot be read: %w", err)
	}
	b.generation, b.flow, b.known = generation, f, true
	return b.why, nil
}

// filters names the first chain that may do something to the packets.
func filters(c *nftables.Conn, f ip.Flow) (string, error) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyUnspecified)
	if err != nil {
		return "", err
	}
	for _, k := range chains {
		if !sees(k) {
			continue
		}
		p := path{flow: newFlow(f, inbound(k)), rules: func(chain string) ([]*nftables.Rule, error) {
			return c.GetRules(k.Table, &nftables.Chain{Name: chain, Table: k.Table})
		}, chains: map[string][]*nftables.Rule{}}
		what, err := p.through(k.Name)
		if err != nil {
			return "", err
		}
		drops := k.Policy != nil && *k.Policy == nftables.ChainPolicyDrop && what != accepted
		if what == touched || drops {
			return fmt.Sprintf("the packet filter may have rules for packets between hosts, in chain %s of table %s %s", k.Name,
				familyWords[k.Table.Family], k.Table.Name), nil
		}
	}
	return "", nil
}

// inbound reports whether a chain sees packets that come in.
func inbound(k *nftables.Chain) bool {
	if k.Table.Family == nftables.TableFamilyNetdev {
		return *k.Hooknum == *nftables.ChainHookIngress
	}
	outbound := *k.Hooknum == *nftables.ChainHookOutput || *k.Hooknum == *nftables.ChainHookPostrouting
	return !outbound // there is an ingress of the family inet as well
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
