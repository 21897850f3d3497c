package foreign

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
)

// INet is the family of tables that see IPv4 and IPv6.
const INet = "inet"

// Table names a table of any family.
type Table struct{ Family, Name string }

func (t Table) String() string { return t.Family + " " + t.Name }

// Chain is a chain of any table.
type Chain struct {
	Table Table
	Name  string
	Hook  string // HookForward, another word for another hook, or empty for a chain that is called by jumps only
	Drop  bool   // policy
}

// HookForward is the hook that forwarded packets pass.
const HookForward = "forward"

func (c Chain) String() string { return c.Table.String() + " " + c.Name }

// MarkKubeProxy is what kube-proxy sets on packets that it is going to masquerade.
const MarkKubeProxy = 0x4000

// Runner is the seam to the programs of the host.
type Runner interface {
	// Has reports whether there is a program of that name.
	Has(name string) bool
	// Run feeds a program and returns what it prints; the error holds what it says on its error output.
	Run(ctx context.Context, stdin, name string, args ...string) (string, error)
	// Forwards reports whether the kernel forwards packets of a family.
	Forwards(is4 bool) bool
	// LegacyTables returns the tables of the legacy iptables that are in use for a family.
	LegacyTables(is4 bool) []string
}

// Names are those of the chains of iptables that are ours.
type Names struct {
	Forward string // accept rules
	NAT     string // stands in for our own table
}

// Rules are what the tables of others must allow. They are in the normal form of package firewall.
type Rules struct {
	Networks    []netip.Prefix
	Subnets     []netip.Prefix // of this host
	Masquerade  bool
	FullyRandom bool
	Forward     bool
}

// Filter looks after what we need in the tables of others. One goroutine calls Pass.
type Filter struct {
	Log    *slog.Logger
	Names  Names
	Runner Runner
	Only   bool // ours alone, leftovers of flannel stay
	Dry    bool // say what is to be done, and do nothing

	begun bool            // leftovers are removed
	clean map[string]bool // tables that were as they should be after the last pass, by kind, family and name
}

// Input is what a pass depends on.
type Input struct {
	Rules   Rules
	Chains  []Chain // of nf_tables
	StandIn bool    // iptables must masquerade, nf_tables cannot
}

// Output is what a pass has found.
type Output struct {
	Problems []string
	Tables   []Table // to be deleted
	Drift    int
	Done     []string // what was written, or is to be
	Failed   bool     // to be tried again
}

// Families are walked in this order wherever both get the same treatment: IPv4 or not.
var Families = []bool{true, false}

// OfFamily returns the prefixes of one family.
func OfFamily(prefixes []netip.Prefix, is4 bool) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return p.Addr().Is4() != is4 })
}

// backendKind is one of the two implementations of iptables, with programs of its own and rules that the kernel keeps
// apart.
type backendKind string

const (
	kindNFT    backendKind = "nf_tables"
	kindLegacy backendKind = "legacy"
)

// LegacyInUse reports whether any table of the legacy iptables is in use: it notifies nobody of changes.
func (h *Filter) LegacyInUse() bool {
	return len(h.Runner.LegacyTables(true))+len(h.Runner.LegacyTables(false)) > 0
}

// Pass makes the tables of iptables hold what we need there.
func (h *Filter) Pass(ctx context.Context, in Input) Output {
	var out Output
	if h.clean == nil {
		h.clean = map[string]bool{}
	}
	for _, p := range places() {
		if err := h.table(ctx, in, p, &out); err != nil {
			out.Failed = true
			out.Problems = append(out.Problems, err.Error())
		}
	}
	if !h.begun && !h.Only {
		out.Tables = leftoverTables(in.Chains)
	}
	h.begun = h.begun || !out.Failed
	if in.Rules.Forward {
		out.Problems = append(out.Problems, obstacles(in.Chains, in.Rules.Networks)...)
	}
	return out
}

// leftoverTables returns the tables that flannel writes with EnableNFTables.
func leftoverTables(chains []Chain) []Table {
	old := []Table{{"ip", "flannel-ipv4"}, {"ip6", "flannel-ipv6"}}
	return slices.DeleteFunc(old, func(t Table) bool {
		return !slices.ContainsFunc(chains, func(c Chain) bool { return c.Table == t })
	})
}

