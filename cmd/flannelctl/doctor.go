package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// verdict is how a check went.
type verdict string

const (
	good    verdict = "ok"
	warning verdict = "warning"
	failure verdict = "failure"
	skipped verdict = "skipped" // what it needs is not there
)

// finding is the result of one check.
type finding struct {
	Check    string  `json:"check"`
	Result   verdict `json:"result"`
	Evidence string  `json:"evidence"`
	Fix      string  `json:"fix,omitempty"`   // the command that repairs it
	Fixed    string  `json:"fixed,omitempty"` // outcome of --fix

	repair [][]string // commands of --fix; none: only a person should do it
}

// check looks at one thing.
type check struct {
	name string
	run  func(ctx context.Context, f *facts) finding
}

// checks are made in this order: what others depend on comes first.
var checks = []check{
	{"daemon", checkDaemon}, {"ready", checkReady}, {"state", checkState}, {"store", checkStore}, {"store-rights", checkRights}, {"clock", checkClock},
	{"configuration", checkConfig}, {"lease", checkLease}, {"records", checkRecords}, {"duplicates", checkDuplicates}, {"subnet-file", checkEnv},
	{"interface", checkInterface}, {"device", checkDevice}, {"hardware-address", checkMAC}, {"drift", checkDrift}, {"peers", checkPeers},
	{"forwarding", checkForwarding}, {"rp-filter", checkReversePath}, {"forward-chain", checkForwardChain}, {"firewall", checkFirewall},
	{"overlap", checkOverlap}, {"bridge", checkBridge}, {"bridge-mtu", checkBridgeMTU}, {"leftovers", checkLeftovers},
	{"neighbour-table", checkNeighbours}, {"connection-table", checkConntrack}, {"checksums", checkChecksums},
	{"tunnel", checkTunnel}, {"path-mtu", checkPathMTU}, {"versions", checkVersions},
}

func newDoctor(a *app) *cobra.Command {
	var fix bool
	c := &cobra.Command{
		Use: "doctor", Short: "Find what is wrong, with evidence and the command that repairs it",
		Long: `Makes every check and prints its result, the evidence and the command that repairs it. Works without a
running daemon, from its state and from the store. Exit code 3 if a check failed; warnings alone give 0.`,
		Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := diagnose(cmd.Context(), a)
			if fix {
				for i := range findings {
					findings[i].Fixed = repair(cmd.Context(), findings[i])
				}
			}
			if err := a.print(findings, func(w page) { writeFindings(w, findings) }); err != nil {
				return err
			}
			if slices.ContainsFunc(findings, func(f finding) bool { return f.Result == failure && f.Fixed != "done" }) {
				return errNotOK
			}
			return nil
		},
	}
	c.Flags().BoolVar(&fix, "fix", false, "also run the commands that cannot do harm")
	return c
}

// diagnose makes all checks.
func diagnose(ctx context.Context, a *app) []finding {
	f := gather(ctx, a)
	var out []finding
	for _, c := range checks {
		r := c.run(ctx, f)
		r.Check = c.name
		if r.Result == good || r.Result == skipped {
			r.Fix, r.repair = "", nil
		}
		out = append(out, r)
	}
	return out
}

func repair(ctx context.Context, f finding) string {
	if len(f.repair) == 0 {
		return ""
	}
	for _, command := range f.repair {
		if err := run(ctx, command...); err != nil {
			return err.Error()
		}
	}
	return "done"
}

// safe turns commands into the fix of a finding that --fix may run.
func (f finding) safe(commands ...string) finding {
	f.Fix = strings.Join(commands, " && ")
	for _, c := range commands {
		f.repair = append(f.repair, strings.Fields(c))
	}
	return f
}

func writeFindings(w page, findings []finding) {
	counts := map[verdict]int{}
	for _, f := range findings {
		counts[f.Result]++
		w.row(strings.ToUpper(string(f.Result)), f.Check, f.Evidence)
		if f.Fix != "" {
			w.below(2, "→ "+f.Fix)
		}
		if f.Fixed != "" {
			w.below(2, "fix: "+f.Fixed)
		}
	}
	w.line("%d ok, %d warnings, %d failures, %d skipped", counts[good], counts[warning], counts[failure], counts[skipped])
}

func pass(format string, args ...any) finding {
	return finding{Result: good, Evidence: fmt.Sprintf(format, args...)}
}

func skip(format string, args ...any) finding {
	return finding{Result: skipped, Evidence: fmt.Sprintf(format, args...)}
}

func warn(fix, format string, args ...any) finding {
	return finding{Result: warning, Evidence: fmt.Sprintf(format, args...), Fix: fix}
}

func fail(fix, format string, args ...any) finding {
	return finding{Result: failure, Evidence: fmt.Sprintf(format, args...), Fix: fix}
}

// some lists the first few of many.
func some(lines []string) string {
	const most = 3
	text := strings.Join(lines[:min(len(lines), most)], "; ")
	if len(lines) > most {
		text += fmt.Sprintf("; and %d more", len(lines)-most)
	}
	return text
}
