package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
)

// inet is the family of tables that see IPv4 and IPv6.
const inet = "inet"

// foreignTable names a table of any family.
type foreignTable struct{ family, name string }

func (t foreignTable) String() string { return t.family + " " + t.name }

// foreignChain is a chain of any table. hook is empty for one that is called by jumps only.
type foreignChain struct {
	table foreignTable
	name  string
	hook  string // "forward", or another word for another hook
	drop  bool   // policy
}

// runner is the seam to the programs of the host.
type runner interface {
	// has reports whether there is a program of that name.
	has(name string) bool
	// run feeds a program and returns what it prints; the error holds what it says on its error output.
	run(ctx context.Context, stdin, name string, args ...string) (string, error)
	// forwards reports whether the kernel forwards packets of a family.
	forwards(is4 bool) bool
	// legacyTables returns the tables of the legacy iptables that are in use for a family.
	legacyTables(is4 bool) []string
}

// hostFilter looks after what we need in the tables of others. One goroutine calls pass.
type hostFilter struct {
	log    *slog.Logger
	names  names
	runner runner
	begun  bool            // leftovers are removed
	only   bool            // ours alone, leftovers of flannel stay
	dry    bool            // say what is to be done, and do nothing
	clean  map[string]bool // tables that were as they should be after the last pass, by kind, family and name
}

// hostInput is what a pass depends on.
type hostInput struct {
	rules   Rules
	chains  []foreignChain // of nf_tables
	standIn bool           // iptables must masquerade, nf_tables cannot
}

// hostOutput is what a pass has found.
type hostOutput struct {
	problems []string
	tables   []foreignTable // to be deleted
	drift    int
	done     []string // what was written, or is to be
	failed   bool     // to be tried again
}

// backendKind is one of the two implementations of iptables, with programs of its own and rules that the kernel keeps apart.
type backendKind string

const (
	kindNFT    backendKind = "nf_tables"
	kindLegacy backendKind = "legacy"
)

func (h *hostFilter) legacyInUse() bool {
	return len(h.runner.legacyTables(true))+len(h.runner.legacyTables(false)) > 0
}

// pass makes the tables of iptables hold what we need there.
func (h *hostFilter) pass(ctx context.Context, in hostInput) hostOutput {
	var out hostOutput
	if h.clean == nil {
		h.clean = map[string]bool{}
	}
	for _, is4 := range families {
		for _, kind := range []backendKind{kindNFT, kindLegacy} {
			for _, table := range []string{tableFilter, tableNAT} {
				if err := h.table(ctx, in, place{kind, is4, table}, &out); err != nil {
					out.failed = true
					out.problems = append(out.problems, err.Error())
				}
			}
		}
	}
	if !h.begun && !h.only {
		out.tables = leftoverTables(in.chains)
	}
	h.begun = h.begun || !out.failed
	if in.rules.Forward {
		out.problems = append(out.problems, obstacles(in.chains, in.rules.Networks)...)
	}
	return out
}

// leftoverTables returns the tables that flannel writes with EnableNFTables.
func leftoverTables(chains []foreignChain) []foreignTable {
	old := []foreignTable{{"ip", "flannel-ipv4"}, {"ip6", "flannel-ipv6"}}
	return slices.DeleteFunc(old, func(t foreignTable) bool {
		return !slices.ContainsFunc(chains, func(c foreignChain) bool { return c.table == t })
	})
}

// place is one table of iptables.
type place struct {
	kind  backendKind
	is4   bool
	table string
}

func (p place) String() string {
	program := "ip6tables"
	if p.is4 {
		program = "iptables"
	}
	return fmt.Sprintf("%s (%s) table %s", program, p.kind, p.table)
}

// exists reports whether the table stands in the kernel: asking the program would make it.
func (h *hostFilter) exists(in hostInput, p place) bool {
	if p.kind == kindLegacy {
		return slices.Contains(h.runner.legacyTables(p.is4), p.table)
	}
	return slices.ContainsFunc(in.chains, func(c foreignChain) bool { return c.table == p.foreign() })
}

func (p place) foreign() foreignTable {
	if p.is4 {
		return foreignTable{"ip", p.table}
	}
	return foreignTable{"ip6", p.table}
}

// standsIn reports whether the masquerade rules go into this place.
func (in hostInput) standsIn(p place) bool {
	return in.standIn && in.rules.Masquerade && p.kind == kindLegacy && p.table == tableNAT && len(ofFamily(in.rules.Networks, p.is4)) > 0
}

