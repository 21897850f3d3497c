package manual

import (
	"fmt"
	"strings"

	"flanneld/options"
)

const manHead = `.TH FLANNELD 8 "" flanneld "System administration"
.SH NAME
flanneld \- overlay network for the containers of many hosts
.SH SYNOPSIS
.B flanneld
.RI [ OPTION ]...
.SH DESCRIPTION
Leases a subnet for this host from etcd, keeps the kernel carrying packets to the subnets of all other hosts, and tells the
container runtime about the subnet in
.IR /run/flannel/subnet.env .
Stopping the daemon leaves the network in place: a restart is invisible to traffic.
.PP
What all hosts share, the range of addresses and the backend, is one JSON object in etcd under
.IR PREFIX/config .
.SH OPTIONS
Flags may be written with one dash or two. A switch takes its value after an equals sign:
.BR \-iptables\-forward\-rules=false .
Every flag but
.B \-version
may also come from the environment variable named below it; the command line wins.
`

const manTail = `.SH EXIT STATUS
.TP
.B 0
Asked to stop.
.TP
.B 1
A failure that waiting cannot heal.
.TP
.B 2
A wrong flag.
.TP
.B 3
The subnet was lost, and
.B \-on\-lost\-subnet=exit
was given.
.SH FILES
.TP
.I /etc/flannel/flanneld.conf
Environment of flanneld.service; /etc/flannel/NAME.conf that of flanneld@NAME.service.
.TP
.I /run/flannel/subnet.env
The subnet of this host, for docker and the CNI plugin.
.TP
.I /var/lib/flannel
The identity of this host, its lease and its peers. Not to be copied to another host.
.SH SEE ALSO
.BR flannelctl (1),
.BR systemctl (1),
.BR docker (1),
.IR /usr/share/doc/flanneld
`

// Man renders the manual page.
func Man() string {
	var b strings.Builder
	b.WriteString(manHead)
	for _, g := range options.Groups() {
		fmt.Fprintf(&b, ".SS %s\n", roff(g.Title))
		for _, f := range g.Flags {
			fmt.Fprintf(&b, ".TP\n.B \\-%s", roff(f.Name))
			if f.Arg != "" {
				fmt.Fprintf(&b, " \\fI%s\\fP", roff(f.Arg))
			}
			fmt.Fprintf(&b, "\n%s\n", roff(sentence(f)))
			if f.Default != "" {
				fmt.Fprintf(&b, "Default: %s.\n", roff(f.Default))
			}
			if f.Name != "version" {
				fmt.Fprintf(&b, ".br\nEnvironment: %s\n", f.Variable())
			}
		}
	}
	b.WriteString(".SH EXAMPLES\n")
	for _, e := range options.Examples() {
		fmt.Fprintf(&b, ".TP\n.B %s\n%s.\n", roff(e.Line()), roff(strings.ToUpper(e.For[:1])+e.For[1:]))
	}
	b.WriteString(manTail)
	return b.String()
}

// roff escapes what has a meaning to the typesetter.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
