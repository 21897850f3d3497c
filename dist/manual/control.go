package manual

import (
	"fmt"
	"strings"
)

// Help is the help text of one command of flannelctl; Command is empty for that of the program itself.
type Help struct {
	Command string // such as "leases watch"
	Text    string
}

// leftOut are commands whose help says nothing about the network.
var leftOut = map[string]bool{"completion": true, "help": true}

// Subcommands returns the names of the commands that a help text lists.
func Subcommands(help string) (names []string) {
	_, list, _ := strings.Cut(help, "\nAvailable Commands:\n")
	for line := range strings.Lines(list) {
		name, _, ok := strings.Cut(strings.TrimPrefix(line, "  "), " ")
		if !ok || !strings.HasPrefix(line, "  ") {
			break
		}
		if !leftOut[name] {
			names = append(names, name)
		}
	}
	return names
}

// ControlMan renders the manual page of flannelctl: the help texts as they are, the program's first.
func ControlMan(texts []Help) string {
	var b strings.Builder
	b.WriteString(`.TH FLANNELCTL 1 "" flanneld "User commands"
.SH NAME
flannelctl \- see and change the network of flanneld
.SH SYNOPSIS
.B flannelctl
.I COMMAND
.RI [ OPTION ]...
.SH DESCRIPTION
`)
	for i, h := range texts {
		if h.Command != "" {
			fmt.Fprintf(&b, ".SS flannelctl %s\n", roff(h.Command))
		}
		b.WriteString(".nf\n")
		for line := range strings.Lines(strings.TrimRight(h.Text, "\n") + "\n") {
			b.WriteString(roff(line))
		}
		b.WriteString(".fi\n")
		if i == 0 && len(texts) > 1 {
			b.WriteString(".SH COMMANDS\n")
		}
	}
	b.WriteString(".SH SEE ALSO\n.BR flanneld (8)\n")
	return b.String()
}
