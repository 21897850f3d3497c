package main

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"flanneld/api"
	"flanneld/doctor"
	"flanneld/subnet"
)

// diagnosis is a finding, and what became of it under --fix.
type diagnosis struct {
	doctor.Finding
	Fixed string `json:"fixed,omitempty"` // "done", or the error of the command

	also []string // further checks with the same finding
}

func newDoctor(a *app) *cobra.Command {
	var fix, verbose bool
	c := &cobra.Command{
		Use: "doctor", Short: "Find faults, with evidence and the command that repairs each",
		Long: `Checks the daemon, its state, the store, the kernel, the firewall, the bridges of container runtimes and
the way to the peers. Prints each fault, failures first, with the evidence and the command that repairs it;
with -v also the checks that passed or were skipped. JSON and YAML always have all checks.
Works without a running daemon, from its state and from the store. Needs root.

Exit code 3 if a check failed; warnings alone give 0.`,
		Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.allowed(cmd.Context()); err != nil {
				return err
			}
			found := diagnose(cmd.Context(), a)
			if fix {
				for i := range found {
					found[i].Fixed = repair(cmd.Context(), found[i].Repair)
				}
			}
			if err := a.print(found, func(w page) { writeFindings(w, found, verbose) }); err != nil {
				return err
			}
			if slices.ContainsFunc(found, func(d diagnosis) bool { return d.Result == doctor.Failure && d.Fixed != "done" }) {
				return errNotOK
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "also print the checks that passed or were skipped")
	c.Flags().BoolVar(&fix, "fix", false, "also run the repairs that interrupt no traffic and delete nothing")
	return c
}

// allowed returns an error for a user who may not ask the daemon or read its state: what the doctor does not see it
// would take for missing.
func (a *app) allowed(ctx context.Context) error {
	_, asked := ask[api.Ready](ctx, a, api.PathReady)
	_, read := subnet.ReadState(a.stateDir, a.subnetFile)
	for _, err := range []error{asked, read} {
		if errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// diagnose gathers the facts and makes all checks.
func diagnose(ctx context.Context, a *app) []diagnosis {
	findings := doctor.Diagnose(gather(ctx, a))
	out := make([]diagnosis, len(findings))
	for i, f := range findings {
		out[i].Finding = f
	}
	return out
}

func repair(ctx context.Context, commands [][]string) string {
	if len(commands) == 0 {
		return ""
	}
	for _, command := range commands {
		if err := run(ctx, command...); err != nil {
			return err.Error()
		}
	}
	return "done"
}

// shown is the order in which results are printed; without -v the first two only.
var shown = []doctor.Verdict{doctor.Failure, doctor.Warning, doctor.Skipped, doctor.Good}

func writeFindings(w page, found []diagnosis, verbose bool) {
	counts := map[doctor.Verdict]int{}
	for _, d := range found {
		counts[d.Result]++
	}
	verdicts := shown
	if !verbose {
		verdicts = shown[:2]
	}
	for _, v := range verdicts {
		for _, d := range gathered(found, v) {
			writeFinding(w, d)
		}
	}
	hint := ""
	if !verbose && counts[doctor.Good]+counts[doctor.Skipped] > 0 {
		hint = " (-v prints all checks)"
	}
	w.line("%s, %s, %d ok, %d skipped%s", plural(counts[doctor.Failure], "failure"),
		plural(counts[doctor.Warning], "warning"),
		counts[doctor.Good], counts[doctor.Skipped], hint)
}

// gathered returns the findings with a verdict. Checks that are skipped for one reason are one line, so that it is read
// once.
func gathered(found []diagnosis, v doctor.Verdict) (out []diagnosis) {
	for _, d := range found {
		same := func(o diagnosis) bool { return v == doctor.Skipped && o.Evidence == d.Evidence }
		i := slices.IndexFunc(out, same)
		switch {
		case d.Result != v:
		case i >= 0:
			out[i].also = append(out[i].also, d.Check)
		default:
			out = append(out, d)
		}
	}
	return out
}

func writeFinding(w page, d diagnosis) {
	w.row(strings.ToUpper(string(d.Result)), d.Check, d.Evidence)
	if len(d.also) > 0 {
		w.below(2, "also skipped for this reason: "+strings.Join(d.also, ", "))
	}
	if d.Fix != "" {
		w.below(2, "→ "+d.Fix)
	}
	if d.Fixed != "" {
		w.below(2, "fix: "+d.Fixed)
	}
}
