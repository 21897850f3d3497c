// Command flannelctl shows what the network does on this host and in the cluster, changes leases and configuration,
// finds what is wrong, and removes everything without a trace. It asks the daemon on its socket, and the store where
// the daemon cannot answer.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"flanneld/api"
	"flanneld/subnet/etcdv3"
	"flanneld/version"
)

// Exit codes that scripts may rely on.
const (
	exitFailure  = 1 // what was asked for was not done
	exitUsage    = 2 // flags or arguments make no sense
	exitNotOK    = 3 // the answer was printed: status not ready; peers some not reached; doctor a check failed
	exitNoDaemon = 4 // no daemon answers on the socket
	exitDegraded = 5 // status: degraded
)

// exitCodes says what they mean.
var exitCodes = []struct {
	code  int
	means string
}{
	{0, "success; status: ready"},
	{exitFailure, "failure; the message says why"},
	{exitUsage, "wrong usage"},
	{exitNotOK, "fault found; status: not ready, peers: some are not reached, ping: packets get lost, doctor: a " +
		"check failed"},
	{exitNoDaemon, "no daemon answers on the socket"},
	{exitDegraded, "status: degraded (packets flow, but there is a fault)"},
}

func exitText() string {
	var b strings.Builder
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "  %d  %s\n", e.code, e.means)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// What a command returns that has printed its answer, when the answer reports a fault.
var (
	errNotOK    = errors.New("fault found")
	errDegraded = errors.New("degraded")
)

// usageError is an error of whoever typed the command.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	etcdv3.LogTo(slog.New(slog.DiscardHandler)) // what fails is printed once, as the command's error
	os.Exit(realMain(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func realMain(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !errors.Is(err, errNotOK) && !errors.Is(err, errDegraded) {
		printError(stderr, err)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	usage := usageError{}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errNotOK):
		return exitNotOK
	case errors.Is(err, errDegraded):
		return exitDegraded
	case errors.Is(err, api.ErrNoDaemon):
		return exitNoDaemon
	case errors.As(err, &usage):
		return exitUsage
	}
	return exitFailure
}

// newRoot returns the whole tree of commands.
func newRoot(out io.Writer) *cobra.Command {
	a := newApp(out)
	root := &cobra.Command{
		Use:   "flannelctl",
		Short: "Show, check and change the overlay network of this host",
		Long: `flannelctl shows the state of the network on this host and in the cluster, changes leases and the
network configuration, finds faults, and removes what a stopped daemon has left on the host.

"token", "hosts", "members", "network" and "completion" are groups: without one of their commands they print
their help and exit with 0, as flannelctl itself does. "leases" lists the leases.

Exit codes:
` + exitText(),
		Version: version.This().Version, SilenceUsage: true, SilenceErrors: true,
	}
	root.SetOut(out)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return misused(cmd, err) })
	a.flags(root.PersistentFlags())
	formats := cobra.FixedCompletions([]cobra.Completion{"table", "wide", "json", "yaml"},
		cobra.ShellCompDirectiveNoFileComp)
	_ = root.RegisterFlagCompletionFunc("output", formats) // fails only where there is no such flag
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.check() }
	addGroup(root, "Show and check:", newStatus(a), newPeers(a), newPing(a), newLeases(a), newDoctor(a), newBundle(a),
		newVersion(a))
	addGroup(root, "Change the network and this host:", newNetwork(a), newDrain(a), newRotate(a), newCleanup(a))
	addGroup(root, "Embedded store:", newToken(a), newHosts(a), newMembers(a), newRestore(a))
	root.AddCommand(newManual(root))
	showExamples(root)
	root.SetHelpCommand(newHelp(root))
	root.SetUsageTemplate(usageTemplate(root.UsageTemplate()))
	root.InitDefaultCompletionCmd()
	hide(root, "completion", "powershell") // no shell of Linux hosts
	for _, c := range append(root.Commands(), root) {
		if c.HasSubCommands() && !c.Runnable() {
			showsHelp(c)
		}
	}
	return root
}

// addGroup adds commands that the help shows together.
func addGroup(root *cobra.Command, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, c := range commands {
		c.GroupID = title
		root.AddCommand(c)
	}
}

// usageTemplate has the help of a command show its own flags only: those of all commands are many.
func usageTemplate(standard string) string {
	return strings.Replace(standard, `Global Flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}`,
		`Flags of all commands, such as -o and --subnet-file: see "flannelctl --help".`, 1)
}

// hide takes a command out of help, completion and manual.
func hide(root *cobra.Command, path ...string) {
	if c, _, err := root.Find(path); err == nil {
		c.Hidden = true
	}
}

func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Print the help of a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return misused(cmd, fmt.Errorf("no command %q", strings.Join(args, " ")))
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
	}
}

// showsHelp makes a command that only groups others print its help, and refuse the name of a command that it does
// not have.
func showsHelp(c *cobra.Command) {
	c.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return misused(cmd, unknown(cmd, args[0]))
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

func unknown(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	if similar := cmd.SuggestionsFor(name); len(similar) > 0 {
		return fmt.Errorf("no command %q, did you mean %q?", name, similar[0])
	}
	return fmt.Errorf("no command %q", name)
}

// misused is an error of whoever typed the command, with where to read on.
func misused(cmd *cobra.Command, err error) error {
	return usageError{fmt.Errorf("%w (see \"%s --help\")", err, cmd.CommandPath())}
}

// arguments requires a number of arguments.
func arguments(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == n:
			return nil
		case cmd.HasSubCommands():
			return misused(cmd, unknown(cmd, args[0]))
		}
		return misused(cmd, fmt.Errorf("want %s, got %d; usage: %s", plural(n, "argument"), len(args), cmd.UseLine()))
	}
}
