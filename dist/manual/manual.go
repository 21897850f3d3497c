// Package manual renders what a package brings along to explain flanneld's flags, from their definitions: the manual
// page, the configuration file and the shell completions. None of it can name a flag that does not exist, or miss one.
package manual

import (
	"strings"

	"flanneld/options"
)

func isFile(f options.Flag) bool   { return f.Arg == "file" }
func isFolder(f options.Flag) bool { return f.Arg == "folder" }

// sentence returns what a flag does, with a capital letter and a full stop.
func sentence(f options.Flag) string {
	return strings.ToUpper(f.Text[:1]) + f.Text[1:] + "."
}

// each calls do with every flag.
func each(do func(options.Flag)) {
	for _, g := range options.Groups() {
		for _, f := range g.Flags {
			do(f)
		}
	}
}