// place is one table of iptables.
type place struct {
	kind  backendKind
	is4   bool
	table string
}

// places returns all tables of iptables that are looked after.
func places() (out []place) {
	for _, is4 := range Families {
		for _, kind := range []backendKind{kindNFT, kindLegacy} {
			out = append(out, place{kind, is4, TableFilter}, place{kind, is4, tableNAT})
		}
	}
	return out
}

func (p place) String() string {
	program := "ip6tables"
	if p.is4 {
		program = "iptables"
	}
	return fmt.Sprintf("%s (%s) table %s", program, p.kind, p.table)
}

// exists reports whether the table stands in the kernel: asking the program would make it.
func (h *Filter) exists(in Input, p place) bool {
	if p.kind == kindLegacy {
		return slices.Contains(h.Runner.LegacyTables(p.is4), p.table)
	}
	return slices.ContainsFunc(in.Chains, func(c Chain) bool { return c.Table == p.foreign() })
}

func (p place) foreign() Table {
	if p.is4 {
		return Table{"ip", p.table}
	}
	return Table{"ip6", p.table}
}

// standsIn reports whether the masquerade rules go into this place.
func (in Input) standsIn(p place) bool {
	return in.StandIn && in.Rules.Masquerade && p.kind == kindLegacy && p.table == tableNAT &&
		len(OfFamily(in.Rules.Networks, p.is4)) > 0
}

// table looks after one table.
func (h *Filter) table(ctx context.Context, in Input, p place, out *Output) error {
	if !h.exists(in, p) && !in.standsIn(p) {
		return nil
	}
	if p.table == tableNAT && h.begun && !in.standsIn(p) && !h.clean["ours "+p.String()] {
		return nil
	}
	program, ok := h.program(ctx, p)
	if !ok {
		if missing := in.missing(p); missing != "" {
			return errors.New(missing)
		}
		return nil
	}
	text, err := h.Runner.Run(ctx, "", program, "-w", "5", "-t", p.table, "-S")
	if err != nil {
		return fmt.Errorf("read %s: %w", p, err)
	}
	t := parseIPT(text)
	lines := t.plan(h.hook(in, p, t)) // has positions: before anything is deleted
	if h.clean[p.String()] && len(lines) > 0 {
		out.Drift++
		h.Log.Warn("drift repaired", "kind", "firewall", "object", p.String(), "rules", strings.Join(lines, "; "))
	}
	if old := planLeftovers(p.table, t); !h.begun && !h.Only && len(old) > 0 {
		lines = append(lines, old...)
		h.Log.Info("rules of flannel removed", "table", p.String())
	}
	for _, l := range lines {
		out.Done = append(out.Done, fmt.Sprintf("%s: %s", p, l))
	}
	if len(lines) > 0 && !h.Dry {
		if _, err := h.Runner.Run(ctx, script(p.table, lines), program+"-restore", "-w", "5", "--noflush"); err != nil {
			return fmt.Errorf("write %s: %w", p, err)
		}
		h.Log.Info("rules written", "table", p.String(), "lines", len(lines))
	}
	h.clean[p.String()] = true
	h.clean["ours "+p.String()] = in.standsIn(p)
	return nil
}

// hook returns what we want in a table.
func (h *Filter) hook(in Input, p place, t iptTable) hook {
	if p.table == tableNAT {
		if in.standsIn(p) {
			return masqueradeHook(h.Names.NAT, in.Rules, p.is4)
		}
		return hook{chain: h.Names.NAT}
	}
	if !in.Rules.Forward {
		return hook{chain: h.Names.Forward}
	}
	return forwardHook(h.Names.Forward, t, OfFamily(in.Rules.Networks, p.is4))
}