// table looks after one table.
func (h *hostFilter) table(ctx context.Context, in hostInput, p place, out *hostOutput) error {
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
	text, err := h.runner.run(ctx, "", program, "-w", "5", "-t", p.table, "-S")
	if err != nil {
		return fmt.Errorf("read %s: %w", p, err)
	}
	t := parseIPT(text)
	lines := t.plan(h.hook(in, p, t)) // has positions: before anything is deleted
	if h.clean[p.String()] && len(lines) > 0 {
		out.drift++
		h.log.Warn("drift repaired", "kind", "firewall", "object", p.String(), "rules", strings.Join(lines, "; "))
	}
	if old := planLeftovers(p.table, t); !h.begun && !h.only && len(old) > 0 {
		lines = append(lines, old...)
		h.log.Info("rules of flannel removed", "table", p.String())
	}
	for _, l := range lines {
		out.done = append(out.done, fmt.Sprintf("%s: %s", p, l))
	}
	if len(lines) > 0 && !h.dry {
		if _, err := h.runner.run(ctx, script(p.table, lines), program+"-restore", "-w", "5", "--noflush"); err != nil {
			return fmt.Errorf("write %s: %w", p, err)
		}
		h.log.Info("rules written", "table", p.String(), "lines", len(lines))
	}
	h.clean[p.String()] = true
	h.clean["ours "+p.String()] = in.standsIn(p)
	return nil
}

// hook returns what we want in a table.
func (h *hostFilter) hook(in hostInput, p place, t iptTable) hook {
	if p.table == tableNAT {
		if in.standsIn(p) {
			return masqueradeHook(h.names.nat, in.rules, p.is4)
		}
		return hook{chain: h.names.nat}
	}
	if !in.rules.Forward {
		return hook{chain: h.names.forward}
	}
	return forwardHook(h.names.forward, t, ofFamily(in.rules.Networks, p.is4))
}

// program returns the program for a place.
func (h *hostFilter) program(ctx context.Context, p place) (string, bool) {
	name := "ip6tables"
	if p.is4 {
		name = "iptables"
	}
	suffix := map[backendKind]string{kindNFT: "-nft", kindLegacy: "-legacy"}[p.kind]
	if h.runner.has(name + suffix) {
		return name + suffix, true
	}
	if !h.runner.has(name) {
		return "", false
	}
	says, err := h.runner.run(ctx, "", name, "-V")
	isNFT := strings.Contains(says, "nf_tables")
	return name, err == nil && isNFT == (p.kind == kindNFT)
}

// missing says what is not done because there is no program for a place; empty if nothing.
func (in hostInput) missing(p place) string {
	networks := ofFamily(in.rules.Networks, p.is4)
	switch {
	case in.standsIn(p):
		return fmt.Sprintf("nothing masquerades: nftables cannot be used, and there is no program for %s: install the package iptables", p)
	case p.table != tableFilter || !in.rules.Forward || len(networks) == 0:
		return ""
	case p.kind == kindLegacy:
		return fmt.Sprintf("%s is in use, and its program is not installed: whether it drops forwarded packets of the network cannot be seen; install the package iptables", p)
	}
	drops := slices.ContainsFunc(in.chains, func(c foreignChain) bool {
		return c.table == p.foreign() && (c.name == chainFORWARD && c.drop || c.name == dockerUser)
	})
	if !drops {
		return ""
	}
	return fmt.Sprintf("%s drops forwarded packets, and its program is not installed to let those of the network pass: install the package iptables, "+
		"or set -iptables-forward-rules=false and accept packets from and to %s there", p, texts(networks))
}

// unforwarded says which families the kernel does not forward.
func unforwarded(r runner, networks []netip.Prefix) []string {
	var out []string
	for _, is4 := range families {
		setting := "net.ipv6.conf.all.forwarding"
		if is4 {
			setting = "net.ipv4.ip_forward"
		}
		if len(ofFamily(networks, is4)) > 0 && !r.forwards(is4) {
			out = append(out, fmt.Sprintf("%[1]s is 0, so this host passes no packets on between pods and the network: sysctl -w %[1]s=1, or start with -ip-forward", setting))
		}
	}
	return out
}

// obstacles describes what drops forwarded packets where no rule of ours can help.
func obstacles(chains []foreignChain, networks []netip.Prefix) []string {
	var out []string
	for _, c := range chains {
		iptables := c.name == chainFORWARD && c.table.name == tableFilter && c.table.family != inet
		if c.hook == "forward" && c.drop && !iptables {
			out = append(out, fmt.Sprintf("chain %s of table %s drops what none of its rules accepts: packets from and to %s must be accepted there, no other table can undo it",
				c.name, c.table, texts(networks)))
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
