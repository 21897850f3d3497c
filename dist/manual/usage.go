// Package manual renders what a package brings along to explain flanneld's flags, from the usage text of the program itself: the
// manual page, the configuration file and the shell completions. None of it can name a flag that does not exist, or miss one.
package manual

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Usage is the usage text of flanneld, taken apart.
type Usage struct {
	Groups []Group
}

// Group is a theme of flags.
type Group struct {
	Title string
	Flags []Flag
}

// Flag is one line of the usage text.
type Flag struct {
	Name    string
	Arg     string // what the value is; empty for a switch
	Text    string
	Default string // empty: none, or false for a switch
}

var flagLine = regexp.MustCompile(`^  -(\S+?)(?: (\S.*?))? {3,}(.*?)(?: \(default (.*)\))?$`)

// ParseUsage reads the output of flanneld -help.
func ParseUsage(text string) (Usage, error) {
	var u Usage
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch m := flagLine.FindStringSubmatch(line); {
		case m != nil && len(u.Groups) > 0:
			g := &u.Groups[len(u.Groups)-1]
			g.Flags = append(g.Flags, Flag{m[1], m[2], m[3], m[4]})
		case strings.HasPrefix(line, " "):
			return Usage{}, fmt.Errorf("line of the usage text not understood: %q", line)
		case strings.HasSuffix(line, ":"):
			u.Groups = append(u.Groups, Group{Title: strings.TrimSuffix(line, ":")})
		}
	}
	if len(u.Groups) == 0 {
		return Usage{}, errors.New("the usage text has no flags")
	}
	return u, nil
}

// Variable returns the environment variable of the flag.
func (f Flag) Variable() string {
	return "FLANNELD_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// choices returns the values of a flag that takes one of a few words.
func (f Flag) choices() []string {
	if words := strings.Split(f.Arg, "|"); len(words) > 1 && f.Default != "" {
		return words
	}
	return nil
}

func (f Flag) isFile() bool   { return f.Arg == "file" }
func (f Flag) isFolder() bool { return f.Arg == "folder" }

// sentence returns the text with a capital letter and a full stop.
func (f Flag) sentence() string {
	return strings.ToUpper(f.Text[:1]) + f.Text[1:] + "."
}

// each calls do with every flag.
func (u Usage) each(do func(Flag)) {
	for _, g := range u.Groups {
		for _, f := range g.Flags {
			do(f)
		}
	}
}
