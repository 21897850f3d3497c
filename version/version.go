// Package version says which version of the programs this is, and what it was built from. The linker sets it, so that
// two builds of one commit have the same bytes.
package version

import (
	"fmt"
	"io"
	"runtime"
	"strings"
)

// Set by the linker: -X flanneld/version.number=v1.2.3.
var number, commit, date string

// Build is what a program was built from.
type Build struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"` // its hash
	Date    string `json:"date,omitempty"`   // of the commit, as in RFC 3339
	Go      string `json:"go,omitempty"`     // version and platform
}

// This returns the build of the running program.
func This() Build {
	b := Build{
		Version: number, Commit: commit, Date: date, Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
	}
	if b.Version == "" {
		b.Version = "unknown"
	}
	return b
}

// Details returns what is known beside the version, each with its name.
func (b Build) Details() (lines []string) {
	for _, d := range []struct{ name, value string }{{"commit", b.Commit}, {"date", b.Date}, {"go", b.Go}} {
		if d.value != "" {
			lines = append(lines, d.name+" "+d.value)
		}
	}
	return lines
}

// String returns everything in one line.
func (b Build) String() string { return b.Version + " (" + strings.Join(b.Details(), ", ") + ")" }

// Print writes the version, and nothing else, to out, which scripts read. The details go to more.
func (b Build) Print(out, more io.Writer) {
	fmt.Fprintln(out, b.Version)
	for _, line := range b.Details() {
		fmt.Fprintln(more, line)
	}
}
