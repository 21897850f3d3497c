package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// String renders the rules as nft prints its tables.
func (r Rules) String() string {
	t := render(namesOf("").table, r.normal())
	if t.name == "" {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", t.name)
	for _, s := range t.sets {
		b.WriteString(s.String())
	}
	for _, c := range t.chains {
		b.WriteString(c.String())
	}
	return strings.TrimSuffix(b.String(), "\n") + "}\n"
}

func (s set) String() string {
	var b strings.Builder
	kind := "ipv6_addr"
	if s.is4 {
		kind = "ipv4_addr"
	}
	fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n", s.name, kind)
	switch {
	case s.ranges:
		b.WriteString("\t\tflags interval\n")
	case s.dynamic:
		fmt.Fprintf(&b, "\t\tsize %d\n\t\tflags dynamic,timeout\n\t\ttimeout %s\n", s.size,
			strings.TrimSuffix(s.timeout.String(), "0s"))
	}
	if s.elems.Len() > 0 {
		fmt.Fprintf(&b, "\t\telements = { %s }\n", strings.Join(s.members(), ", "))
	}
	b.WriteString("\t}\n\n")
	return b.String()
}

// members returns the elements as nft prints them: a range that is a prefix as a prefix.
func (s set) members() []string {
	var out []string
	elems := slices.Collect(s.elems.All())
	for i, e := range elems {
		switch {
		case e.end:
		case !s.ranges:
			out = append(out, e.addr.String())
		case i+1 < len(elems) && elems[i+1].end:
			out = append(out, span(e.addr, elems[i+1].addr.Prev()))
		default: // up to the last address of all
			out = append(out, span(e.addr, lastOf(netip.PrefixFrom(e.addr, 0))))
		}
	}
	return out
}

func span(first, last netip.Addr) string {
	for bits := first.BitLen(); bits >= 0; bits-- {
		if p := netip.PrefixFrom(first, bits); p.Masked().Addr() == first && lastOf(p) == last {
			return p.String()
		}
	}
	return first.String() + "-" + last.String()
}

func (c chain) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tchain %s {\n", c.name)
	switch c.kind {
	case nftables.ChainTypeNAT:
		b.WriteString("\t\ttype nat hook postrouting priority srcnat; policy accept;\n")
	case nftables.ChainTypeFilter:
		b.WriteString("\t\ttype filter hook input priority filter; policy accept;\n")
	}
	for _, r := range c.rules {
		fmt.Fprintf(&b, "\t\t%s\n", r.text)
	}
	b.WriteString("\t}\n\n")
	return b.String()
}
