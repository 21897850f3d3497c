package main

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"flanneld/api"
	"flanneld/doctor"
)

// What tests look at.
var (
	Words        = words
	FlannelRules = flannelRules
	SNMP         = snmp
	ParseSubnets = parseSubnets
	Clean        = clean
	RemarkOn     = remarkOn
	StateError   = func(s api.Status) int { return exitCode(stateError(stateOf(s))) }
	Unreached    = unreached
	CleanText    = cleanText
	ReadCNI      = readCNI
	NodeCommands = nodeCommands
	SinceOf      = sinceOf
	EntryOf      = entryOf
	ExpiryOf     = expiryOf
	SortRecords  = sortRecords
	ParseConf    = parseConf
	Destination  = destination
	Checksum     = checksum
)

// Render prints two rows with a value, and an object with it as JSON.
func Render(t *testing.T, value string) (table, text string) {
	t.Helper()
	var b strings.Builder
	a := app{out: &b, output: "table"}
	show := func() string {
		b.Reset()
		err := a.print(map[string]string{"host": value}, func(w page) { w.row("host", value); w.line("host %s", value) })
		if err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	table, a.output = show(), "json"
	return table, show()
}

// Run runs flannelctl, and returns what it prints and its exit code.
func Run(t *testing.T, args ...string) (out, errors string, code int) {
	t.Helper()
	var stdout, stderr strings.Builder
	code = realMain(t.Context(), args, &stdout, &stderr)
	return stdout.String(), stderr.String(), code
}

// Settings returns how the store is reached with a folder of environment files and flags.
func Settings(t *testing.T, folder string, args ...string) (subnetFile, stateDir string, store api.Store, from string) {
	t.Helper()
	a := newApp(io.Discard)
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	a.flags(fs)
	if err := fs.Parse(append(args, "--config-dir", folder)); err != nil {
		t.Fatal(err)
	}
	if err := a.check(); err != nil {
		t.Fatal(err)
	}
	return a.subnetFile, a.stateDir, a.store, a.storeFrom
}

// Root returns the tree of commands.
func Root() *cobra.Command { return newRoot(io.Discard) }

// Runnable returns the commands that do something.
func Runnable(c *cobra.Command) (out []*cobra.Command) {
	if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
		return nil
	}
	if c.RunE != nil && (!c.HasSubCommands() || c.Name() == "leases") {
		out = append(out, c)
	}
	for _, below := range c.Commands() {
		out = append(out, Runnable(below)...)
	}
	return out
}

// Findings returns what the doctor prints for findings.
func Findings(found []doctor.Finding, verbose bool) string {
	var b strings.Builder
	diagnoses := make([]diagnosis, len(found))
	for i, f := range found {
		diagnoses[i].Finding = f
	}
	_ = writePage(&b, func(w page) { writeFindings(w, diagnoses, verbose) }) // a builder does not fail
	return b.String()
}

// Clocks reads the clocks of servers.
var Clocks = readClocks

// Definitions returns the flags of each command that has a page, by its path.
func Definitions() map[string][]string {
	root := newRoot(io.Discard)
	out := map[string][]string{}
	var walk func(c *cobra.Command, flags *pflag.FlagSet)
	walk = func(c *cobra.Command, flags *pflag.FlagSet) {
		out[c.CommandPath()] = nil
		flags.VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && f.Name != "version" {
				out[c.CommandPath()] = append(out[c.CommandPath()], f.Name)
			}
		})
		for _, below := range documented(c) {
			walk(below, below.LocalNonPersistentFlags())
		}
	}
	walk(root, root.PersistentFlags())
	return out
}

// StatusText is what "flannelctl status" prints.
func StatusText(s api.Status) string {
	var b strings.Builder
	_ = writePage(&b, func(w page) { writeStatus(w, s) }) // memory takes everything
	return b.String()
}
