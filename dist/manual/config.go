package manual

import (
	"fmt"
	"strings"

	"flanneld/options"
)

const configHead = `# Configuration of flanneld on this host, read by flanneld.service. What all hosts share (the range of addresses, the backend) is
# not here but in etcd, under PREFIX/config.
#
# Every flag of flanneld has a line. Those that begin with "#FLANNELD_" show the default: remove the "#" to change it, and run
# "systemctl restart flanneld" afterwards, which does not disturb the traffic. Values may stand in double quotes; nothing is expanded.
# One default is another here: the units set FLANNELD_ETCD_ENDPOINTS=http://127.0.0.1:2379.
# A wrong value ends the daemon with a message that names it: see "systemctl status flanneld".
#
# This file may be read by all. Passwords belong into a drop-in with an EnvironmentFile of mode 0600, or into certificates.
`

const configTail = `
# ---- Flags, for those who prefer them to variables. A flag wins over a variable.
#FLANNEL_OPTIONS="-iface=eth1 -v=1"
`

// Config renders the environment file of the unit: every flag but -version with its default, commented out.
func Config() string {
	var b strings.Builder
	b.WriteString(configHead)
	for _, g := range options.Groups() {
		fmt.Fprintf(&b, "\n# ---- %s\n", g.Title)
		for _, f := range g.Flags {
			if f.Name == "version" {
				continue
			}
			value := f.Default
			if value == "" && f.Arg == "" {
				value = "false"
			}
			fmt.Fprintf(&b, "\n%s#%s=%s\n", wrap(sentence(f), "# ", 120), f.Variable(), value)
		}
	}
	b.WriteString(configTail)
	return b.String()
}

// wrap breaks text into lines of at most width characters that begin with prefix.
func wrap(text, prefix string, width int) string {
	var b strings.Builder
	line := strings.TrimRight(prefix, " ")
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = strings.TrimRight(prefix, " ")
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
	return b.String()
}