// program returns the program for a place.
func (h *Filter) program(ctx context.Context, p place) (string, bool) {
	name := "ip6tables"
	if p.is4 {
		name = "iptables"
	}
	suffix := map[backendKind]string{kindNFT: "-nft", kindLegacy: "-legacy"}[p.kind]
	if h.Runner.Has(name + suffix) {
		return name + suffix, true
	}
	if !h.Runner.Has(name) {
		return "", false
	}
	says, err := h.Runner.Run(ctx, "", name, "-V")
	isNFT := strings.Contains(says, "nf_tables")
	return name, err == nil && isNFT == (p.kind == kindNFT)
}

// missing says what is not done because there is no program for a place; empty if nothing.
func (in Input) missing(p place) string {
	networks := OfFamily(in.Rules.Networks, p.is4)
	switch {
	case in.standsIn(p):
		return fmt.Sprintf("nothing masquerades: nftables cannot be used, and there is no program for %s: install the "+
			"package iptables", p)
	case p.table != TableFilter || !in.Rules.Forward || len(networks) == 0:
		return ""
	case p.kind == kindLegacy:
		return fmt.Sprintf("%s is in use, and its program is not installed: whether it drops forwarded packets of the "+
			"network cannot be seen; install the package iptables", p)
	}
	drops := slices.ContainsFunc(in.Chains, func(c Chain) bool {
		return c.Table == p.foreign() && (c.Name == chainFORWARD && c.Drop || c.Name == dockerUser)
	})
	if !drops {
		return ""
	}
	return fmt.Sprintf("%s drops forwarded packets, and its program is not installed to let those of the network pass: "+
		"install the package iptables, "+
		"or set -iptables-forward-rules=false and accept packets from and to %s there", p, texts(networks))
}

// Unforwarded says which Families the kernel does not forward.
func Unforwarded(r Runner, networks []netip.Prefix) []string {
	var out []string
	for _, is4 := range Families {
		setting := "net.ipv6.conf.all.forwarding"
		if is4 {
			setting = "net.ipv4.ip_forward"
		}
		if len(OfFamily(networks, is4)) > 0 && !r.Forwards(is4) {
			out = append(out, fmt.Sprintf("%[1]s is 0, so this host does not forward packets between pods and the network: "+
				"sysctl -w %[1]s=1, or start with -ip-forward", setting))
		}
	}
	return out
}

// obstacles describes what drops forwarded packets where no rule of ours can help.
func obstacles(chains []Chain, networks []netip.Prefix) []string {
	var out []string
	for _, c := range chains {
		iptables := c.Name == chainFORWARD && c.Table.Name == TableFilter && c.Table.Family != INet
		if c.Hook == HookForward && c.Drop && !iptables {
			out = append(out, fmt.Sprintf("chain %s of table %s drops what none of its rules accepts: packets from and to %s "+
				"must be accepted there, no other table can undo it",
				c.Name, c.Table, texts(networks)))
		}
	}
	return out
}

func texts(prefixes []netip.Prefix) string {
	var out []string
	for _, p := range prefixes {
		out = append(out, p.String())
	}
	return strings.Join(out, " and ")
}

// FirewalldForward is the chain that firewalld judges all forwarded packets in. What its zones do not let pass it
// rejects, and no accept of another table undoes that.
var FirewalldForward = Chain{Table: Table{INet, "firewalld"}, Name: "filter_FORWARD"}

// HasFirewalld reports whether firewalld is in force.
func HasFirewalld(chains []Chain) bool {
	return slices.ContainsFunc(chains,
		func(c Chain) bool { return c.Table == FirewalldForward.Table && c.Name == FirewalldForward.Name })
}

// Firewalld says how to have firewalld let packets pass whose table is its own alone; empty if that has been done.
func (h *Filter) Firewalld(ctx context.Context, networks []netip.Prefix, reason error) string {
	var missing []string
	for _, n := range networks {
		if _, err := h.Runner.Run(ctx, "", "firewall-cmd", "--get-zone-of-source="+n.String()); err != nil {
			missing = append(missing, "--add-source="+n.String())
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("firewalld rejects forwarded packets of the network and its table cannot be changed (%v): "+
		"firewall-cmd --permanent --zone=trusted %s && firewall-cmd --reload",
		reason, strings.Join(missing, " "))
}
