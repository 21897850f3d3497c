package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newManual prints the manual page. It is for those who build packages.
func newManual(a *app, root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "manual", Short: "Print the manual page", Hidden: true, Args: arguments(0),
		RunE: func(*cobra.Command, []string) error { return a.write(manualPage(root)) },
	}
}

// manualPage renders the manual page from the definitions of the commands and their flags (man(7)).
func manualPage(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(`.TH FLANNELCTL 1 "" flanneld "User commands"
.SH NAME
flannelctl \- show, check and change the network of flanneld
.SH SYNOPSIS
.B flannelctl
.I COMMAND
.RI [ OPTION ]...
.SH DESCRIPTION
`)
	paragraphs(&b, root.Long)
	b.WriteString(".SH COMMANDS\n")
	manualCommands(&b, root)
	b.WriteString(".SH OPTIONS OF ALL COMMANDS\n")
	manualFlags(&b, root.PersistentFlags())
	b.WriteString(`.SH FILES
.TP
.I /etc/flannel/flanneld.conf
Environment of flanneld.service, read while no daemon runs; /etc/flannel/NAME.conf that of flanneld@NAME.service.
.TP
.I /run/flannel/subnet.sock
Socket of the daemon, for root only.
.SH SEE ALSO
.BR flanneld (8)
`)
	return b.String()
}

func manualCommands(b *strings.Builder, parent *cobra.Command) {
	for _, c := range parent.Commands() {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		if c.Runnable() && !c.HasAvailableSubCommands() || c.Name() == "leases" {
			fmt.Fprintf(b, ".SS %s\n%s.\n", roff(strings.TrimSuffix(c.UseLine(), " [flags]")), roff(c.Short))
			if c.Long != "" && c.Parent().Name() != "completion" {
				b.WriteString(".PP\n")
				paragraphs(b, c.Long)
			}
			manualFlags(b, c.LocalNonPersistentFlags())
			manualExamples(b, c.Example)
		}
		manualCommands(b, c)
	}
}

// paragraphs writes text whose lines are filled, but those that are indented.
func paragraphs(b *strings.Builder, text string) {
	for i, part := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		for line := range strings.Lines(part) {
			if strings.HasPrefix(line, "  ") {
				b.WriteString(".br\n")
			}
			b.WriteString(roff(strings.TrimSpace(line)) + "\n")
		}
	}
}

// manualExamples writes the examples as they are typed.
func manualExamples(b *strings.Builder, text string) {
	if text == "" {
		return
	}
	b.WriteString(".PP\nExamples:\n.nf\n")
	for line := range strings.Lines(text) {
		b.WriteString("  " + roff(strings.TrimSpace(line)) + "\n")
	}
	b.WriteString(".fi\n")
}

func manualFlags(b *strings.Builder, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := `\-\-` + roff(f.Name)
		if f.Shorthand != "" {
			name = `\-` + f.Shorthand + ", " + name
		}
		fmt.Fprintf(b, ".TP\n.B %s", name)
		if value != "" {
			fmt.Fprintf(b, " \\fI%s\\fP", roff(value))
		}
		fmt.Fprintf(b, "\n%s.\n", roff(strings.ToUpper(usage[:1])+usage[1:]))
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(b, "Default: %s.\n", roff(f.DefValue))
		}
	})
}

// roff escapes what has a meaning to the typesetter.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
