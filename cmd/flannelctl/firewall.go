package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"flanneld/firewall"
	"flanneld/options"
)

// firewall removes our table and, if asked, the rules of a former flannel.
func (c *cleanup) firewall(ctx context.Context) error {
	network := ""
	if c.network != options.Defaults().EtcdPrefix { // the table of that one has no name of its own
		network = c.network
	}
	ours, err := firewall.Remove(ctx, network, c.dryRun)
	for _, line := range ours {
		c.note("%s", line)
	}
	if !c.flannel {
		return err
	}
	return errors.Join(err, c.nftTables(ctx), c.iptables(ctx))
}

// nftTables deletes the tables that flannel makes when it uses nftables.
func (c *cleanup) nftTables(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "nft", "list", "tables").Output()
	if err != nil {
		return nil // no nft, no table of flannel's nft
	}
	var errs []error
	for line := range strings.Lines(string(out)) {
		name := strings.TrimSpace(line)
		if name != "table ip flannel-ipv4" && name != "table ip6 flannel-ipv6" {
			continue
		}
		c.note("nftables %s", name)
		if !c.dryRun {
			errs = append(errs, run(ctx, append([]string{"nft", "delete"}, strings.Fields(name)...)...))
		}
	}
	return errors.Join(errs...)
}

// flannelRules are lines of iptables-save that flannel has made.
var flannelRules = regexp.MustCompile(`^-A .*(--comment "?flanneld |-[jg] FLANNEL-(POSTRTG|FWD)\b)` +
	`|^-A FLANNEL-(POSTRTG|FWD) `)

var flannelChains = regexp.MustCompile(`^:(FLANNEL-(?:POSTRTG|FWD)) `)

// iptables deletes rules and chains, in both kinds of iptables. The legacy ones are looked at only where their
// tables exist: looking makes them.
func (c *cleanup) iptables(ctx context.Context) error {
	var errs []error
	for _, kind := range []struct{ program, names string }{
		{"iptables-nft", ""}, {"ip6tables-nft", ""},
		{"iptables-legacy", "/proc/net/ip_tables_names"}, {"ip6tables-legacy", "/proc/net/ip6_tables_names"},
	} {
		if kind.names != "" {
			if names, err := os.ReadFile(kind.names); err != nil || len(names) == 0 {
				continue
			}
		}
		out, err := exec.CommandContext(ctx, kind.program+"-save").Output()
		if err != nil {
			continue // not installed: it has made no rules
		}
		errs = append(errs, c.iptablesRules(ctx, kind.program, string(out)))
	}
	return errors.Join(errs...)
}

func (c *cleanup) iptablesRules(ctx context.Context, program, saved string) error {
	var table string
	var rules, chains [][]string
	for line := range strings.Lines(saved) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table = name
		}
		if m := flannelChains.FindStringSubmatch(line); m != nil {
			chains = append(chains, []string{program, "-w", "-t", table, "-X", m[1]})
		}
		if flannelRules.MatchString(line) {
			words := words(line)
			words[0] = "-D"
			rules = append(rules, append([]string{program, "-w", "-t", table}, words...))
		}
	}
	var errs []error
	for _, cmd := range append(rules, chains...) {
		c.note("%s rule or chain: %s", program, strings.Join(cmd[2:], " "))
		if !c.dryRun {
			errs = append(errs, run(ctx, cmd...))
		}
	}
	return errors.Join(errs...)
}

// words splits a line as the shell does, as far as iptables-save quotes: double quotes, with backslashes inside.
func words(line string) []string {
	var out []string
	var b strings.Builder
	quoted, begun := false, false
	for i := 0; i < len(line); i++ {
		switch ch := line[i]; {
		case ch == '\\' && quoted && i+1 < len(line):
			i++
			b.WriteByte(line[i])
		case ch == '"':
			quoted, begun = !quoted, true
		case ch == ' ' && !quoted:
			if begun {
				out = append(out, b.String())
			}
			b.Reset()
			begun = false
		default:
			b.WriteByte(ch)
			begun = true
		}
	}
	if begun {
		out = append(out, b.String())
	}
	return out
}

func run(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
