package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newManual writes the manual pages. It is for those who build packages.
func newManual(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "manual FOLDER", Short: "Write the manual pages into a folder", Hidden: true, Args: arguments(1),
		RunE: func(_ *cobra.Command, args []string) error {
			pages := manualPages(root)
			for _, name := range slices.Sorted(maps.Keys(pages)) {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(pages[name]), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// manualPages renders a manual page (man(7)) for each command, from the definitions of the commands and their flags.
// The keys are the names of the files.
func manualPages(root *cobra.Command) map[string]string {
	pages := map[string]string{pageName(root) + ".1": mainPage(root)}
	var walk func(parent *cobra.Command)
	walk = func(parent *cobra.Command) {
		for _, c := range documented(parent) {
			pages[pageName(c)+".1"] = commandPage(root, c)
			walk(c)
		}
	}
	walk(root)
	return pages
}

// documented returns the commands right below c that have a page.
func documented(c *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(c.Commands()),
		func(c *cobra.Command) bool { return c.Hidden || c.Name() == "help" })
}

// pageName returns the name of a command's page.
func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

func mainPage(root *cobra.Command) string {
	var b strings.Builder
	pageHead(&b, root, root.Short)
	b.WriteString(`.B flannelctl
.I COMMAND
.RI [ OPTION ]...
.SH DESCRIPTION
`)
	text, _, _ := strings.Cut(root.Long, "Exit codes:")
	paragraphs(&b, text)
	commandList(&b, root)
	b.WriteString(".SH OPTIONS OF ALL COMMANDS\n")
	manualFlags(&b, root.PersistentFlags())
	exitStatus(&b)
	b.WriteString(`.SH FILES
.TP
.I /etc/flannel/flanneld.conf
Environment of flanneld.service, read while no daemon runs; /etc/flannel/NAME.conf that of flanneld@NAME.service.
.TP
.I /run/flannel/subnet.sock
Socket of the daemon, for root only.
`)
	seeAlso(&b, nil)
	return b.String()
}

func commandPage(root, c *cobra.Command) string {
	var b strings.Builder
	pageHead(&b, c, c.Short)
	if c.Runnable() {
		fmt.Fprintf(&b, ".B %s\n", roff(strings.TrimSuffix(c.UseLine(), " [flags]")))
	}
	for _, below := range documented(c) {
		fmt.Fprintf(&b, ".br\n.B %s\n", roff(strings.TrimSuffix(below.UseLine(), " [flags]")))
	}
	b.WriteString(".SH DESCRIPTION\n")
	text := c.Long
	if text == "" || c.Parent().Name() == "completion" {
		text = c.Short + "."
	}
	paragraphs(&b, text)
	commandList(&b, c)
	if c.LocalNonPersistentFlags().HasAvailableFlags() {
		b.WriteString(".SH OPTIONS\n")
		manualFlags(&b, c.LocalNonPersistentFlags())
	}
	b.WriteString(".PP\nOptions of all commands, such as \\-\\-output and \\-\\-subnet\\-file: see\n.BR flannelctl (1).\n")
	manualExamples(&b, c.Example)
	exitStatus(&b)
	others := documented(c)
	if c.Parent() != root {
		others = append(others, c.Parent())
	}
	seeAlso(&b, append(others, root))
	return b.String()
}

func pageHead(b *strings.Builder, c *cobra.Command, short string) {
	name := pageName(c)
	short = strings.ToLower(short[:1]) + short[1:]
	fmt.Fprintf(b, ".TH %s 1 \"\" flanneld \"User commands\"\n.SH NAME\n%s \\- %s\n.SH SYNOPSIS\n",
		strings.ToUpper(roff(name)), roff(name), roff(short))
}

// commandList lists the commands below c, each with its page.
func commandList(b *strings.Builder, c *cobra.Command) {
	below := documented(c)
	if len(below) == 0 {
		return
	}
	b.WriteString(".SH COMMANDS\n")
	for _, sub := range below {
		fmt.Fprintf(b, ".TP\n.BR %s (1)\n%s.\n", roff(pageName(sub)), roff(sub.Short))
	}
}

func exitStatus(b *strings.Builder) {
	b.WriteString(".SH EXIT STATUS\n")
	for _, e := range exitCodes {
		fmt.Fprintf(b, ".TP\n.B %d\n%s.\n", e.code, roff(strings.ToUpper(e.means[:1])+e.means[1:]))
	}
}

func seeAlso(b *strings.Builder, others []*cobra.Command) {
	b.WriteString(".SH SEE ALSO\n")
	for _, c := range others {
		fmt.Fprintf(b, ".BR %s (1),\n", roff(pageName(c)))
	}
	b.WriteString(".BR flanneld (8),\n.I /usr/share/doc/flanneld\n")
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
	b.WriteString(".SH EXAMPLES\n.nf\n")
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
