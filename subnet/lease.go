package subnet

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Lease is one prefix that one host holds, and what its peers must know to reach it. It is comparable. A
// dual-stack host has two leases.
type Lease struct {
	Subnet netip.Prefix
	Attrs
}

// Attrs are what a host publishes with a lease.
type Attrs struct {
	// PublicIP is the underlay address that peers send to; for backends with one underlay for each family it has the
	// family of the subnet.
	PublicIP netip.Addr
	// Underlay is the host's own address where PublicIP is another one, translated on the way: packets of the host may
	// come from either. The zero value: no other address, or a peer that does not tell.
	Underlay    netip.Addr
	BackendType string // "vxlan", "host-gw", …; "udp" where the record names none
	BackendData string // JSON of the backend, empty if it publishes none
	// Offers is a JSON list of further backends by which the host can be reached right now, while it changes from one to
	// another; empty: none. Ways reads it.
	Offers string `json:",omitempty"`
}

func (l Lease) String() string {
	return fmt.Sprintf("%s at %s (%s)", l.Subnet, l.PublicIP, l.BackendType)
}

// CheckPublicIP says why no host of the subnet p can be reached at an address; nil: it can.
func CheckPublicIP(a netip.Addr, p netip.Prefix) error {
	switch {
	case a.Is4() != p.Addr().Is4() || a.Is4In6() || a.Zone() != "":
		return fmt.Errorf("not of the family of the subnet %s", p)
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return errors.New("not the address of a host")
	case p.Addr().Is4() && p.Addr().IsUnspecified(), p.Addr().IsMulticast(), p.Addr().IsLoopback():
		return fmt.Errorf("the subnet %s cannot be leased", p)
	}
	return nil
}

// Record is all that one host publishes under one key of the store.
type Record struct {
	// Leases are sorted by family, IPv4 first: one, or one of each family.
	Leases []Lease
	// Identity is the random name under which the host knows itself again; empty in the records of flannel.
	Identity string
	// Host is the host's name, for messages only; empty in the records of flannel.
	Host string
	// Claim marks a question instead of a lease: the writer wants to take over the record of these
	// leases, which carries its identity or its address, and waits whether a live owner deletes the claim.
	Claim bool
}

// Key returns the name of the record in the store, below PREFIX: "subnets/10.5.34.0-24", for a claim
// "claims/10.5.34.0-24".
func (r Record) Key() string {
	if r.Claim {
		return ClaimsFolder + Key(r.Prefixes())
	}
	return SubnetsFolder + Key(r.Prefixes())
}

// The folders below PREFIX. Nobody but us looks into that of the claims.
const (
	SubnetsFolder = "subnets/"
	ClaimsFolder  = "claims/"
)

// Equal reports whether both records say the same.
func (r Record) Equal(o Record) bool {
	return r.Identity == o.Identity && r.Host == o.Host && r.Claim == o.Claim && slices.Equal(r.Leases, o.Leases)
}

// Prefixes returns the subnets of the record in its order.
func (r Record) Prefixes() []netip.Prefix {
	prefixes := make([]netip.Prefix, len(r.Leases))
	for i, l := range r.Leases {
		prefixes[i] = l.Subnet
	}
	return prefixes
}

// PublicIPs returns the addresses that the record tells peers, in its order.
func (r Record) PublicIPs() (out []netip.Addr) {
	for _, l := range r.Leases {
		out = append(out, l.PublicIP)
	}
	return out
}

// String names the host of the record for a message.
func (r Record) String() string {
	var ips []string
	for _, l := range r.Leases {
		if s := l.PublicIP.String(); !slices.Contains(ips, s) {
			ips = append(ips, s)
		}
	}
	return fmt.Sprintf("%s (%s)", cmp.Or(r.Host, "unnamed host"), strings.Join(ips, ", "))
}

// HostName returns a host's name as records carry it, fit for a log line: at most 253 bytes (RFC 1035), and anything
// but a printable character is a question mark. The name that it returns it leaves as it is.
func HostName(name string) string {
	const most = 253
	name = strings.Map(func(r rune) rune {
		if r <= ' ' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
	for len(name) > most {
		_, n := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-n]
	}
	return name
}

// Key returns the name of subnets in the store: "10.5.34.0-24", "10.5.34.0-24&fd00:5:0:22::-64", or
// "fd00:5:0:22::-64".
func Key(prefixes []netip.Prefix) string {
	var key []byte
	for i, p := range prefixes {
		if i > 0 {
			key = append(key, '&')
		}
		key = append(p.Addr().AppendTo(key), '-')
		key = strconv.AppendInt(key, int64(p.Bits()), 10)
	}
	return string(key)
}

// ParseKey is the inverse of Key. It refuses what Key would not have written: host bits, a wrong order of
// families, zones, other spellings of an address.
func ParseKey(key string) ([]netip.Prefix, error) {
	parts := strings.Split(key, "&")
	prefixes := make([]netip.Prefix, len(parts))
	for i, part := range parts {
		dash := strings.LastIndexByte(part, '-')
		if dash < 0 {
			return nil, fmt.Errorf("parse key %q: %q has no prefix length", key, part)
		}
		p, err := netip.ParsePrefix(part[:dash] + "/" + part[dash+1:])
		if err != nil {
			return nil, fmt.Errorf("parse key %q: %w", key, err)
		}
		prefixes[i] = p
	}
	if Key(prefixes) != key {
		return nil, fmt.Errorf("parse key %q: not in the usual form %q", key, Key(prefixes))
	}
	if err := checkPrefixes(prefixes); err != nil {
		return nil, fmt.Errorf("parse key %q: %w", key, err)
	}
	return prefixes, nil
}

// parseRecordKey reads the subnets from the key of a record below PREFIX.
func parseRecordKey(key string) ([]netip.Prefix, error) {
	return ParseKey(strings.TrimPrefix(key, SubnetsFolder))
}

func checkPrefixes(prefixes []netip.Prefix) error {
	for _, p := range prefixes {
		if p != p.Masked() {
			return fmt.Errorf("%s has host bits set, the subnet is %s", p, p.Masked())
		}
		if p.Addr().Is4In6() {
			return fmt.Errorf("%s is an IPv4-mapped address", p)
		}
	}
	if len(prefixes) == 1 || len(prefixes) == 2 && prefixes[0].Addr().Is4() && prefixes[1].Addr().Is6() {
		return nil
	}
	return fmt.Errorf("want one subnet, or an IPv4 and an IPv6 one in this order")
}
